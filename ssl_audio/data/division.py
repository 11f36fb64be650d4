"""Which clips to hold out for validation: whole groups, some of every class, the same ones every time."""

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np


def together(keys: Sequence[Sequence[Hashable]], count: int) -> np.ndarray:
    """Return the number of each clip's group [count]: those that share an entry in any of `keys` are one.

    Args:
      keys: lists of an entry for each clip; None and "" are no entry.
      count: of clips.
    """
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for entries in keys:
        first: dict[Hashable, int] = {}
        for i, entry in enumerate(entries):
            if entry is not None and entry != "":
                a, b = root(first.setdefault(entry, i)), root(i)
                parent[max(a, b)] = min(a, b)
    return np.unique([root(i) for i in range(count)], return_inverse=True)[1]


def held_out(
    labels: Sequence[Sequence[int]], groups: np.ndarray, names: Sequence[str], share: float
) -> np.ndarray:
    """Return which clips [n] to hold out: about a share of each class, never all of its groups.

    Classes come in the order of their rarity, their groups in one that looks random and depends on the
    names alone, so that clips that are added later change little. A class whose clips are all of one group
    keeps it for training.

    Args:
      labels: numbers of the classes of each clip; none: a clip of no class.
      groups: numbers of the clips' groups.
      names: of the clips, all different.
      share: of the clips.
    """
    if not len(groups):
        return np.zeros(0, bool)
    first, numbers = np.unique(groups, return_index=True, return_inverse=True)[1:]
    none = max((n for some in labels for n in some), default=-1) + 1
    per = np.zeros((len(first), none + 1), int)  # clips of each class in each group
    for group, some in zip(numbers.tolist(), labels, strict=True):
        for n in some or (none,):
            per[group, n] += 1
    total, left = per.sum(0), (per > 0).sum(0)  # left: groups of each class that are not held out
    target = np.maximum(1, np.round(share * total)).astype(int)
    order = sorted(range(len(first)), key=lambda group: _shuffled(names[int(first[group])]))
    out, have = np.zeros(len(first), bool), np.zeros(none + 1, int)
    for n in np.argsort(total, kind="stable").tolist():
        mine = [group for group in order if per[group, n]]
        smallest = min(mine, key=lambda group: per[group, n], default=-1)
        for group in mine:
            after = have[n] + per[group, n]
            too_many = after - target[n] > target[n] - have[n]
            if too_many and (have[n] or group != smallest):
                continue
            if out[group] or have[n] >= target[n] or (left[per[group] > 0] <= 1).any():
                continue
            out[group] = True
            have, left = have + per[group], left - (per[group] > 0)
    return out[numbers]


def _shuffled(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
