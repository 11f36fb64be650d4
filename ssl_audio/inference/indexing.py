"""Make an index of sounds, add to it, take files out: on one machine, or in parts on several.

Called by `search.py`. Only what is new or changed is embedded; a killed run goes on where it was.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio.data.decode import DecodeError, decode, printable
from ssl_audio.data.listing import AudioFiles
from ssl_audio.inference import approximate
from ssl_audio.inference import index as indexes
from ssl_audio.inference.index import Index, Rows
from ssl_audio.inference.inputs import inside_of
from ssl_audio.inference.segments import Segments, of
from ssl_audio.storage import atomic, division, lock
from ssl_audio.storage.division import Division, Part
from ssl_audio.storage.partial_results import Parts
from ssl_audio.storage.remote import place

PARTS = "divided"  # the folder of what each machine has found
WAITING = "parts"  # of what was embedded and is in no index yet
HINT = "Wait for its end, then try again."

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is to be indexed, with what, and the index of before."""

    root: Any  # a folder or an address
    segments: Segments
    about: Mapping[str, Any]  # for the new index
    files: Mapping[str, pathlib.Path]  # version → path
    places: Sequence[pathlib.Path]  # as asked
    before: Index | None

    def parts(self, folder: Any) -> Parts:
        """Return what a folder keeps of embedded files."""
        old = self.before is not None and not self.before.digest
        settings = {"checkpoint": self.about["checkpoint"], **self.about["settings"]}
        return Parts(folder, settings if old else {**settings, "digest": self.about["digest"]})

    @property
    def current(self) -> bool:
        """Whether the index is still the one of before."""
        now = _before(self.root)
        return (now and now.token) == (self.before and self.before.token)

    @property
    def known(self) -> set[str]:
        """The versions of files that the index of before has."""
        return set(self.before.rows.versions) if self.before else set()


def build(
    model: Any,
    checkpoint: str,
    folder: str | os.PathLike,
    places: Iterable[str],
    *,
    pool: str | None = None,
    layer: int | None = None,
    window: float | None = None,
) -> Index:
    """Embed all audio files that are not in the index yet, and write the index.

    Files that are gone from these places, and older versions of files, leave it; those of other places
    stay. A killed run goes on where it was. `build_part` and `join` do the same on several machines.

    Args:
      model: that `load` returned.
      checkpoint: its path.
      folder: the index's; made if it is not there.
      places: folders and files of sound.
      pool: with `layer` and `window` as in `segments.of`; default: those of the index.
      layer: see there.
      window: s.

    Raises:
      ValueError: a place does not exist or holds no audio; the index is of another model, or of another
        pool, layer or window; another process is at work on it.
    """
    begin = functools.partial(
        _begin, model, checkpoint, folder, list(places), pool=pool, layer=layer, window=window
    )
    job = begin()
    with lock.on(job.root, hint=HINT):
        job = job if job.current else begin()
        parts, known = job.parts(job.root / WAITING), job.known
        _embed(job, [version for version in job.files if version not in known], parts)
        return _write(job, parts)


def build_part(
    model: Any,
    checkpoint: str,
    folder: str | os.PathLike,
    places: Iterable[str],
    part: Part,
    *,
    pool: str | None = None,
    layer: int | None = None,
    window: float | None = None,
) -> tuple[int, int] | None:
    """Embed the files of a part that are not in the index yet; return how many, and how many were skipped.

    None: the part was done before.

    Raises:
      ValueError: see `build`; another process is at work on the part, or other parts are of other files.
    """
    job = _begin(model, checkpoint, folder, places, pool=pool, layer=layer, window=window)
    work = _division(job, part.of)
    known = job.known | job.parts(job.root / WAITING).finished
    with work.work(part) as check:
        if check is None:
            return None
        parts = job.parts(work.at(part))
        versions = list(job.files)
        share = [versions[i] for i in part.share(len(versions)) if versions[i] not in known]
        _embed(job, share, parts, check)
        found = len(parts.finished.intersection(share))
        check()
        work.finish(part, {"files": found})
    return found, len(share) - found


