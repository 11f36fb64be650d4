"""Search a folder of sound by words or by sound.

ssl-audio search index --checkpoint RUN --index DIR FOLDER…   (again: only what is new or changed)
ssl-audio search query --index DIR "rain on a roof"           (--audio FILE: what sounds like it)
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import startup
from ssl_audio.data.decode import DecodeError, decode, printable
from ssl_audio.data.listing import AudioFiles, audio_files
from ssl_audio.storage import atomic, division, hub, opened
from ssl_audio.storage.division import Division, Part
from ssl_audio.storage.partial_results import Parts
from ssl_audio.storage.remote import Remote, place

if TYPE_CHECKING:
    from ssl_audio.inference.audio_text import AudioTextModel

VECTORS, ROWS = "vectors.faiss", "rows.json"
PARTS = "divided"  # the folder of what each machine has found

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Hit:
    """A segment of a file and its cosine similarity."""

    path: str
    start: float  # s
    end: float  # s
    score: float


class Index:
    """The vectors of segments of many files, in a folder or at an address that `build` wrote.

    The search is exact (a flat inner-product index of Faiss): about 0.1 ms for a thousand stretches.

    Raises:
      ValueError: nothing has been indexed there.
      RuntimeError: Faiss is not installed.
    """

    def __init__(self, folder: str | os.PathLike | Remote):
        self._folder = place(folder)
        if not (self._folder / ROWS).is_file():
            raise ValueError(f"{folder}: no index there; make one: ssl-audio search index")
        path = self._folder / ROWS
        found = opened.json_file(path, "the rows that `ssl-audio search index` writes")
        self.checkpoint: str = opened.member(found, "checkpoint", str, path)
        self._rows = [
            _row(row, f"{path}: rows[{i}]")
            for i, row in enumerate(opened.member(found, "rows", list, path))
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
    goes on where it was. `build_part` and `join` do the same on several machines.

    Raises:
      ValueError: a place does not exist or holds no audio; the index is of another checkpoint.
    """
    root, files = _begin(folder, places)
    parts = Parts(root / "parts", {"checkpoint": checkpoint})
    _embed(model, files, parts)
    return _write(model, checkpoint, root, files, parts)


def build_part(
    model: AudioTextModel,
    checkpoint: str,
    folder: str | os.PathLike,
    places: Iterable[str],
    part: Part,
) -> tuple[int, int] | None:
    """Embed the files of a part that are not in the index yet; return how many, and how many were skipped.

    None: the part was done before.

    Raises:
      ValueError: see `build`; another process is at work on the part, or other parts are of other files.
    """
    root, files = _begin(folder, places)
    work = _division(root, checkpoint, files, part.of)
    known = Parts(root / "parts", {"checkpoint": checkpoint}).finished
    with work.work(part) as check:
        if check is None:
            return None
        parts = Parts(work.at(part), {"checkpoint": checkpoint})
        versions = list(files)
        share = [versions[i] for i in part.share(len(files)) if versions[i] not in known]
        _embed(model, {version: files[version] for version in share}, parts, check)
        found = len(parts.finished.intersection(share))
        check()
        work.finish(part, {"files": found})
    return found, len(share) - found


def join(
    model: AudioTextModel, checkpoint: str, folder: str | os.PathLike, places: Iterable[str]
) -> Index:
    """Write the index of what all parts have found; may be repeated.

    Raises:
      ValueError: parts are missing, or of other files.
    """
    root, files = _begin(folder, places)
    if not (root / PARTS / division.NAME).is_file() and (root / ROWS).is_file():
        return Index(root)
    work = _division(root, checkpoint, files, None)
    if work.merged:
        work.remove()
        return Index(root)
    parts = Parts(root / "parts", {"checkpoint": checkpoint})
    before = parts.finished
    for part, record in zip(work.parts, work.records(), strict=True):
        some = Parts(work.at(part), {"checkpoint": checkpoint})
        if len(some.finished) < record["files"]:
            raise ValueError(
                f"{work.at(part)}: {len(some.finished)} files, but part {part} had {record['files']}: "
                "remove this folder and do the part again."
            )
        for version in some.finished - before:
            for piece in some.frames(version):
                parts.add_frames(version, piece)
            parts.finish(version, some.vector(version))
    parts.write()
    index = _write(model, checkpoint, root, files, parts)
    work.remove()
    return index


