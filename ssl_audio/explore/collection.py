"""What the page shows: rows (file, first and last second) and their unit vectors, out of an index or a table.

Also where to keep what belongs to them: map and labels lie in the index's folder, or beside the table.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ssl_audio.data.decode import decode, printable
from ssl_audio.storage import opened, written

if TYPE_CHECKING:
    from ssl_audio.inference.index import Index
    from ssl_audio.inference.segments import Segments

MANY = 200_000  # rows from which on the index itself is asked, which may have a faster way
TABLES = (".parquet", ".npz")
FILES = ("path", "id", "ids")  # columns that may name the files, the first that is there


class Row(NamedTuple):
    """A stretch of a file; no end: all of it."""

    path: str
    start: float = 0.0  # s
    end: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
    """Rows with their vectors.

    Attributes:
      place: the folder of an index, or a table.
      rows: what each vector is of; paths are absolute.
      vectors: [N, D], unit length, float32.
      checkpoint: of the model that made them; None: not known.
      trust: packages whose classes its config may name.
      index: what the rows come from; None: a table.
      asked: the checkpoint that the user names; what an index names is not fetched.
    """

    place: pathlib.Path
    rows: Sequence[Row]
    vectors: np.ndarray
    checkpoint: str | None = None
    trust: tuple[str, ...] = ()
    index: Index | None = None
    asked: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "_lock", threading.Lock())

    def __len__(self) -> int:
        return len(self.rows)

    def beside(self, name: str) -> pathlib.Path:
        """Return where a file that belongs to this collection is kept."""
        if self.place.is_dir():
            return self.place / name
        return self.place.with_name(f"{self.place.stem}.{name}")

    @functools.cached_property
    def numbers(self) -> Mapping[tuple[str, float | None, float | None], int]:
        """The number of each row."""
        return {key(*row): i for i, row in reversed(list(enumerate(self.rows)))}

    def like(self, vector: np.ndarray, top: int) -> list[tuple[int, float]]:
        """Return the rows most similar to a unit vector [D], best first, with their cosine similarity."""
        if self.index is not None and len(self) > MANY:
            numbers, scores = self.index.nearest(vector, min(top, len(self)))
            return list(zip(numbers.tolist(), scores.tolist(), strict=True))
        scores = self.vectors @ np.asarray(vector, np.float32)
        return [(i, float(scores[i])) for i in best(scores, top)]

    @functools.cached_property
    def model(self) -> Segments:
        """What makes vectors to ask with.

        Raises:
          ValueError: the model is not known, is another by now, or cannot be opened.
        """
        from ssl_audio.inference import search, segments
        from ssl_audio.inference.load import load

        if self.checkpoint is None:
            raise ValueError(self.lacks_sound)
        if self.index is not None:
            return search.open_model(self.index, self.trust, self.asked)
        return segments.of(load(self.checkpoint, trust=self.trust), "mean")

    @property
    def lacks_sound(self) -> str:
        """Why files cannot be searched by; "": they can."""
        if self.checkpoint is not None:
            return ""
        return (
            f"{self.place.name} does not say which model made it: --checkpoint RUN names it, to search by a "
            "file. More like this works without."
        )

    @property
    def lacks_words(self) -> str:
        """Why words cannot be searched by; "": they can."""
        if self.index is not None and self.index.words:
            return ""
        return (
            "No search by words: that takes an index of an audio-text model such as CLAP, and this one is of "
            "sound alone. Drop a file here, or use More like this."
        )

    def of_words(self, text: str) -> np.ndarray:
        """Return the unit vector [D] of a text.

        Raises:
          ValueError: the model knows no words.
        """
        if self.lacks_words:
            raise ValueError(self.lacks_words)
        with self._lock:  # type: ignore[attr-defined]
            return self._checked(self.model.text(text))

    def of_sound(self, content: bytes) -> np.ndarray:
        """Return the unit vector [D] of a file's content.

        Raises:
          ValueError: it cannot be decoded.
        """
        if self.lacks_sound:
            raise ValueError(self.lacks_sound)
        with self._lock:  # type: ignore[attr-defined]
            model = self.model
            return self._checked(model.sound(decode(content, model.rate), model.rate))

    def _checked(self, vector: np.ndarray) -> np.ndarray:
        if vector.shape != self.vectors.shape[1:]:
            raise opened.error(
                self.place,
                f"vectors of {self.vectors.shape[1]} numbers",
                f"the {len(vector)} of the model {self.checkpoint}",
            )
        return unit(vector[None])[0]


def read(
    place: str | os.PathLike, checkpoint: str | None = None, trust: Sequence[str] = ()
) -> Collection:
    """Open an index, the index of a run's workdir, or a table that `ssl-audio embed` wrote.

    Args:
      place: its path.
      checkpoint: of the model that made it, where the place does not say.
      trust: see `load`.

    Raises:
      ValueError: it is none of these, damaged, or empty; a run without an index.
    """
    path, index, asked = pathlib.Path(place).expanduser().absolute(), None, checkpoint
    if path.suffix in TABLES and path.is_file():
        rows, vectors = _table(path)
    elif path.is_dir():
        index = _index(path)
        path, checkpoint = index.folder, checkpoint or index.checkpoint
        rows, vectors = [Row(*row) for row in index.rows], index.vectors
    else:
        there = (
            "neither an index nor a table .parquet or .npz" if path.exists() else "nothing there"
        )
        raise ValueError(
            f"{place}: {there}. Make an index: ssl-audio search index --checkpoint RUN --index DIR FOLDER"
        )
    if not rows:
        raise ValueError(f"{place}: it has no rows.")
    vectors = unit(vectors)
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise opened.error(place, f"a vector that is not finite (row {bad})", "finite numbers")
    return Collection(path, rows, vectors, checkpoint, tuple(trust), index, asked)


def best(scores: np.ndarray, top: int) -> list[int]:
    """Return the numbers of the highest scores, in order."""
    top = min(top, len(scores))
    some = np.argpartition(scores, -top)[-top:]
    return some[np.argsort(-scores[some], kind="stable")].tolist()


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [N, D] at unit length; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if np.allclose(lengths, 1, atol=1e-4):
        return np.ascontiguousarray(vectors, np.float32)
    return np.ascontiguousarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)


def key(
    path: str, start: float | None, end: float | None
) -> tuple[str, float | None, float | None]:
    """Return what tells a row from others, also after a table has rounded its times."""
    return path, round(start or 0.0, 3), None if end is None else round(end, 3)


def _index(path: pathlib.Path) -> Index:
    from ssl_audio.inference.index import NAME, OLD_ROWS, Index

    def holds_one(folder: pathlib.Path) -> bool:
        return (folder / NAME).is_file() or (folder / OLD_ROWS).is_file()

    if not holds_one(path) and written.is_run(path):
        if not holds_one(path / "index"):
            raise ValueError(
                f"{path}: a run, and no index in it yet. Make one of the sounds that you want to see: "
                f"ssl-audio search index --checkpoint {path} --index {path / 'index'} FOLDER"
            )
        path = path / "index"
    return Index(path)


def _table(path: pathlib.Path) -> tuple[list[Row], np.ndarray]:
    wanted = "a table that `ssl-audio embed` writes: id, embedding"
    with opened.reading(path, wanted):
        found = _parquet(path) if path.suffix == ".parquet" else _npz(path)
    name = next((name for name in FILES if name in found), None)
    if name is None or "embedding" not in found:
        raise opened.error(path, f"columns {', '.join(found)}", wanted)
    vectors, files = found["embedding"], found[name]
    if vectors.ndim != 2 or len(vectors) != len(files):
        raise opened.error(path, f"embeddings of shape {vectors.shape}", f"[{len(files)}, D]")
    starts, ends = (found.get(column, [None] * len(files)) for column in ("start", "end"))
    rows = [
        Row(os.path.abspath(os.path.expanduser(str(file))), _seconds(a) or 0.0, _seconds(b))
        for file, a, b in zip(files, starts, ends, strict=True)
    ]
    return rows, vectors


def _seconds(value: Any) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def _parquet(path: pathlib.Path) -> dict[str, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise RuntimeError(
            f"{printable(path)} needs pyarrow: pip install 'ssl_audio[parquet]'."
        ) from None
    with opened.reading(path, "a Parquet file", pyarrow.ArrowException):
        names = pyarrow.parquet.read_schema(path).names
        names = [name for name in names if name in (*FILES, "start", "end", "embedding")]
        table = pyarrow.parquet.read_table(path, columns=names)
    found: dict[str, Any] = {name: table[name].to_pylist() for name in names if name != "embedding"}
    if "embedding" in names and len(table):
        values = table["embedding"].combine_chunks()
        flat = values.flatten().to_numpy(zero_copy_only=False)
        found["embedding"] = flat.reshape(len(table), -1).astype(np.float32)
    elif "embedding" in names:
        found["embedding"] = np.zeros((0, 1), np.float32)
    return found


def _npz(path: pathlib.Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files if name in (*FILES, "embedding")}
