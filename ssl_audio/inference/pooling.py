"""Collect a clip's features window by window: overlaps are averaged, columns pooled or kept.

`Encoder.stream` gives each clip a collector and never holds more of a long clip than two windows.
"""

from typing import Any, Protocol

import numpy as np

PADS = ("columns", "training", "silence", "none")  # ways to end a clip: see `Encoder`
POOLS = ("mean", "rows", "stats")  # over patch columns
SPECIAL = "special"  # of the tokens that are no patches: `Encoder.readout`

Features = np.ndarray  # [K, T', rows * D]: layers, patch columns in time, the column's tokens


class Collector(Protocol):
    """Takes one clip's features in the order of time."""

    def add(self, features: Features, /) -> None:
        """Take the next columns."""
        ...

    def result(self) -> Any:
        """Return what was made of all columns."""
        ...


class Whole:
    """Keeps every column."""

    def __init__(self):
        self._pieces: list[Features] = []

    def add(self, features: Features) -> None:  # noqa: D102
        self._pieces.append(features)

    def result(self) -> Features:  # noqa: D102
        return self._pieces[0] if len(self._pieces) == 1 else np.concatenate(self._pieces, axis=-2)


class Pooled:
    """Pools over time, as `Encoder.embed` says, in memory that does not grow.

    Means and squared deviations are combined by Chan et al. 1979 (Stanford STAN-CS-79-773),
    equation 2.1, in float64: nothing cancels, so a constant has a deviation of 0.
    """

    def __init__(self, rows: int, pool: str):
        check_pool(pool)
        self._rows, self._pool = rows, pool
        self._count, self._mean, self._squares = 0, np.float64(0), np.float64(0)

    def add(self, features: Features) -> None:  # noqa: D102
        count = features.shape[-2]
        if not count:
            return
        mean = features.mean(axis=-2, dtype=np.float64)
        share = count / (self._count + count)
        if self._pool == "stats":
            squares = count * features.var(axis=-2, dtype=np.float64)
            between = (mean - self._mean) ** 2 * (self._count * share)
            self._squares = self._squares + squares + between
        self._mean = self._mean + (mean - self._mean) * share
        self._count += count

    def result(self) -> np.ndarray:
        """Return [..., D'], float32."""
        pooled = np.asarray(self._mean)
        if self._pool == "mean":
            pooled = pooled.reshape(*pooled.shape[:-1], self._rows, -1).mean(axis=-2)
        elif self._pool == "stats":
            deviation = np.sqrt(self._squares / self._count)
            pooled = np.concatenate([pooled, deviation], axis=-1)
        return pooled.astype(np.float32)


class OverlapMean:
    """Averages a clip's windows where they overlap and hands columns on as soon as they are final."""

    def __init__(self, collector: Collector):
        self._collector = collector
        self._start = 0  # column at which the sums begin
        self._sums: Features | None = None
        self._counts = np.zeros((0, 1), np.float32)

    def add(self, start: int, features: Features, total: int | None) -> bool:
        """Take the window that begins at a column, not before the last one's; return: was it the last?

        Args:
          start: its first column.
          features: the window's.
          total: the clip's columns, with its last window; before: None.
        """
        sums = features[:, :0] if self._sums is None else self._sums
        self._hand_on(sums, start - self._start)
        sums, counts = sums[:, start - self._start :], self._counts[start - self._start :]
        more = features.shape[1] - sums.shape[1]
        self._sums = np.pad(sums, ((0, 0), (0, more), (0, 0))) + features
        self._counts = np.pad(counts, ((0, more), (0, 0))) + np.float32(1)
        self._start = start
        if total is not None:
            self._hand_on(self._sums, total - start)
        return total is not None

    def _hand_on(self, sums: Features, columns: int) -> None:
        if columns:
            self._collector.add(sums[:, :columns] / self._counts[None, :columns])


def pooling(features: np.ndarray, rows: int, pool: str) -> np.ndarray:
    """Pool [..., T', rows * D] over time, as `Encoder.embed` says."""
    pooled = Pooled(rows, pool)
    pooled.add(features)
    return pooled.result()


def check_pool(pool: str) -> None:
    """Raise ValueError unless there is such a pooling."""
    if pool not in POOLS:
        raise ValueError(f"pool: got {pool!r}, wanted one of {', '.join(POOLS)}.")