def join(
    model: Any,
    checkpoint: str,
    folder: str | os.PathLike,
    places: Iterable[str],
    *,
    pool: str | None = None,
    layer: int | None = None,
    window: float | None = None,
) -> Index:
    """Write the index of what all parts have found; may be repeated.

    Raises:
      ValueError: parts are missing, or of other files.
    """
    begin = functools.partial(
        _begin, model, checkpoint, folder, list(places), pool=pool, layer=layer, window=window
    )
    job = begin()
    if not (job.root / PARTS / division.NAME).is_file() and job.before:
        return job.before
    work = _division(job, None)
    with lock.on(job.root, hint=HINT):
        job = job if job.current else begin()
        if not work.merged:
            parts = job.parts(job.root / WAITING)
            before = parts.finished
            for part, record in zip(work.parts, work.records(), strict=True):
                some = job.parts(work.at(part))
                if len(some.finished) < record["files"]:
                    raise ValueError(
                        f"{work.at(part)}: {len(some.finished)} files, but part {part} had "
                        f"{record['files']}: remove this folder and do the part again."
                    )
                for version in some.finished - before:
                    for piece in some.frames(version):
                        parts.add_frames(version, piece)
                    parts.finish(version, some.vector(version))
            parts.write()
            _write(job, parts)
        work.remove()
    return Index(job.root)


def remove(
    folder: str | os.PathLike, places: Iterable[str], gone: bool = False
) -> tuple[Index, int]:
    """Take files out of an index; return it, and how many left.

    Args:
      folder: the index's.
      places: files, or folders: all that is below them. They need not exist any more.
      gone: also those that do not exist any more.

    Raises:
      ValueError: no index, a place of which it has nothing, nothing would be left; another process is at
        work on it.
    """
    root = place(folder)
    Index(root)  # an error before a lock is made
    with lock.on(root, hint=HINT):
        before = Index(root)
        paths = [pathlib.Path(path) for path in before.rows.paths]
        leave = {i for i, path in enumerate(paths) if gone and not path.exists()}
        for some in places:
            wanted = {pathlib.Path(some).resolve(), pathlib.Path(some).absolute()}
            below = {
                i for i, path in enumerate(paths) if wanted.intersection((path, *path.parents))
            }
            if not below:
                raise ValueError(
                    f"{folder}: got {some}, wanted a file or folder of the index; it has {len(paths)} files, "
                    f"as {printable(str(paths[0]))}."
                )
            leave |= below
        if not leave:
            return before, 0
        stay = [i for i in range(len(paths)) if i not in leave]
        if not stay:
            raise ValueError(f"{folder}: nothing would be left; remove the folder itself.")
        names = ("checkpoint", "digest", "words", "settings")
        about = {name: getattr(before, name) for name in names}
        found = _written(root, about, _kept(before, stay), before)
        return found, len(leave)


def _begin(
    model: Any,
    checkpoint: str,
    folder: str | os.PathLike,
    places: Iterable[str],
    **asked: Any,
) -> _Job:
    from ssl_audio.inference.resumable import digest

    approximate.library()
    root, places = place(folder), list(places)
    atomic.check_folder(root)
    before = _before(root)
    if before:
        for name, value in asked.items():
            had = before.settings.get(name)
            if value not in (None, had):
                raise ValueError(
                    f"{root}: got {name} {value}, wanted {had}, with which this index was made: leave it "
                    "out, or make another index."
                )
        asked |= before.settings
    segments, model_digest = of(model, **asked), digest(model)
    if before and before.digest not in ("", model_digest):
        raise ValueError(
            f"{root}: got another model, {checkpoint}, wanted the one the index was made with "
            f"({before.checkpoint} as it was): vectors of two models cannot be compared. Make another index."
        )
    if before and not before.digest and before.checkpoint != checkpoint:
        raise ValueError(
            f"{root}: got {checkpoint}, wanted {before.checkpoint}, of which this index is: make another "
            "index."
        )
    files = {}
    for path in _files(places):
        try:
            files[indexes.version(path)] = path
        except OSError as error:  # such as a link to nowhere
            log.warning("skipped: %s: %s", printable(path), error.strerror)
    about = {
        "checkpoint": checkpoint,
        "digest": model_digest,
        "words": segments.words,
        "settings": dict(segments.settings),
    }
    resolved = [pathlib.Path(some).resolve() for some in places]
    return _Job(root, segments, about, files, resolved, before)


def _before(root: Any) -> Index | None:
    some = (indexes.NAME, indexes.OLD_ROWS)
    return Index(root) if any((root / name).is_file() for name in some) else None


