"""The page's server: a Starlette application over a collection, its map, labels and sounds.

Every address begins with a token; clients name rows by number, never files by path.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import importlib.resources
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssl_audio.data.decode import DecodeError, printable
from ssl_audio.explore import groups
from ssl_audio.explore.collection import Collection
from ssl_audio.explore.labels import Labels
from ssl_audio.explore.projection import Projection
from ssl_audio.explore.sounds import THEMES, Sounds

HOSTS = {"127.0.0.1", "localhost", "[::1]"}  # by which this machine calls itself
MOST = 256 << 20  # bytes of a sound that is sent to search by
TOP = 500  # hits at most
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


class Guard:
    """Lets through what names this machine as host and bears the token; the rest gets nothing.

    The host's name is looked at since a page elsewhere may have its own name resolve to this machine (DNS
    rebinding). Requests of the API carry the token in a header too, which no form of another page can send.
    """

    def __init__(self, app: ASGIApp, token: str):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] != "http":  # start and end of the server
            return await self.app(scope, receive, send)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        _, first, *rest = f"{scope['path']}/".split("/")
        good = _same(first, self.token)
        if rest[:1] == ["api"]:
            good = good and _same(headers.get(b"x-token", ""), self.token)
        if name not in HOSTS or headers.get(b"sec-fetch-site") == "cross-site":
            said = f"Host {host!r}: wanted 127.0.0.1 or localhost, and asked by no page elsewhere."
            refusal = _error(403, said)
            return await refusal(scope, receive, send)
        if not good:
            refusal = _error(
                403, "The token is missing or wrong: open the address that was printed."
            )
            return await refusal(scope, receive, send)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        with contextlib.suppress(ClientDisconnect):  # in the middle of a file that it sent
            await self.app(scope, receive, guarded)


class Page:
    """What the page asks for; each method answers one kind of request.

    Args:
      collection: what is shown.
      labels: given by people.
      projection: the map.
      sounds: makes WAV and PNG files.
      learner: see `eval/learner.py`; None: labels are not learned from.
    """

    def __init__(
        self,
        collection: Collection,
        labels: Labels,
        projection: Projection,
        sounds: Sounds,
        learner: Any = None,
    ):
        self.collection, self.labels, self.projection = collection, labels, projection
        self.sounds, self.learner = sounds, learner
        self._folders = groups.folders(collection.rows)
        self._learning = threading.Lock()
        self._scored: tuple[int, np.ndarray, list[str]] | None = None

    def about(self, request: Request) -> Any:
        """Return what the page shows before anything is asked."""
        del request
        return {
            "name": printable(self.collection.place.name),
            "place": printable(self.collection.place),
            "rows": len(self.collection),
            "files": len({row.path for row in self.collection.rows}),
            "model": self.collection.checkpoint,
            "labels": printable(self.labels.path),
            "learner": self.learner is not None,
            "folders": self._folders is not None,
            "lacks_words": self.collection.lacks_words,
            "lacks_sound": self.collection.lacks_sound,
        }

    def hits(self, found: list[tuple[int, float]]) -> list[dict[str, Any]]:
        """Return rows as the page lists them."""
        guesses = self._guesses()
        made = []
        for number, score in found:
            path, start, end = self.collection.rows[number]
            hit: dict[str, Any] = {
                "row": number, "path": printable(path), "start": start, "end": end, "score": score,
                "label": self.labels.of.get(number),
            }  # fmt: skip
            if guesses is not None:
                scores, classes = guesses
                best = int(scores[number].argmax())
                hit["guess"] = {"label": classes[best], "share": float(scores[number][best])}
            made.append(hit)
        return made

    def search(self, asked: Mapping[str, Any]) -> Any:
        """Return the rows most like words or a row, or some at random."""
        began = time.perf_counter()
        top = _whole(asked.get("top", 24), 1, TOP, "top")
        if asked.get("random"):
            # The same ones in the same order each time, so that more of them can be asked for.
            rng = np.random.default_rng(_whole(asked.get("seed", 0), 0, 1 << 31, "seed"))
            some = rng.permutation(len(self.collection))[:top]
            return {"hits": self.hits([(int(row), 0.0) for row in some])}
        if "words" in asked:
            text = str(asked["words"]).strip()
            if not text:
                raise ValueError("words: nothing to search for.")
            vector = self.collection.of_words(text)
        else:
            vector = self.collection.vectors[self._number(asked.get("row"))]
        return self._found(vector, top, began)

    def by_sound(self, content: bytes, top: str) -> Any:
        """Return the rows most like a file."""
        began, most = time.perf_counter(), _whole(top, 1, TOP, "top")
        return self._found(self.collection.of_sound(content), most, began)

    def _found(self, vector: np.ndarray, top: int, began: float) -> Any:
        hits = self.hits(self.collection.like(vector, top))
        return {"hits": hits, "ms": round(1000 * (time.perf_counter() - began), 1)}

    def row(self, request: Request) -> Any:
        """Return one row."""
        return self.hits([(self._number(request.path_params["row"]), 1.0)])[0]

    def sound(self, request: Request) -> Response:
        """Return a row as WAV; a part of it where the header `range` asks for one."""
        path = self.sounds.wav(self.collection.rows[self._number(request.path_params["row"])])
        return FileResponse(path, media_type="audio/wav", headers={"cache-control": "private"})

    def picture(self, request: Request) -> Response:
        """Return the spectrogram of a row."""
        theme = request.path_params["theme"]
        if theme not in THEMES:
            raise KeyError(theme)
        path = self.sounds.png(
            self.collection.rows[self._number(request.path_params["row"])], theme
        )
        headers = {"cache-control": "private, max-age=3600"}
        return FileResponse(path, media_type="image/png", headers=headers)

    def map_state(self, request: Request) -> Any:
        """Return how far the map is."""
        del request
        return self.projection.state

    def points(self, request: Request) -> Response:
        """Return x, y of each row, float32."""
        del request
        found = self.projection.map
        content = b"" if found is None else found.points.astype("<f4").tobytes()
        return Response(content, media_type="application/octet-stream")

    def colours(self, request: Request) -> Any:
        """Return names of groups, and the number of each row's group, -1: none."""
        by = request.path_params["by"]
        if by == "cluster" and self.projection.map is not None:
            found = groups.numbered(self.projection.map.clusters)
        elif by == "folder" and self._folders is not None:
            found = self._folders
        elif by == "label":
            self.labels.refresh()
            found = groups.labelled(self.labels.of, len(self.collection))
        elif by == "guess" and (guesses := self._guesses()) is not None:
            scores, classes = guesses
            found = groups.Groups(tuple(classes), scores.argmax(axis=1).astype(np.int16))
        else:
            return {"names": [], "counts": [], "of": ""}
        return found.as_json()

    def label(self, asked: Mapping[str, Any]) -> Any:
        """Label a row, or with null take its label away."""
        number, label = self._number(asked.get("row")), asked.get("label")
        if label is not None and not isinstance(label, str):
            raise ValueError(f"label: got {label!r:.60}, wanted text or null.")
        before = self.labels.set(number, label)
        return {"before": before, **self._labels()}

    def all_labels(self, request: Request) -> Any:
        """Return all labels, unless the page knows them: its `version` is the newest."""
        known = request.query_params.get("version", "")
        version = self.labels.refresh()
        return {"version": version} if known == str(version) else self._labels()

    def export(self, request: Request) -> Response:
        """Return the labels as a CSV file."""
        del request
        if not self.labels.path.exists():
            raise FileNotFoundError("No labels yet: choose a sound and press a number key.")
        headers = {"cache-control": "no-store"}
        return FileResponse(
            self.labels.path, media_type="text/csv", filename="labels.csv", headers=headers
        )

    def next(self, asked: Mapping[str, Any]) -> Any:
        """Return the rows to label next."""
        if self.learner is None:
            raise ValueError("There is no learner: start with `ssl-audio label`.")
        how, label = str(asked.get("how")), asked.get("label") or None
        top = _whole(asked.get("top", 24), 1, TOP, "top")
        began = time.perf_counter()
        self._sync()
        with self._learning:
            rows = self.learner.next(top, how=how, label=label)
        return {
            "hits": self.hits([(int(row), 0.0) for row in rows]),
            "ms": round(1000 * (time.perf_counter() - began), 1),
        }

    def _labels(self) -> dict[str, Any]:
        labels = self.labels
        return {
            "version": labels.version, "labels": labels.of, "classes": labels.classes,
            "others": labels.others,
        }  # fmt: skip

    def _sync(self) -> None:
        with self._learning:
            if self.learner is None:
                return
            mine, theirs = self.labels.of, self.learner.labels
            for number in [n for n in theirs if n not in mine]:
                self.learner.set(number, None)
            for number, label in mine.items():
                if theirs.get(number) != label:
                    self.learner.set(number, label)

    def _guesses(self) -> tuple[np.ndarray, list[str]] | None:
        """Return the learner's scores [N, C] and their classes, once there are two."""
        if self.learner is None or len(self.labels.classes) < 2:
            return None
        version = self.labels.version
        if self._scored is None or self._scored[0] != version:
            self._sync()
            with self._learning:
                self._scored = version, self.learner.scores(), list(self.learner.classes)
        return self._scored[1:]

    def _number(self, value: Any) -> int:
        return _whole(value, 0, len(self.collection) - 1, "row")


