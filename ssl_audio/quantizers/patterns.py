"""In which order a language model says the codes of several books (Copet et al. 2023, arXiv:2306.05284).

A pattern is a table: for every column of the sequence and every book, the time of the code that stands
there, or none. Column 0 holds no code. Everything else follows from the table.
"""

import abc
import dataclasses
import functools
from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Bool, Int

NONE = -1


@dataclasses.dataclass(frozen=True)
class Pattern(abc.ABC):
    """The order of the codes of Q books.

    Attributes:
      books: Q.
    """

    books: int

    @abc.abstractmethod
    def columns(self, steps: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the (time, book) of each column after the first; times from `steps` on may occur."""

    def places(self, steps: int, *, trained: bool = False) -> Int[np.ndarray, "L Q"]:
        """Return the time of the code of each column and book, NONE where there is none.

        Args:
          steps: T, of the codes.
          trained: leave the last columns out, which hold the last codes of delayed books only.
        """
        table, beyond = _table(self, steps)
        return table[: len(table) - beyond] if trained else table

    def spread(
        self, codes: Int[Array, "B T Q"], none: int, *, trained: bool = False
    ) -> Int[Array, "B L Q"]:
        """Return codes in the order of the pattern, `none` where there is no code."""
        table = self.places(codes.shape[1], trained=trained)
        found = jnp.take_along_axis(codes, jnp.maximum(table, 0)[None], axis=1)
        return jnp.where(table[None] == NONE, none, found)

    def sources(
        self, steps: int, length: int, *, trained: bool = False, predicted: bool = False
    ) -> Int[np.ndarray, "T Q"]:
        """Return the column of each code, NONE where it is beyond the sequence.

        Args:
          steps: T.
          length: columns of the sequence.
          trained: see `places`.
          predicted: of what a model says at each column, which is the next one's codes.
        """
        found = np.full((steps, self.books), NONE, np.int32)
        table = self.places(steps, trained=trained)[predicted:][:length]
        column, book = np.nonzero(table != NONE)
        found[table[column, book], book] = column
        return found

    def gathered(
        self,
        x: Array,
        steps: int,
        none: int | float,
        *,
        trained: bool = False,
        predicted: bool = False,
    ) -> tuple[Array, Bool[np.ndarray, "T Q"]]:
        """Return what stands at each code's column, and which codes have one.

        Args:
          x: [B, L, Q, …]: codes in the order of the pattern, or a model's logits.
          steps: T.
          none: fills the places of codes without a column.
          trained, predicted: see `sources`.

        Returns:
          [B, T, Q, …], [T, Q].
        """
        source = self.sources(steps, x.shape[1], trained=trained, predicted=predicted)
        rest = (1,) * (x.ndim - 3)
        index = np.maximum(source, 0).reshape(1, *source.shape, *rest)
        there = (source != NONE).reshape(1, *source.shape, *rest)
        found = jnp.take_along_axis(x, jnp.asarray(index), axis=1)
        return jnp.where(there, found, none), source != NONE


@dataclasses.dataclass(frozen=True)
class Delay(Pattern):
    """Each book a number of steps later than the first: AudioGen's and MusicGen's.

    Attributes:
      delays: of each book; (): 0, 1, 2, …
      first: steps at the begin whose codes stand one by one.
      empty: columns without codes before them.
    """

    delays: tuple[int, ...] = ()
    first: int = 0
    empty: int = 0

    def __post_init__(self):
        _check(self.delays, self.books, "delays")
        if list(self.delays) != sorted(self.delays):
            raise ValueError(f"delays: got {self.delays}, wanted none shorter than the one before.")

    def columns(self, steps: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the (time, book) of each column."""
        delays = self.delays or tuple(range(self.books))
        yield from ([] for _ in range(self.empty))
        for t in range(min(steps, self.first)):
            yield from ([(t, q)] for q in range(self.books))
        for t in range(self.first, steps + max(delays)):
            yield [(t - d, q) for q, d in enumerate(delays) if t - d >= self.first]


@dataclasses.dataclass(frozen=True)
class Parallel(Pattern):
    """All books at once."""

    def columns(self, steps: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the (time, book) of each column."""
        yield from ([(t, q) for q in range(self.books)] for t in range(steps))


@dataclasses.dataclass(frozen=True)
class Unrolled(Pattern):
    """Each step in several columns.

    Attributes:
      flattening: number of the column, within its step, of each book; (): one after another.
      delays: steps of each book; books of one column have the same one; (): none.
    """

    flattening: tuple[int, ...] = ()
    delays: tuple[int, ...] = ()

    def __post_init__(self):
        _check(self.flattening, self.books, "flattening")
        _check(self.delays, self.books, "delays")
        pairs = set(zip(self._flattening, self._delays, strict=True))
        if len(pairs) != len(set(self._flattening)):
            raise ValueError(
                f"delays {self.delays}: books of one column, {self.flattening}, have the same delay."
            )

    @property
    def _flattening(self):
        return self.flattening or tuple(range(self.books))

    @property
    def _delays(self):
        return self.delays or (0,) * self.books

    def columns(self, steps: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the (time, book) of each column."""
        delay = dict(zip(self._flattening, self._delays, strict=True))
        found = []
        for t in range(steps + max(self._delays)):
            for inner in range(max(self._flattening) + 1):
                books = [q for q, place in enumerate(self._flattening) if place == inner]
                found.append((t + delay.get(inner, 0), [(t, q) for q in books]))
        yield from (column for _, column in sorted(found))


@dataclasses.dataclass(frozen=True)
class CoarseFirst(Pattern):
    """The first book to its end, then all others together.

    Attributes:
      delays: of the others; (): none.
    """

    delays: tuple[int, ...] = ()

    def __post_init__(self):
        _check(self.delays, self.books - 1, "delays")

    def columns(self, steps: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the (time, book) of each column."""
        delays = self.delays or (0,) * (self.books - 1)
        yield from ([(t, 0)] for t in range(steps))
        for t in range(steps + max(delays, default=0)):
            yield [(t - d, q + 1) for q, d in enumerate(delays) if t >= d]


@functools.lru_cache(maxsize=64)
def _table(pattern: Pattern, steps: int) -> tuple[np.ndarray, int]:
    """Return the whole table, and by how much its latest time is beyond the codes'."""
    columns = [[], *pattern.columns(steps)]
    table = np.full((len(columns), pattern.books), NONE, np.int32)
    latest = 0
    for number, column in enumerate(columns):
        for t, q in column:
            latest = max(latest, t + 1)
            if t < steps:
                table[number, q] = t
    table.setflags(write=False)
    return table, max(0, latest - steps)


def _check(numbers: tuple[int, ...], books: int, name: str) -> None:
    if books < 1 or (numbers and len(numbers) != books) or any(n < 0 for n in numbers):
        raise ValueError(f"{name}: got {numbers}, wanted {books} numbers, 0 or more, or none.")