def _division(job: _Job, of: int | None) -> Division:
    versions = list(job.files)
    listed = hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:16]
    settings = {"checkpoint": job.about["checkpoint"], "files": len(versions), "list": listed}
    return Division(job.root / PARTS, {**settings, **job.about["settings"]}, of)


def _embed(
    job: _Job,
    versions: Iterable[str],
    parts: Parts,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Embed the files that `parts` does not hold yet; `check` raises when the work is another's now."""
    from tqdm import tqdm

    finished = parts.finished
    todo = [version for version in versions if version not in finished]
    read: list[tuple[str, float]] = []  # version and seconds
    rate = job.segments.rate

    def clips() -> Iterator[np.ndarray]:
        for version in tqdm(todo, unit="file", desc="index", dynamic_ncols=True, disable=not todo):
            check()
            try:
                audio = decode(job.files[version], rate)
            except DecodeError as error:
                log.warning("skipped: %s", error)
                continue
            read.append((version, len(audio) / rate))
            yield audio

    for number, starts, vectors in job.segments.spans(clips()):
        version, seconds = read[number]
        if not np.isfinite(vectors).all():
            path = printable(job.files[version])
            log.warning("skipped: %s: its embedding is not finite", path)
            continue
        parts.add_frames(version, vectors)
        parts.finish(version, np.append(starts / rate, seconds).astype(np.float32))
    parts.write()


_Segments = tuple[str, np.ndarray, np.ndarray, Callable[[], Iterable[np.ndarray]]]


def _kept(before: Index, numbers: Iterable[int]) -> Iterator[_Segments]:
    """Yield version, starts, ends and vectors of files of an index."""
    bounds, rows = before.rows.bounds, before.rows
    for number in numbers:
        some = slice(bounds[number], bounds[number + 1])
        vectors = before.vectors[some]
        yield rows.versions[number], rows.start[some], rows.end[some], lambda v=vectors: [v]


def _write(job: _Job, parts: Parts) -> Index:
    before, finished = job.before, parts.finished
    numbers = {version: i for i, version in enumerate(before.rows.versions)} if before else {}
    listed = {str(path) for path in job.files.values()}

    def elsewhere(path: str) -> bool:
        inside = set(job.places).intersection((pathlib.Path(path), *pathlib.Path(path).parents))
        return path not in listed and not inside

    def files() -> Iterator[_Segments]:
        if before:
            paths = before.rows.paths
            yield from _kept(before, [i for i, path in enumerate(paths) if elsewhere(path)])
        for version in job.files:
            if before and version in numbers:
                yield from _kept(before, [numbers[version]])
            elif version in finished:
                times, count = parts.vector(version), parts.length(version)
                starts = np.round(times[:count].astype(np.float64), 6)
                ends = np.round(starts + job.segments.seconds, 6)
                if len(times) > count:  # an earlier version did not keep the clip's length
                    ends = np.minimum(ends, np.round(float(times[-1]), 6))
                yield version, starts, ends, lambda v=version: parts.frames(v)

    found = _written(job.root, job.about, files(), before)
    parts.remove()
    return found


def _written(
    root: Any, about: Mapping[str, Any], files: Iterable[_Segments], before: Index | None
) -> Index:
    """Write an index of files, named by its content."""
    some = list(files)
    if not some:
        raise ValueError("index: no file could be read.")
    counts = [len(starts) for _, starts, _, _ in some]
    versions = [version for version, *_ in some]
    content = json.dumps([about, versions, counts], sort_keys=True)
    token = hashlib.sha256(content.encode()).hexdigest()[:16]
    if before and before.token == token:  # nothing is new
        return before
    rows = Rows(
        versions,
        np.repeat(np.arange(len(some), dtype=np.int32), counts),
        np.concatenate([starts for _, starts, _, _ in some]),
        np.concatenate([ends for _, _, ends, _ in some]),
    )
    width = next(iter(some[0][3]())).shape[1]
    blocks = (block for *_, vectors in some for block in vectors())
    return indexes.write(root, {**about, "token": token}, rows, width, blocks, before)


def _files(places: Iterable[str]) -> list[pathlib.Path]:
    found, listed = [], AudioFiles([], {})
    for path in map(pathlib.Path, places):
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder.")
        inside = inside_of(path)
        listed = listed + inside
        found += [file.resolve() for file in inside]
    if listed.summary:
        log.warning("left out: %s", listed.summary)
    return found
