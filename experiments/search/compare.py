"""Kinds of approximate indexes of Faiss: time to build, size, recall at 10, time of a query; docs/search.md.

python experiments/search/compare.py 200000 "IVF1024,SQ8;HNSW32,SQ8"
"""

import sys
import time
from typing import Any

import faiss
import numpy as np
from large import vectors

BLOCK, WIDTH, TOP, KEPT = 50_000, 192, 10, 100


def main(count: int, kinds: list[str]) -> None:
    """Print a block of lines for each kind."""
    x = np.concatenate([vectors(BLOCK, WIDTH, first) for first in range(0, count, BLOCK)])
    asked = vectors(128, WIDTH, 1)
    metric = faiss.METRIC_INNER_PRODUCT
    _, truth = faiss.knn(asked, x, TOP, metric=metric)
    for kind in kinds:
        began = time.process_time()
        index: Any = faiss.index_factory(WIDTH, kind, metric)
        graph = kind.startswith("HNSW")
        if graph:
            index.hnsw.efConstruction = 80
        else:
            index.cp.max_points_per_centroid = 64
        index.train(x)
        index.add(x)
        size = len(faiss.serialize_index(index)) / 2**20
        print(f"{kind}: {time.process_time() - began:.0f} s of processors, {size:.0f} MiB")
        for effort in (8, 16, 32, 64, 128, 256):
            if graph:
                index.hnsw.efSearch = effort
            else:
                index.nprobe = effort
            began = time.process_time()
            found = np.concatenate([index.search(vector[None], KEPT)[1] for vector in asked])
            spent = 1000 * (time.process_time() - began) / len(asked)
            recall = np.mean(
                [len(set(a) & set(b)) / TOP for a, b in zip(found, truth, strict=True)]
            )
            print(f"  effort {effort}: recall {recall:.3f}, {spent:.2f} ms of processors")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2].split(";"))
