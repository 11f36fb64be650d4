"""Features computed before, as an entry of a batch: rows of `.npy` files, or lists of numbers of a table.

For frozen encoders whose passes are dear: frames of a video, sentences, another model's embeddings.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssl_audio.data.beside_files import chosen
from ssl_audio.data.containers import DecodeError
from ssl_audio.data.entries import Arrays, Entry, Shape
from ssl_audio.data.source import Example, Over


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

    @property
    def columns(self) -> tuple[str, ...]:  # noqa: D102
        return (self.column or self.array,)

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
        found = _given(example, column)
        if found is None:
            found = read(chosen(example, column, self.root, self.pick, rng))
        what = f"clip {example.get('id')}: column '{column}'"
        return self.prepared(found, rng if self.pick == "random" else None, what)

    def prepared(
        self, found: np.ndarray, rng: np.random.Generator | None = None, what: str = "features"
    ) -> Arrays:
        """Return features [width] or [rows, width] as the entry gives them.

        Args:
          found: features.
          rng: draws the vector, where there is to be one; None: the middle one.
          what: they are, for errors.

        Raises:
          DecodeError: another shape; NaN or infinite values, which would spoil a whole run.
        """
        rows = self._rows(np.asarray(found), what)
        if not self.frames:
            number = len(rows) // 2 if rng is None else int(rng.integers(len(rows)))
            arrays = {self.array: np.array(rows[number], np.float32)}
        else:
            padded = np.zeros((self.frames, self.width), np.float32)
            count = min(self.frames, len(rows))
            padded[:count] = rows[:count]
            arrays = {self.array: padded, f"{self.array}_length": np.int32(count)}
        if not np.isfinite(arrays[self.array]).all():
            raise DecodeError(f"{what}: NaN or infinite values")
        return arrays

    def _rows(self, found: np.ndarray, what: str) -> np.ndarray:
        rows = found[None] if found.ndim == 1 else found
        if rows.ndim != 2 or rows.shape[1] != self.width or not len(rows):
            raise DecodeError(
                f"{what}: shape {found.shape}; wanted [{self.width}] or [rows, {self.width}]"
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
    path, mark, row = place.rpartition("#")
    if not mark or not path.endswith(".npy"):  # names may have the sign, too: "C#.npy"
        return _mapped(place)
    array = _mapped(path)
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


@dataclass(frozen=True)
class Drawn(Over):
    """Another source, and beside each of its clips synthetic features of its label: tests need no download.

    Attributes:
      source: of the clips.
      array: name of the features in an example.
      frames, width: their shape.
    """

    array: str
    frames: int
    width: int

    def __getitem__(self, i: int) -> Example:
        found = self.source[i]
        label = found.get("label") or 0
        number = label[0] if isinstance(label, tuple) else label
        mean = np.random.default_rng((2, number)).normal(size=self.width)
        noise = np.random.default_rng((3, i)).normal(0, 0.5, (self.frames, self.width))
        return {**found, self.array: (mean + noise).astype(np.float32)}
