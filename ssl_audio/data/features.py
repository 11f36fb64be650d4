"""Features computed before, as an entry of a batch: rows of `.npy` files, or lists of numbers of a table.

For frozen encoders whose passes are dear: frames of a video, sentences, another model's embeddings.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.beside_files import chosen
from ssl_audio.data.containers import DecodeError
from ssl_audio.data.entries import Arrays, Entry, Shape
from ssl_audio.data.source import Example


@dataclass(frozen=True)
class Features(Entry):
    """`ARRAY` float32 [width], or with `frames` [frames, width] and `ARRAY_length` int32.

    A column of the source's table has `FILE.npy` with an array [width] or [rows, width], or `FILE.npy#12`
    for one of its rows; several files separated by ";"; or, as Parquet and JSON have it, the numbers.

    Attributes:
      width: values of a vector.
      frames: 0: one vector, drawn from the rows; else so many rows, from the first on, the rest zeros.
      array: name of the array in the batch.
      column: of the table; "": `array`.
      root: what files are relative to; "": the folder of the source.
      pick: which of several files or rows: "random" or "middle".
    """

    width: int
    frames: int = 0
    array: str = "features"
    column: str = ""
    root: str = ""
    pick: str = "random"

    def __post_init__(self):
        if self.width < 1 or self.frames < 0:
            raise ValueError(
                f"width, frames: wanted at least 1 and 0, got {self.width}, {self.frames}"
            )
        if self.pick not in ("random", "middle"):
            raise ValueError(f"pick: got {self.pick!r}, wanted 'random' or 'middle'")

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        single = np.dtype(np.float32)
        if not self.frames:
            return {self.array: ((self.width,), single)}
        return {
            self.array: ((self.frames, self.width), single),
            f"{self.array}_length": ((), np.dtype(np.int32)),
        }

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        column = self.column or self.array
        rows = self._rows(_given(example, column), column)
        if rows is None:
            rows = self._rows(read(chosen(example, column, self.root, self.pick, rng)), column)
        assert rows is not None
        if not self.frames:
            number = int(rng.integers(len(rows))) if self.pick == "random" else len(rows) // 2
            return {self.array: self._finite(np.array(rows[number], np.float32), example)}
        found = np.zeros((self.frames, self.width), np.float32)
        count = min(self.frames, len(rows))
        found[:count] = self._finite(np.array(rows[:count], np.float32), example)
        return {self.array: found, f"{self.array}_length": np.int32(count)}

    def _finite(self, found: np.ndarray, example: Example) -> np.ndarray:
        """Return features as they are.

        Raises:
          DecodeError: NaN or infinite values among them, which would spoil a whole run.
        """
        if not np.isfinite(found).all():
            column = self.column or self.array
            raise DecodeError(
                f"clip {example.get('id')}: column '{column}': NaN or infinite values"
            )
        return found

    def _rows(self, found: Any, column: str) -> np.ndarray | None:
        """Return features as [rows, width]; None: there is a file to be read.

        Raises:
          DecodeError: they have another shape.
        """
        if found is None:
            return None
        rows = found[None] if found.ndim == 1 else found
        if rows.ndim != 2 or rows.shape[1] != self.width or not len(rows):
            raise DecodeError(
                f"column '{column}': features {found.shape}; wanted [{self.width}] or [rows, {self.width}]"
            )
        return rows


def _given(example: Example, column: str) -> np.ndarray | None:
    """Return numbers that stand in the example or its table; None: there is the name of a file."""
    found = example.get(column)
    found = (example.get("columns") or {}).get(column) if found is None else found
    if isinstance(found, np.ndarray):
        return found
    if isinstance(found, (list, tuple)) and found and not isinstance(found[0], str):
        return np.asarray(found, np.float32)
    return None


def read(place: str) -> np.ndarray:
    """Return the array of `FILE.npy`, or its row `FILE.npy#12`.

    Raises:
      DecodeError: there is no such file or row, or it holds no numbers.
    """
    path, _, row = place.partition("#")
    array = _mapped(path)
    if not row:
        return array
    if not row.isdecimal() or array.ndim < 2 or int(row) >= len(array):
        raise DecodeError(f"{place}: no such row; the file has {array.shape}")
    return array[int(row)]


@functools.lru_cache(64)
def _mapped(path: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DecodeError(f"{path}: no array that can be read ({error}); wanted .npy") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise DecodeError(f"{path}: wanted one array of numbers (.npy)")
    return array
