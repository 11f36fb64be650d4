"""Cluster whole clips by an encoder's features: pseudo-labels, as a table that a person can look at.

PCA with whitening, length 1, k-means: UnFuSeD (Seth et al. 2023, arXiv:2303.05668). `kmeans.py` calls it.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio.data.reading import reading

if TYPE_CHECKING:
    from ssl_audio.inference.encoder import Encoder

log = logging.getLogger("ssl_audio")


@dataclasses.dataclass(frozen=True)
class Clusters:
    """Clusters of clips.

    Attributes:
      numbers: of the clips that could be read, [n].
      labels: cluster of each, [n].
      cosines: of each clip's whitened vector with its centroid, [n].
    """

    numbers: np.ndarray
    labels: np.ndarray
    cosines: np.ndarray


def fit(
    encoder: Encoder,
    source: Any,
    clusters: int,
    *,
    layer: int = -1,
    pool: str = "mean",
    whiten: int = 128,
    iterations: int = 20,
    seed: int = 0,
    max_bad_share: float = 0.01,
) -> Clusters:
    """Return clusters of the clips of a source.

    Args:
      encoder: whose features.
      source: clips at the encoder's rate.
      clusters: how many.
      layer, pool: see `Encoder.embed`.
      whiten: see `whitened`.
      iterations, seed: see `clustered`.
      max_bad_share: of clips that cannot be read.

    Raises:
      ValueError: no such layer or pool; fewer clips than clusters; too many unreadable clips.
    """
    from ssl_audio.inference import probe

    extract = probe.features(encoder, "pooled", (layer,), pool)
    read: list[int] = []
    clips = reading(source, read, desc="features", bad={}, max_bad_share=max_bad_share)
    found = dict(extract(clips))
    if len(found) < clusters:
        raise ValueError(
            f"kmeans: {len(found)} clips for {clusters} clusters; wanted no more clusters than clips."
        )
    x = np.stack([found[k][0] for k in range(len(read))])
    labels, cosines = clustered(whitened(x, whiten), clusters, iterations, seed)
    used(labels, clusters, "clips")
    return Clusters(np.array(read), labels, cosines)


def whitened(x: np.ndarray, size: int) -> np.ndarray:
    """Return vectors [n, D] as their first principal components, of variance 1 each, then at length 1.

    Args:
      x: the vectors.
      size: number of components; fewer where n - 1, D or their variety is less.
    """
    x = x.astype(np.float64)
    x = x - x.mean(0)
    _, deviations, directions = np.linalg.svd(x, full_matrices=False)
    # What does not vary would be divided by 0.
    there = int(np.sum(deviations > 1e-6 * max(deviations[0], 1e-12)))
    size = max(1, min(size, there))
    x = x @ directions[:size].T / np.maximum(deviations[:size], 1e-12) * np.sqrt(len(x) - 1)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def clustered(
    x: np.ndarray, clusters: int, iterations: int = 20, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cluster of each vector [n, D], by k-means, and its cosine with the centroid.

    The best of ten starts of k-means++, each of so many iterations at most; the same seed gives the same.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    starts: Any = 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `used` says it
        made: Any = KMeans(clusters, n_init=starts, max_iter=iterations, random_state=seed).fit(x)
    centres = made.cluster_centers_[made.labels_]
    lengths = np.linalg.norm(centres, axis=1) * np.linalg.norm(x, axis=1)
    return made.labels_, np.sum(centres * x, 1) / np.maximum(lengths, 1e-12)


def used(labels: np.ndarray, asked: int, what: str) -> int:
    """Return how many clusters have a member; warn where they are fewer than asked for.

    Args:
      labels: cluster of each vector, [n].
      asked: number of clusters.
      what: the vectors are of.
    """
    found = len(np.unique(labels))
    if found < asked:
        log.warning(
            "kmeans: %d of %d clusters are empty: the %s have no more than about %d different vectors; ask "
            "for fewer clusters", asked - found, asked, what, found,
        )  # fmt: skip
    return found


def table(source: Any, found: Clusters) -> str:
    """Return clusters as CSV that `source:Manifest` reads: path, start, end, id, label, class, cosine.

    Sorted by cluster, the most typical clip of each first. `class` is the clip's own label, where it has one:
    to look at, nothing reads it.

    Raises:
      ValueError: the clips are no files.
    """
    clips = getattr(source, "clips", None)
    if clips is None:
        raise ValueError(
            f"kmeans: {source.info.name} is no collection of sound files, so a table cannot name its clips: "
            "name the files that it was made of."
        )
    digits = len(str(int(found.labels.max())))
    names, file = source.info.labels, io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["path", "start", "end", "id", "label", "class", "cosine"])
    for row in np.lexsort((-found.cosines, found.labels)).tolist():
        clip = clips[int(found.numbers[row])]
        own = clip.label
        several = own if isinstance(own, tuple) else () if own is None else (own,)
        writer.writerow([
            os.path.abspath(clip.path),
            clip.start or "",
            "" if clip.end is None else clip.end,
            clip.id,
            f"cluster_{found.labels[row]:0{digits}}",
            ";".join(names[n] if names else str(n) for n in several),
            f"{found.cosines[row]:.4f}",
        ])  # fmt: skip
    return file.getvalue()


def agreement(labels: Any, classes: Any) -> dict[str, float]:
    """Return how well clusters [n] fit classes [n], numbers both: to see what was found, not to choose by.

    "nmi": normalised mutual information, 0 to 1, over the arithmetic mean of the two entropies. "accuracy":
    of the best assignment of one cluster to each class. "purity": share of clips whose class is the most
    frequent one of their cluster.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import normalized_mutual_info_score

    _, a = np.unique(np.asarray(labels), return_inverse=True)
    _, b = np.unique(np.asarray(classes), return_inverse=True)
    counts = np.zeros((a.max() + 1, b.max() + 1), np.int64)
    np.add.at(counts, (a, b), 1)
    rows, columns = linear_sum_assignment(-counts)
    return {
        "nmi": float(normalized_mutual_info_score(b, a)),
        "accuracy": float(counts[rows, columns].sum() / len(a)),
        "purity": float(counts.max(1).sum() / len(a)),
    }
