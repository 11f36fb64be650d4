"""Which clip is drawn at position k, from k and a seed alone; called by `pipeline.py`.

Nothing is carried from draw to draw, so a run can resume anywhere, on any number of hosts.
"""

import collections
import functools
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.clip_columns import Coded, Label
from ssl_audio.data.shared_arrays import SharedArrays

_NONE = (-1,)  # in place of the numbers of labels: a clip is known to have none
_BLOCK = 1024  # draws over which a weighted mixture keeps its proportions exactly


@dataclass(frozen=True, eq=False)
class Draws:
    """An endless sequence of clip numbers in [0, sum(sizes)): sources one after the other.

    Without `weights` each pass visits every clip of every source once. With them, each block of
    draws holds the sources in proportion and each source is visited in passes of its own. With
    `chances`, clips are drawn independently, with replacement.
    """

    sizes: tuple[int, ...]  # clips in each source
    weights: tuple[float, ...] | None = None  # share of each source, normalised here
    chances: Any = None  # probability of each clip [N]; normalised, added up and shared here
    seed: int = 0
    shuffle: bool = True

    def __post_init__(self):
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"Draws.sizes: every source needs a clip, got {self.sizes}")
        if self.weights is not None:
            check_weights(self.weights, len(self.sizes))
        if self.chances is not None:
            total = np.cumsum(np.asarray(self.chances, np.float64))
            object.__setattr__(self, "chances", SharedArrays({"ends": total / total[-1]}))

    def __getitem__(self, k: int) -> int:
        if self.chances is not None:
            at = np.random.default_rng((self.seed, 2, k)).random()
            ends = self.chances["ends"]
            return min(int(ends.searchsorted(at, "right")), len(ends) - 1)
        if self.weights is None:
            total = sum(self.sizes)
            return self._pass(0, total, k // total, k % total)
        block, within = divmod(k, self._block_size)
        sources, ranks = _block(self._edges, self._block_size, block, self.seed, self.shuffle)
        source = int(sources[within])
        cycle, at = divmod(int(ranks[within]), self.sizes[source])
        return sum(self.sizes[:source]) + self._pass(source + 1, self.sizes[source], cycle, at)

    def _pass(self, stream: int, size: int, cycle: int, at: int) -> int:
        return int(self._orders.get(size, self.seed, stream, cycle)[at]) if self.shuffle else at

    @functools.cached_property
    def _orders(self) -> "_Orders":
        return _Orders()

    @functools.cached_property
    def _edges(self) -> tuple[float, ...]:
        weights = np.asarray(self.weights, np.float64)
        return tuple(np.concatenate([[0.0], np.cumsum(weights)[:-1] / weights.sum(), [1.0]]))

    @functools.cached_property
    def _block_size(self) -> int:
        # Two draws of the rarest source per block keep every count non-decreasing.
        return max(_BLOCK, int(np.ceil(2.0 / np.diff(self._edges).min())))


def check_weights(weights: Sequence[float], count: int) -> None:
    """Raise ValueError unless there are `count` finite positive weights."""
    array = np.asarray(weights, np.float64)
    if array.shape != (count,) or not np.isfinite(array).all() or (array <= 0).any():
        raise ValueError(f"weights: wanted {count} positive numbers, got {tuple(weights)}")


def check_shares(weights: Mapping[str, float], names: Sequence[str]) -> None:
    """Raise ValueError unless each name, and no other, has a finite positive weight."""
    if set(weights) != set(names):
        raise ValueError(f"weights: for {sorted(weights)}, but the sources are {list(names)}")
    check_weights([weights[name] for name in names], len(names))


def balanced(labels: Sequence[Coded]) -> np.ndarray:
    """Return each clip's sampling weight [N]: over its labels, the sum of 1000 / (count + 0.01).

    A clip whose label is not known has weight 0. Those that are known to have none, (), count as having one
    more label of their own. (SSAST, AudioSet fine-tuning; the rule for clips with labels is PSLA's.)

    Args:
      labels: of each source, as `source.coded_labels` gives them.

    Raises:
      ValueError: no clip has a label.
    """
    counts: collections.Counter[int] = collections.Counter()
    sets = [[_numbers(value) for value in values] for _, values in labels]
    for (codes, _), some in zip(labels, sets, strict=True):
        for numbers, count in zip(
            some, np.bincount(codes, minlength=len(some)).tolist(), strict=True
        ):
            for number in numbers:
                counts[number] += count
    if not any(count for number, count in counts.items() if number not in _NONE):
        raise ValueError("balanced sampling: no clip has a label")
    rarity = {number: 1000.0 / (count + 0.01) for number, count in counts.items()}
    weights = [
        np.asarray([sum(rarity[number] for number in numbers) for numbers in some], np.float64)
        for some in sets
    ]
    return np.concatenate([each[codes] for each, (codes, _) in zip(weights, labels, strict=True)])


def _numbers(label: Label | None) -> tuple[int, ...]:
    return () if label is None else label or _NONE if isinstance(label, tuple) else (label,)


class _Orders:
    """The order of a stream's clips in a pass: the newest two passes of each, as threads read ahead."""

    def __init__(self):
        self._kept: dict[int, dict[int, np.ndarray]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Orders, ()  # a worker makes its own as it needs them

    def get(self, size: int, seed: int, stream: int, cycle: int) -> np.ndarray:
        """Return a permutation [size]."""
        with self._lock:
            some = self._kept.setdefault(stream, {})
            if cycle not in some:
                order = np.random.default_rng((seed, 0, stream, cycle)).permutation(size)
                some[cycle] = order.astype(np.uint32)
                if len(some) > 2:
                    del some[next(iter(some))]
            return some[cycle]


@functools.lru_cache(maxsize=32)
def _block(
    edges: tuple[float, ...], size: int, block: int, seed: int, shuffle: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the source of each draw of a block, and how often that source was drawn before it."""

    def drawn(blocks: int) -> np.ndarray:
        return np.diff(np.floor(np.asarray(edges) * (blocks * size)).astype(np.int64))

    before, counts = drawn(block), drawn(block + 1) - drawn(block)
    if shuffle:
        sources = np.repeat(np.arange(len(counts)), counts)
        sources = np.random.default_rng((seed, 1, block)).permutation(sources)
    else:  # evenly interleaved
        places = np.concatenate([(np.arange(n) + 0.5) / n for n in counts])
        sources = np.repeat(np.arange(len(counts)), counts)[np.argsort(places, kind="stable")]
    ranks = np.empty(size, np.int64)
    for source, first in enumerate(before):
        at = np.flatnonzero(sources == source)
        ranks[at] = first + np.arange(len(at))
    return sources, ranks