def _begin(
    folder: str | os.PathLike, places: Iterable[str]
) -> tuple[pathlib.Path | Remote, dict[str, pathlib.Path]]:
    """Return the index's folder, and the path of each version of a file."""
    _faiss()
    root = place(folder)
    atomic.check_folder(root)
    files = {}
    for path in _files(places):
        try:
            files[_version(path)] = path
        except OSError as error:  # such as a link to nowhere
            log.warning("skipped: %s: %s", printable(path), error.strerror)
    return root, files


def _division(root: Any, checkpoint: str, files: Iterable[str], of: int | None) -> Division:
    versions = list(files)
    listed = hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:16]
    settings = {"checkpoint": checkpoint, "files": len(versions), "list": listed}
    return Division(root / PARTS, settings, of)


def _embed(
    model: AudioTextModel,
    files: Mapping[str, pathlib.Path],
    parts: Parts,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Embed the files that `parts` does not hold yet; `check` raises when the work is another's now."""
    from tqdm import tqdm

    todo = [version for version in files if version not in parts.finished]
    read: list[str] = []

    def clips() -> Iterator[np.ndarray]:
        for version in tqdm(todo, unit="file", desc="index", dynamic_ncols=True, disable=not todo):
            check()
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


def _write(
    model: AudioTextModel,
    checkpoint: str,
    root: pathlib.Path | Remote,
    files: Mapping[str, pathlib.Path],
    parts: Parts,
) -> Index:
    faiss, finished = _faiss(), parts.finished
    known = [version for version in files if version in finished]
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
    atomic.write(root / VECTORS, faiss.serialize_index(index).tobytes())
    atomic.write(root / ROWS, json.dumps({"checkpoint": checkpoint, "rows": rows}))
    return Index(root)


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
    division.add_options(make)
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
        division.check(parser(), args)
        return run(args)
    index = Index(args.index)
    model = _load(index.checkpoint, args.trust)
    if args.audio:
        vector = model.embed_audio(decode(args.audio, model.rate), model.rate)
    else:
        vector = model.embed_text(args.text)
    hits = index.query(vector, args.top)
    print(table(hits))
    return hits


def run(args: argparse.Namespace) -> Any:
    """Make an index as the command line asks, or the part of it that `args.part` names."""
    if args.engine:
        return division.spread(__name__, args, place(args.index) / PARTS, gpu=True)
    path = hub.absolute(args.checkpoint)
    model = _load(path, args.trust)
    if args.part:
        found = build_part(model, path, args.index, args.places, args.part)
        said = "{} files embedded, {} skipped".format(*found) if found else "done before"
        print(f"part {args.part}: {said}")
        return None
    make = join if args.merge else build
    index = make(model, path, args.index, args.places)
    print(f"{args.index}: {len(index)} stretches")
    return index


def _load(path: str, trust: Sequence[str]) -> AudioTextModel:
    from ssl_audio.inference.load import load

    model = load(path, trust=trust)
    model.check_offers("embed_audio", "embed_text")
    return model


def _files(places: Iterable[str]) -> list[pathlib.Path]:
    found, listed = [], AudioFiles([], {})
    for path in map(pathlib.Path, places):
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder.")
        inside = audio_files(path) if path.is_dir() else AudioFiles([path], {})
        listed = listed + inside
        if not inside:
            left_out = f" (left out: {inside.summary})" if inside.summary else ""
            raise ValueError(f"{printable(path)}: no audio file in this folder{left_out}.")
        found += [file.resolve() for file in inside]
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


def _vectors(path: pathlib.Path | Remote, rows: int) -> Any:
    """Return Faiss's index of a file, seen to be one that `build` wrote."""
    faiss = _faiss()
    wanted = "the flat inner-product index that `ssl-audio search index` writes"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; make it: ssl-audio search index")
    with opened.reading(path, wanted, RuntimeError):
        if isinstance(path, Remote):
            found = faiss.deserialize_index(np.frombuffer(path.read_bytes(), np.uint8))
        else:
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
