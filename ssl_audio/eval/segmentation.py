"""How well pixels, or clips in clusters, are told apart: mean intersection over union, matched accuracy."""

from collections.abc import Mapping

import numpy as np


def mean_iou(found: np.ndarray, true: np.ndarray, classes: int) -> dict[str, float]:
    """Return `mIoU`, over the classes that occur in either, and the `accuracy` of labelled pixels.

    Args:
      found: class of each pixel, any shape.
      true: the same; below 0: not labelled, not counted.
      classes: C.

    Raises:
      ValueError: shapes that differ, no labelled pixel.
    """
    if found.shape != true.shape:
        raise ValueError(f"mean_iou: got {found.shape} and {true.shape}; wanted the same.")
    there = true >= 0
    if not there.any():
        raise ValueError("mean_iou: no pixel is labelled.")
    table = confusion(found[there], true[there], classes)
    both = np.diag(table)
    either = table.sum(0) + table.sum(1) - both
    shares = both[either > 0] / either[either > 0]
    return {"mIoU": float(shares.mean()), "accuracy": float(both.sum() / table.sum())}


def confusion(found: np.ndarray, true: np.ndarray, classes: int) -> np.ndarray:
    """Return how often each true class [C, ·] was found to be each class [·, C]."""
    return np.bincount(true * classes + found, minlength=classes**2).reshape(classes, classes)


def matched(clusters: np.ndarray, true: np.ndarray, classes: int) -> Mapping[int, int]:
    """Return the class of each cluster, each class once, so that most clips are right (Hungarian method)."""
    from scipy.optimize import linear_sum_assignment

    names = np.unique(clusters)
    counts = np.stack([np.bincount(true[clusters == one], minlength=classes) for one in names])
    rows, columns = linear_sum_assignment(-counts)
    return {int(names[row]): int(column) for row, column in zip(rows, columns, strict=True)}
