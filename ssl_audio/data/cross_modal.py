"""Triplets of clips that another modality chose: a clip that looks alike, and others that do not.

Zürn et al. 2021 (arXiv:1912.03227): pictures of the ground choose triplets of the sounds heard on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.source import Example
from ssl_audio.data.triplet import TRIES, Triplet

BLOCK = 1024  # rows whose distances to all are held at a time


def chosen(vectors: np.ndarray, clusters: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return for each clip which other one is nearest [N], and its cluster [N], by another modality.

    Args:
      vectors: of what belongs to each clip, as its picture [N, D].
      clusters: of k-means.
      seed: of k-means.

    Raises:
      ValueError: not vectors of at least two clips, values that are not finite, more clusters than clips.
    """
    from sklearn.cluster import KMeans

    x = np.asarray(vectors, np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise ValueError(f"vectors: got {x.shape}, wanted finite values [N, D] of at least 2 clips")
    if not 2 <= clusters <= len(x):
        raise ValueError(f"clusters: got {clusters}, wanted 2 to {len(x)}, the number of clips")
    squares = (x**2).sum(1)
    nearest = np.zeros(len(x), np.int64)
    for first in range(0, len(x), BLOCK):
        rows = np.arange(first, min(first + BLOCK, len(x)))
        distance = squares[None] - 2 * x[rows] @ x.T
        distance[np.arange(len(rows)), rows] = np.inf
        nearest[rows] = distance.argmin(1)
    starts: Any = 10
    found: Any = KMeans(clusters, n_init=starts, random_state=seed).fit(x)
    return nearest, found.labels_.astype(np.int64)


def rows(paths: Sequence[str], vectors: np.ndarray, clusters: int, seed: int = 0) -> list[dict]:
    """Return the rows of a manifest for entry `CrossModal`: path, positive, cluster."""
    nearest, cluster = chosen(vectors, clusters, seed)
    return [
        dict(path=path, positive=paths[near], cluster=f"{number}")
        for path, near, number in zip(paths, nearest.tolist(), cluster.tolist(), strict=True)
    ]


@dataclass(frozen=True)
class CrossModal(Triplet):
    """As `Triplet`: the positive is a file of column `positive`, negatives are of another cluster.

    Attributes:
      column: of the source's table, with the name of a clip's cluster.
    """

    column: str = "cluster"

    def _from_columns(self, example: Example, same: bool, rng: np.random.Generator) -> Example:
        if same:
            return super()._from_columns(example, same, rng)
        own = self._cluster(example)
        for _ in range(TRIES):
            other = example["more"]()
            if self._cluster(other) != own:
                return {**other, "more": example["more"]}
        raise ValueError(
            f"clip {example['id']}: no clip of another cluster was among {TRIES} drawn clips; "
            f"column '{self.column}' says {own!r} of this one"
        )

    def _cluster(self, example: Example) -> str:
        found = (example.get("columns") or {}).get(self.column)
        if found is None or found == "":
            raise ValueError(f"clip {example['id']}: nothing in column '{self.column}'")
        return str(found)