def app(page: Page, token: str) -> ASGIApp:
    """Return the application; all its addresses begin with /TOKEN/."""
    files = {
        file.name: file.read_bytes()
        for file in (importlib.resources.files("ssl_audio.explore") / "page").iterdir()
    }

    async def static(request: Request) -> Response:
        name = request.path_params.get("name") or "index.html"
        if name not in files:
            return _error(404, "no such page")
        kind = TYPES.get(name[name.rfind(".") :], "application/octet-stream")
        return Response(files[name], media_type=kind, headers={"cache-control": "no-cache"})

    async def by_sound(request: Request) -> Response:
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > MOST:
                return _error(413, f"The file is too large: {MOST >> 20} MiB at most.")
        top = request.query_params.get("top", "24")
        return await _answered(functools.partial(page.by_sound, bytes(content), top))

    def get(method: Callable[[Request], Any]) -> Callable[..., Any]:
        async def endpoint(request: Request) -> Response:
            return await _answered(functools.partial(method, request))

        return endpoint

    def post(method: Callable[[Mapping[str, Any]], Any]) -> Callable[..., Any]:
        async def endpoint(request: Request) -> Response:
            try:
                asked = json.loads(await request.body())
                if not isinstance(asked, dict):
                    raise ValueError("no object")
            except (ValueError, RecursionError):
                return _error(422, "wanted a JSON object")
            return await _answered(functools.partial(method, asked))

        return endpoint

    at = f"/{token}"
    routes = [
        Route(f"{at}/api/about", get(page.about)),
        Route(f"{at}/api/row/{{row}}", get(page.row)),
        Route(f"{at}/api/map", get(page.map_state)),
        Route(f"{at}/api/points", get(page.points)),
        Route(f"{at}/api/colours/{{by}}", get(page.colours)),
        Route(f"{at}/api/labels", get(page.all_labels)),
        Route(f"{at}/api/label", post(page.label), methods=["POST"]),
        Route(f"{at}/api/search", post(page.search), methods=["POST"]),
        Route(f"{at}/api/next", post(page.next), methods=["POST"]),
        Route(f"{at}/api/by-sound", by_sound, methods=["POST"]),
        Route(f"{at}/sound/{{row}}.wav", get(page.sound)),
        Route(f"{at}/picture/{{row}}.{{theme}}.png", get(page.picture)),
        Route(f"{at}/labels.csv", get(page.export)),
        Route(f"{at}/", static),
        Route(f"{at}/{{name}}", static),
    ]
    return Guard(Starlette(routes=routes), token)


async def _answered(ask: Callable[[], Any]) -> Response:
    """Return the answer of a method, worked out in a thread; a user's mistake as JSON with a message."""
    try:
        found = await run_in_threadpool(ask)
    except DecodeError as error:
        return _error(404 if "no such file" in str(error) else 422, _short(error))
    except FileNotFoundError as error:
        return _error(404, _short(error))
    except KeyError as error:
        return _error(404, f"no such thing: {error}")
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        return _error(422, _short(error))
    if isinstance(found, Response):
        return found
    return JSONResponse(found, headers={"cache-control": "no-store"})


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)


def _short(error: Exception) -> str:
    return f"{error}"[:1000].encode("utf-8", "backslashreplace").decode()


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _whole(value: Any, low: int, high: int, name: str) -> int:
    try:
        found = int(value)
    except (TypeError, ValueError, OverflowError):  # Infinity, which Python reads in JSON
        found = low - 1
    if not low <= found <= high or isinstance(value, (bool, float)):
        raise ValueError(f"{name}: got {value!r:.60}, wanted a whole number from {low} to {high}.")
    return found
