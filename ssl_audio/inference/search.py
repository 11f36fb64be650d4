"""Search a folder of sound by words or by sound.

ssl-audio search index --checkpoint RUN --index DIR FOLDER…   (again: only what is new or changed)
ssl-audio search query --index DIR "rain on a roof"           (--audio FILE: what sounds like it)
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import startup
from ssl_audio.data.decode import DecodeError, decode, printable
from ssl_audio.data.listing import AudioFiles, audio_files
from ssl_audio.storage import atomic, opened
from ssl_audio.storage.partial_results import Parts

if TYPE_CHECKING:
    from ssl_audio.inference.audio_text import AudioTextModel

VECTORS, ROWS = "vectors.faiss", "rows.json"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Hit:
    """A segment of a file and its cosine similarity."""

    path: str
    start: float  # s
    end: float  # s
    score: float


class Index:
    """The vectors of segments of many files, in a folder that `build` wrote.

    The search is exact (a flat inner-product index of Faiss): about 0.1 ms for a thousand stretches.

    Raises:
      ValueError: nothing has been indexed there.
      RuntimeError: Faiss is not installed.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = pathlib.Path(folder)
        if not (self._folder / ROWS).is_file():
            raise ValueError(f"{folder}: no index there; make one: ssl-audio search index")
        place = self._folder / ROWS
        found = opened.json_file(place, "the rows that `ssl-audio search index` writes")
        self.checkpoint: str = opened.member(found, "checkpoint", str, place)
        self._rows = [
            _row(row, f"{place}: rows[{i}]")
            for i, row in enumerate(opened.member(found, "rows", list, place))
        ]
        self._vectors = _vectors(self._folder / VECTORS, len(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def query(self, vector: np.ndarray, top: int = 10) -> list[Hit]:
        """Return the most similar files to a unit vector [D], best first, each with its best segment."""
        # A file has several stretches; more are asked for until enough files have come.
        if vector.shape != (self._vectors.d,):
            raise opened.error(
                self._folder / VECTORS,
                f"vectors of {self._vectors.d} numbers",
                f"the {vector.shape[-1]} of the model {self.checkpoint}",
            )
        found: dict[str, Hit] = {}
        wanted = min(len(self), 4 * top)
        while True:
            scores, numbers = self._vectors.search(vector[None].astype(np.float32), wanted)
            for score, number in zip(scores[0], numbers[0], strict=True):
                path, start, end = self._rows[number]
                found.setdefault(path, Hit(path, start, end, float(score)))
            if len(found) >= top or wanted == len(self):
                return list(found.values())[:top]
            wanted = min(len(self), 4 * wanted)


def build(
    model: AudioTextModel, checkpoint: str, folder: str | os.PathLike, places: Iterable[str]
) -> Index:
    """Embed all audio files that are not in the index yet, and write the index.

    Files that are gone from these places, and older versions of files, leave the index. A killed run
    goes on where it was.

    Raises:
      ValueError: a place does not exist or holds no audio; the index is of another checkpoint.
    """
    from tqdm import tqdm

    folder, faiss = pathlib.Path(folder), _faiss()
    atomic.check_folder(folder)
    files = {}
    for path in _files(places):
        try:
            files[_version(path)] = path
        except OSError as error:  # such as a link to nowhere
            log.warning("skipped: %s: %s", printable(path), error.strerror)
    parts = Parts(folder / "parts", {"checkpoint": checkpoint})
    todo = [version for version in files if version not in parts.finished]
    read: list[str] = []

    def clips() -> Iterator[np.ndarray]:
        for version in tqdm(todo, unit="file", desc="index", dynamic_ncols=True, disable=not todo):
            try:
                audio = decode(files[version], model.rate)
            except DecodeError as error:
                log.warning("skipped: %s", error)
                continue
            read.append(version)
            yield audio

    for number, starts, vectors in model.spans(clips()):
        if not np.isfinite(vectors).all():
            log.warning("skipped: %s: its embedding is not finite", printable(files[read[number]]))
            continue
        parts.add_frames(read[number], vectors)
        parts.finish(read[number], (starts / model.rate).astype(np.float32))
    parts.write()
    known = [version for version in files if version in parts.finished]
    if not known:
        raise ValueError("index: no file could be read.")
    vectors = np.concatenate([piece for version in known for piece in parts.frames(version)])
    rows = [
        (str(files[version]), round(float(start), 3), round(float(start) + model.window, 3))
        for version in known
        for start in parts.vector(version)
    ]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    atomic.write(folder / VECTORS, faiss.serialize_index(index).tobytes())
    atomic.write(folder / ROWS, json.dumps({"checkpoint": checkpoint, "rows": rows}))
    return Index(folder)


def table(hits: Sequence[Hit]) -> str:
    """Return hits as text: rank, score, span, file."""
    lines = [f"{'':>4} {'score':>7} {'from':>8} {'to':>8}  file"]
    for rank, hit in enumerate(hits, 1):
        lines.append(
            f"{rank:>4} {hit.score:7.3f} {hit.start:7.1f}s {hit.end:7.1f}s  {printable(hit.path)}"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio search`."""
    made = startup.parser("search", __doc__)
    verbs = made.add_subparsers(dest="verb", required=True)
    make = verbs.add_parser("index", help="embed files; only what is new or changed")
    make.add_argument("--checkpoint", required=True, help="a run or folder of an audio-text model")
    make.add_argument("places", nargs="+", metavar="FOLDER", help="folders or files")
    ask = verbs.add_parser("query", help="find sounds")
    ask.add_argument("text", nargs="?", help="in words")
    ask.add_argument("--audio", metavar="FILE", help="find sounds like this file")
    ask.add_argument("--top", type=int, default=10, help="files to show")
    for verb in (make, ask):
        verb.add_argument("--index", required=True, metavar="DIR", help="the index's folder")
        startup.add_trust(verb)
    return made


def main(argv: Sequence[str] | None = None) -> Any:
    """Parse the command line; index, or answer."""
    args = parser().parse_args(argv)
    if args.verb == "query" and (args.text is None) == (args.audio is None):
        parser().error("query: give words, or --audio FILE")
    if args.verb == "index":
        path = str(pathlib.Path(args.checkpoint).expanduser().resolve())
        index = build(_load(path, args.trust), path, args.index, args.places)
        print(f"{args.index}: {len(index)} stretches")
        return index
    index = Index(args.index)
    model = _load(index.checkpoint, args.trust)
    if args.audio:
        vector = model.embed_audio(decode(args.audio, model.rate), model.rate)
    else:
        vector = model.embed_text(args.text)
    hits = index.query(vector, args.top)
    print(table(hits))
    return hits


def _load(path: str, trust: Sequence[str]) -> AudioTextModel:
    from ssl_audio.inference.load import load

    model = load(path, trust=trust)
    model.check_offers("embed_audio", "embed_text")
    return model


def _files(places: Iterable[str]) -> list[pathlib.Path]:
    found, listed = [], AudioFiles([], {})
    for place in map(pathlib.Path, places):
        if not place.exists():
            raise ValueError(f"{place}: no such file or folder.")
        inside = audio_files(place) if place.is_dir() else AudioFiles([place], {})
        listed = listed + inside
        if not inside:
            left_out = f" (left out: {inside.summary})" if inside.summary else ""
            raise ValueError(f"{printable(place)}: no audio file in this folder{left_out}.")
        found += [path.resolve() for path in inside]
    if listed.summary:
        log.warning("left out: %s", listed.summary)
    return found


def _version(path: pathlib.Path) -> str:
    about = path.stat()
    return f"{path}|{about.st_size}|{about.st_mtime_ns}"


def _row(row: Any, where: str) -> tuple[str, float, float]:
    kinds = (str, (int, float), (int, float))
    if not (isinstance(row, list) and len(row) == 3 and all(map(isinstance, row, kinds))):
        raise opened.error(where, opened.short(row), "[file, first second, last second]")
    return row[0], row[1], row[2]


def _vectors(path: pathlib.Path, rows: int) -> Any:
    """Return Faiss's index of a file, seen to be one that `build` wrote."""
    faiss = _faiss()
    wanted = "the flat inner-product index that `ssl-audio search index` writes"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; make it: ssl-audio search index")
    with opened.reading(path, wanted, RuntimeError):
        found = faiss.read_index(str(path))
    if not isinstance(found, faiss.IndexFlat) or found.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise opened.error(path, f"an index of the kind {type(found).__name__}", wanted)
    if found.ntotal != rows:
        raise opened.error(path, f"{found.ntotal} vectors", f"one for each of the {rows} in {ROWS}")
    return found


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise RuntimeError("searching takes Faiss: pip install 'ssl_audio[search]'") from None
    return faiss
