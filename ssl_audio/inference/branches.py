"""Vectors of several branches: how much each counts is chosen when a query is asked (Control-MVR).

A vector holds the branches' unit vectors one after the other, in the order of their names, and has length 1.
Mixed ones, the sums of branches' vectors times their shares, are compared by inner product and not normalised
again: so one index of whole vectors serves all shares (arXiv:2412.05831 leaves this open).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio.objectives.towers import branch_names

CHOSEN = "class"  # the branch that "alpha" is the share of


def names(objective: Any, tower: str = "audio") -> list[str]:
    """Return the branches of a tower in the order of its vectors; none: it has one vector."""
    return branch_names(objective.towers.get(tower))


def shares(branches: Sequence[str], chosen: str, alpha: float) -> list[float]:
    """Return the shares of branches: `alpha` of the chosen one, the rest of the others, alike.

    Raises:
      ValueError: alpha is not a share, or there is no such branch.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: got {alpha:g}, wanted 0 to 1.")
    if chosen not in branches or len(branches) < 2:
        raise ValueError(f"alpha: wanted a model with a branch '{chosen}', got {list(branches)}.")
    rest = (1 - alpha) / (len(branches) - 1)
    return [alpha if name == chosen else rest for name in branches]


def query(vectors: np.ndarray, share: Sequence[float]) -> np.ndarray:
    """Return what to compare with whole vectors to compare mixed ones, unit vectors [..., K D].

    The inner product with a whole vector is, up to a factor of the query, that of both mixed vectors.

    Args:
      vectors: of the queries, whole [..., K D].
      share: of each branch [K].
    """
    parts = _parts(vectors, len(share))
    mixed = np.einsum("k,...kd->...d", np.asarray(share, np.float64), parts)
    asked = np.asarray(share, np.float64)[:, None] * mixed[..., None, :]
    asked = asked.reshape(vectors.shape)
    length = np.maximum(np.linalg.norm(asked, axis=-1, keepdims=True), 1e-30)
    return np.asarray(asked / length, np.float32)


def mixed(vectors: np.ndarray, share: Sequence[float]) -> np.ndarray:
    """Return the sums [..., D] of branches' unit vectors times their shares, of whole vectors [..., K D]."""
    found = np.einsum("k,...kd->...d", np.asarray(share), _parts(vectors, len(share)))
    return np.asarray(found * len(share) ** 0.5, np.float32)


def _parts(vectors: np.ndarray, count: int) -> np.ndarray:
    if vectors.shape[-1] % count:
        raise ValueError(f"vectors of {vectors.shape[-1]} numbers are not of {count} branches.")
    return vectors.reshape(*vectors.shape[:-1], count, -1)


def merged(vectors: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Return the unit vector of several modalities' unit vectors [..., D], summed by their weights.

    Args:
      vectors: modality → vectors.
      weights: modality → how much it counts; those that are not named count 1.

    Raises:
      ValueError: a weight of a modality that is not asked with, one that is no number of 0 or more, or all 0.
    """
    if unknown := sorted(weights.keys() - vectors.keys()):
        raise ValueError(f"weight of '{unknown[0]}': asked with {', '.join(vectors)}.")
    factors = {name: float(weights.get(name, 1.0)) for name in vectors}
    if not all(0 <= f < np.inf for f in factors.values()) or not any(factors.values()):
        raise ValueError(f"weights: got {factors}, wanted 0 or more, and one above 0.")
    total = sum(factors[name] * np.asarray(v, np.float64) for name, v in vectors.items())
    length = np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-30)
    return np.asarray(total / length, np.float32)
