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
from typing import Any, NamedTuple

import numpy as np

from ssl_audio.data.decode import decode, printable
from ssl_audio.storage import opened, written

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
    """

    place: pathlib.Path
    rows: Sequence[Row]
    vectors: np.ndarray
    checkpoint: str | None = None
    trust: tuple[str, ...] = ()

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
        scores = self.vectors @ np.asarray(vector, np.float32)
        return [(i, float(scores[i])) for i in best(scores, top)]

    @functools.cached_property
    def model(self) -> Any:
        """The model that made the vectors.

        Raises:
          ValueError: it is not known, cannot be opened, or has vectors of another size.
        """
        if self.checkpoint is None:
            raise ValueError(
                f"{self.place.name} does not say which model made it: start with --checkpoint RUN "
                "to search by words or by a file."
            )
        from ssl_audio.inference.load import load

        return load(self.checkpoint, trust=self.trust)

    @property
    def takes_words(self) -> bool:
        """Whether the model has a text tower; opens it."""
        with self._lock:  # type: ignore[attr-defined]
            return "embed_text" in self.model.offers

    def of_words(self, text: str) -> np.ndarray:
        """Return the unit vector [D] of a text.

        Raises:
          ValueError: the model knows no words.
        """
        with self._lock:  # type: ignore[attr-defined]
            model = self.model
            if "embed_text" not in model.offers:
                raise ValueError(
                    "The model of this index knows sound alone, no words: a search by words takes an index "
                    "of an audio-text model such as CLAP. Drop a sound here, or use More like this."
                )
            return self._checked(model.embed_text(text))

    def of_sound(self, content: bytes) -> np.ndarray:
        """Return the unit vector [D] of a file's content.

        Raises:
          ValueError: it cannot be decoded.
        """
        with self._lock:  # type: ignore[attr-defined]
            model = self.model
            joint = "embed_audio" in model.offers
            encoder = model if joint else model.encoder
            audio = decode(content, encoder.rate)
            embed = encoder.embed_audio if joint else encoder.embed
            return self._checked(embed(audio, encoder.rate))

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
    path = pathlib.Path(place).expanduser().absolute()
    if path.suffix in TABLES and path.is_file():
        rows, vectors = _table(path)
    elif path.is_dir():
        path, checkpoint, rows, vectors = _index(path, checkpoint)
    else:
        there = "neither an index nor a table .parquet or .npz" if path.exists() else "nothing there"
        raise ValueError(
            f"{place}: {there}. Make an index: ssl-audio search index --checkpoint RUN --index DIR FOLDER"
        )
    if not rows:
        raise ValueError(f"{place}: it has no rows.")
    vectors = unit(vectors)
    if not np.isfinite(vectors).all():
        bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise opened.error(place, f"a vector that is not finite (row {bad})", "finite numbers")
    return Collection(path, rows, vectors, checkpoint, tuple(trust))


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


def _index(
    path: pathlib.Path, checkpoint: str | None
) -> tuple[pathlib.Path, str, list[Row], np.ndarray]:
    from ssl_audio.inference import search

    if not (path / search.ROWS).is_file() and written.is_run(path):
        if not (path / "index" / search.ROWS).is_file():
            raise ValueError(
                f"{path}: a run, and no index in it yet. Make one of the sounds that you want to see: "
                f"ssl-audio search index --checkpoint {path} --index {path / 'index'} FOLDER"
            )
        path = path / "index"
    index = search.Index(path)
    vectors = index._vectors.reconstruct_n(0, len(index))
    return path, checkpoint or index.checkpoint, [Row(*row) for row in index._rows], vectors


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
    found: dict[str, Any] = {
        name: table[name].to_pylist() for name in names if name != "embedding"
    }
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
