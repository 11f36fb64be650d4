"""An approximate index beside the vectors of a large index: lists of 8-bit codes, made and measured by Faiss.

It names candidates, whose scores `index.py` then takes from the vectors themselves. Chosen by measurement
(docs/search.md): as exact as a graph (HNSW) with half its memory and a third of the time to build.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

ABOVE = 200_000  # vectors; up to here all are compared, which takes a tenth of a second at most
CANDIDATES = 100  # at least, and four for each result
WANTED = 0.99  # recall at 10, for which lists are added
QUERIES, TOP = 200, 10
BLOCK = 65_536
POINTS = 40  # vectors for each list that k-means sees
RESULTS = 250  # most that are asked for approximately


def library() -> Any:
    """Return Faiss.

    Raises:
      RuntimeError: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise RuntimeError("searching takes Faiss: pip install 'ssl_audio[search]'") from None
    return faiss


def make(vectors: np.ndarray, before: Any = None) -> tuple[Any, dict[str, Any]]:
    """Return an index of Faiss of unit vectors [N, D], and what is to be known of it.

    Args:
      vectors: may be on disk.
      before: such an index of fewer or more vectors: its lists are taken over where their number fits.

    Returns:
      The index; its kind, lists, probes (lists that a query looks at), recall@10 against all vectors of
      `queries` of them, and bytes in memory.
    """
    faiss = library()
    count, width = vectors.shape
    lists = min(65_536, 2 ** round(math.log2(4 * math.sqrt(count))))
    if before is not None and (before.nlist, before.d) == (lists, width):
        index = before
        index.reset()
    else:
        index = faiss.index_factory(width, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        sample = np.random.default_rng(0).permutation(count)[: POINTS * lists]
        index.cp.max_points_per_centroid = POINTS
        index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    for first in range(0, count, BLOCK):
        index.add(np.ascontiguousarray(vectors[first : first + BLOCK]))
    probes, recall = _probes(index, vectors, lists)
    about = {
        "kind": f"IVF{lists},SQ8",
        "lists": lists,
        "probes": probes,
        "recall@10": round(recall, 4),
        "queries": QUERIES,
        "bytes": count * (width + 8) + lists * width * 4,
    }
    return index, about


def candidates(index: Any, about: Mapping[str, Any], vector: np.ndarray, count: int) -> np.ndarray:
    """Return rows that are likely among the `count` nearest to a unit vector [D]."""
    index.nprobe = int(about["probes"])
    _, found = index.search(vector[None], max(CANDIDATES, 4 * count))
    return found[0][found[0] >= 0]


def said(about: Mapping[str, Any]) -> str:
    """Return what is known of an approximate index, as a line of text."""
    return (
        f"approximate index {about['kind']}: {about['probes']} of {about['lists']} lists looked at, "
        f"recall@10 {about['recall@10']:.3f} ({about['queries']} of its vectors against all), "
        f"{about['bytes'] / 2**20:.0f} MiB of memory"
    )


def _probes(index: Any, vectors: np.ndarray, lists: int) -> tuple[int, float]:
    """Return how many lists to look at for the wanted recall, at most a quarter of them, and the recall."""
    faiss = library()
    rows = np.sort(np.random.default_rng(1).permutation(len(vectors))[:QUERIES])
    asked = np.ascontiguousarray(vectors[rows])
    # Each is its own nearest, which every index finds: not counted.
    best, _ = faiss.knn(asked, vectors, TOP + 1, metric=faiss.METRIC_INNER_PRODUCT)
    probes, recall = 8, 0.0
    while True:
        found = 0
        for row, vector, wanted in zip(rows, asked, best[:, -1], strict=True):
            some = candidates(index, {"probes": probes}, vector, TOP)
            scores = vectors[some[some != row]] @ vector
            found += min(TOP, int(np.sum(scores >= wanted - 1e-6)))
        recall = found / (TOP * len(rows))
        if recall >= WANTED or 2 * probes > lists // 4:
            return probes, recall
        probes *= 2
