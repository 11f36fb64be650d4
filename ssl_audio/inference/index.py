"""An index of sounds: unit vectors of segments of files, and the search of them; `search.py` makes it.

A folder or an address. `index.json` names the files of the rest, which are never changed: whoever reads
while another writes has the index of before or of after. What an earlier version wrote opens, too.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_audio.inference import approximate
from ssl_audio.storage import atomic, opened
from ssl_audio.storage.remote import Remote, place

NAME = "index.json"
OLD_VECTORS, OLD_ROWS = "vectors.faiss", "rows.json"
FORMAT = 2
TRIES = 5  # of opening, while others write
KEPT = ("vectors-*.npy", "rows-*.npz", "approximate-*.faiss", OLD_VECTORS, OLD_ROWS)


@dataclasses.dataclass(frozen=True)
class Hit:
    """A segment of a file and its cosine similarity."""

    path: str
    start: float  # s
    end: float  # s
    score: float
    row: int = -1  # in `Index.vectors` and `Index.rows`


class Row(NamedTuple):
    """A segment of a file."""

    path: str
    start: float  # s
    end: float  # s


@dataclasses.dataclass(frozen=True, eq=False)
class Rows(Sequence[Row]):
    """The segments of an index, those of a file one after the other.

    Attributes:
      versions: of each file its path, size and time, as text; see `version`.
      file: of each segment which of them, ascending [N].
      start: s [N].
      end: s [N].
    """

    versions: Sequence[str]
    file: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.file)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        path = path_of(self.versions[int(self.file[i])])
        return Row(path, float(self.start[i]), float(self.end[i]))

    @property
    def paths(self) -> list[str]:
        """The files."""
        return [path_of(version) for version in self.versions]

    @property
    def bounds(self) -> np.ndarray:
        """The first segment of each file, and their number [files + 1]."""
        return np.searchsorted(self.file, np.arange(len(self.versions) + 1))


class Index:
    """The vectors of segments of many files, in a folder or at an address that `search.build` wrote.

    Attributes:
      checkpoint: the model's path, as it was given.
      digest: of the model's config and parameters; "": not known (an index of an earlier version).
      words: whether texts have vectors of the same space.
      settings: pool, layer and window of `segments.of`.
      rows: a `Row` (path, start, end) per segment.
      vectors: unit vectors [N, D], float32, read from disk as they are needed.
      approximate: what is known of the approximate index, see `approximate.make`; None: there is none, and
        every search is exact.

    Raises:
      ValueError: nothing has been indexed there; files are missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike | Remote):
        self.folder = place(folder)
        if not (self.folder / NAME).is_file():
            return self._open_old()
        for left in reversed(range(TRIES)):
            about = opened.json_file(self.folder / NAME, "what `ssl-audio search index` writes")
            try:
                return self._open(about)
            except FileNotFoundError as error:  # another process has just replaced it
                if not left:
                    raise FileNotFoundError(
                        f"{error.filename or error}: no such file, which {self.folder / NAME} names: copy "
                        "the index again, or remove its folder and make it anew."
                    ) from None

    def __len__(self) -> int:
        return len(self.rows)

    def query(self, vector: np.ndarray, top: int = 10, *, exact: bool = False) -> list[Hit]:
        """Return the most similar files to a unit vector [D], best first, each with its best segment.

        Scores are always exact; which are found is so with `exact`, or without an approximate index.

        Raises:
          ValueError: the vector is of another length.
          RuntimeError: Faiss is not installed.
        """
        # A file has several segments; more are asked for until enough files have come.
        wanted = min(len(self), 4 * top)
        while True:
            found: dict[int, Hit] = {}  # anew: with more candidates others may be better
            numbers, scores = self.nearest(vector, wanted, exact=exact)
            for number, score in zip(numbers.tolist(), scores.tolist(), strict=True):
                file = int(self.rows.file[number])
                if file not in found:
                    path, start, end = self.rows[number]
                    found[file] = Hit(path, start, end, score, number)
            if len(found) >= top or wanted == len(self):
                return list(found.values())[:top]
            wanted = min(len(self), 4 * wanted)

    def nearest(
        self, vector: np.ndarray, count: int, *, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the most similar segments to a unit vector [D], best first, and their scores.

        Raises:
          ValueError, RuntimeError: as `query`.
        """
        vector = np.asarray(vector, np.float32)
        if vector.shape != self.vectors.shape[1:]:
            raise opened.error(
                self.folder / self._vectors_name,
                f"vectors of {self.vectors.shape[1]} numbers",
                f"the {vector.shape[-1]} of the model {self.checkpoint}",
            )
        if self.approximate and not exact and count <= approximate.RESULTS:
            rows = approximate.candidates(self._lists, self.approximate, vector, count)
            if len(rows) >= count:
                scores = self.vectors[rows] @ vector
                best = np.argsort(-scores, kind="stable")[:count]
                return rows[best], scores[best]
        faiss = approximate.library()
        metric = faiss.METRIC_INNER_PRODUCT
        scores, numbers = faiss.knn(vector[None], self.vectors, min(count, len(self)), metric)
        return numbers[0], scores[0]

    def _open(self, about: Mapping[str, Any]) -> None:
        path = self.folder / NAME
        if about.get("format") != FORMAT:
            got = f"format {opened.short(about.get('format'))}"
            raise opened.error(path, got, f"format {FORMAT}", "Index again, or update ssl_audio.")
        self.checkpoint = opened.member(about, "checkpoint", str, path)
        self.digest = opened.member(about, "digest", str, path)
        self.words = opened.member(about, "words", bool, path)
        self.settings = opened.member(about, "settings", dict, path)
        self.token = opened.member(about, "token", str, path)
        opened.inside(self.folder, self.token, f"{path}: token")
        count, width = (opened.member(about, key, int, path) for key in ("rows", "width"))
        self.approximate: Any = about.get("approximate")
        if self.approximate is not None:
            wanted = f"{path}: approximate"
            opened.member(about, "approximate", dict, path)
            opened.member(self.approximate, "probes", int, wanted)
            self._lists = _lists(self.folder / f"approximate-{self.token}.faiss", count, width)
        self._vectors_name = f"vectors-{self.token}.npy"
        self.rows = _rows(self.folder / f"rows-{self.token}.npz", count)
        self.vectors = _vectors(self.folder / self._vectors_name, (count, width))

    def _open_old(self) -> None:
        path = self.folder / OLD_ROWS
        if not path.is_file():
            raise ValueError(
                f"{self.folder}: no index there; make one: ssl-audio search index --checkpoint RUN "
                f"--index {self.folder} FOLDER"
            )
        found = opened.json_file(path, "the rows that `ssl-audio search index` writes")
        self.checkpoint = opened.member(found, "checkpoint", str, path)
        self.digest, self.words, self.token, self.settings = "", True, "", {}
        self.approximate: Any = None
        rows = [
            _row(row, f"{path}: rows[{i}]")
            for i, row in enumerate(opened.member(found, "rows", list, path))
        ]
        files: dict[str, int] = {}
        file = [files.setdefault(row.path, len(files)) for row in rows]
        starts, ends = ([getattr(row, name) for row in rows] for name in ("start", "end"))
        versions = [f"{path}|?|?" for path in files]
        self.rows = Rows(versions, np.array(file, np.int32), np.array(starts), np.array(ends))
        self._vectors_name = OLD_VECTORS
        self.vectors = _old_vectors(self.folder / OLD_VECTORS, len(rows))


def version(path: pathlib.Path) -> str:
    """Return a file's path, size and time as text.

    Raises:
      OSError: as `stat`.
    """
    about = path.stat()
    return f"{path}|{about.st_size}|{about.st_mtime_ns}"


def path_of(version: str) -> str:
    """Return the path of a version."""
    return version.rsplit("|", 2)[0]


def write(
    folder: pathlib.Path | Remote,
    about: Mapping[str, Any],
    rows: Rows,
    width: int,
    vectors: Iterable[np.ndarray],
    before: Index | None = None,
) -> Index:
    """Write an index; what was there stays whole for those who read it.

    More vectors than `approximate.ABOVE` get an approximate index, too.

    Args:
      folder: to write into.
      about: checkpoint, digest, words, settings, and the token that names this content.
      rows: a segment for each vector.
      width: D.
      vectors: blocks [n, D], in the order of `rows`.
      before: the index that was there, whose lists may be taken over.
    """
    token = about["token"]
    with atomic.file(folder / f"vectors-{token}.npy") as file:
        shape = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), width)}
        np.lib.format.write_array_header_1_0(file, shape)
        for block in vectors:
            file.write(np.ascontiguousarray(block, "<f4").data.cast("B"))
    with atomic.file(folder / f"rows-{token}.npz") as file:
        names = np.frombuffer(json.dumps(list(rows.versions)).encode(), np.uint8)
        np.savez(file, versions=names, of=rows.file, start=rows.start, end=rows.end)
    text = {"format": FORMAT, **about, "rows": len(rows), "width": width}
    if len(rows) > approximate.ABOVE:
        found = _vectors(folder / f"vectors-{token}.npy", (len(rows), width))
        lists = before._lists if before and before.approximate else None
        made, text["approximate"] = approximate.make(found, lists)
        with atomic.path(folder / f"approximate-{token}.faiss") as partial:
            approximate.library().write_index(made, str(partial))
    atomic.write(folder / NAME, json.dumps(text, indent=1))
    for path in (path for pattern in KEPT for path in list(folder.glob(pattern))):
        if token not in path.name:
            path.unlink(missing_ok=True)
    return Index(folder)


def _vectors(path: pathlib.Path | Remote, shape: tuple[int, int]) -> np.ndarray:
    with opened.reading(path, "the vectors that `ssl-audio search index` writes"):
        if isinstance(path, Remote):
            found = np.load(io.BytesIO(path.read_bytes()))
        else:
            found = np.load(path, mmap_mode="r")
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError(f"{found.dtype} {found.shape}, but {NAME} says float32 {shape}")
    return found


def _lists(path: pathlib.Path | Remote, count: int, width: int) -> Any:
    faiss = approximate.library()
    wanted = "the approximate index that `ssl-audio search index` writes"
    with opened.reading(path, wanted, RuntimeError):
        content = np.frombuffer(path.read_bytes(), np.uint8)
        found = faiss.deserialize_index(content)
        if not isinstance(found, faiss.IndexIVF) or (found.ntotal, found.d) != (count, width):
            raise ValueError(f"{found.ntotal} vectors of {found.d}, not {count} of {width}")
    return found


def _rows(path: pathlib.Path | Remote, count: int) -> Rows:
    wanted = "the rows that `ssl-audio search index` writes"
    with opened.reading(path, wanted), np.load(io.BytesIO(path.read_bytes())) as found:
        names = json.loads(found["versions"].tobytes())
        rows = Rows(names, *(found[name] for name in ("of", "start", "end")))
        sizes = {len(rows.file), len(rows.start), len(rows.end), count}
        ends = rows.file[:1].tolist() + rows.file[-1:].tolist()
        if len(sizes) > 1 or (np.diff(rows.file) < 0).any() or not _within(ends, len(names)):
            raise ValueError(f"rows of {sorted(sizes)} segments and {len(names)} files")
    return rows


def _within(numbers: Sequence[int], count: int) -> bool:
    return all(0 <= number < count for number in numbers)


def _row(row: Any, where: str) -> Row:
    kinds = (str, (int, float), (int, float))
    if not (isinstance(row, list) and len(row) == 3 and all(map(isinstance, row, kinds))):
        raise opened.error(where, opened.short(row), "[file, first second, last second]")
    return Row(*row)


def _old_vectors(path: pathlib.Path | Remote, rows: int) -> np.ndarray:
    """Return the vectors of a file of Faiss, seen to be one that an earlier version wrote."""
    faiss = approximate.library()
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
        raise opened.error(
            path, f"{found.ntotal} vectors", f"one for each of the {rows} in {OLD_ROWS}"
        )
    flat = faiss.rev_swig_ptr(found.get_xb(), rows * found.d) if rows else np.zeros(0, np.float32)
    return np.array(flat, np.float32).reshape(rows, found.d)


def blocks(index: Index, numbers: Iterable[int]) -> Iterator[np.ndarray]:
    """Yield the vectors [n, D] of files of an index, by their numbers."""
    bounds = index.rows.bounds
    for number in numbers:
        yield index.vectors[bounds[number] : bounds[number + 1]]
