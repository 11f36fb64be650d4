"""Does taking the mean of an index's vectors off them find more of the same class? Of files of ESC-10.

python experiments/search/mean.py INDEX, of `ssl-audio search index --checkpoint RUN --index INDEX ESC10`:
names end in the number of the class. Each file is the query once; it is left out of its own hits.
"""

import os
import sys

import numpy as np

from ssl_audio.inference.search import Index

TOP = 10


def unit(x: np.ndarray) -> np.ndarray:
    """Return vectors [..., D] at unit length."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def precision(index: Index, mean: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the share of each file's class among its ten best hits [files], and the hits' mean cosine."""
    names = [os.path.basename(path).rpartition(".")[0] for path in index.rows.paths]
    classes = np.array([name.rpartition("-")[2] for name in names])
    vectors, bounds = unit(np.array(index.vectors)), index.rows.bounds
    shifted, found, cosines = unit(vectors - mean), [], []
    for i in range(len(names)):
        asked = unit(vectors[bounds[i] : bounds[i + 1]].mean(0))  # as `model.sound` of a whole file
        scores = np.maximum.reduceat(shifted @ unit(asked - mean), bounds[:-1])
        scores[i] = -2
        best = np.argsort(-scores)[:TOP]
        found.append((classes[best] == classes[i]).mean())
        cosines.append(scores[best].mean())
    return np.array(found), float(np.mean(cosines))


if __name__ == "__main__":
    opened = Index(sys.argv[1])
    middle = unit(np.array(opened.vectors)).mean(0)
    (before, near), (after, far) = (precision(opened, m) for m in (0 * middle, middle))
    gain = after - before
    print(f"as they are: precision@{TOP} {before.mean():.3f}, cosine of the hits {near:.3f}")
    print(f"mean taken off: {after.mean():.3f}, {far:.3f}")
    print(f"gain {gain.mean():.3f}, standard error {gain.std() / len(gain) ** 0.5:.3f}, paired")
