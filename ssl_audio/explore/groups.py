"""Groups of rows that the map is coloured by: folders, clusters, labels."""

from __future__ import annotations

import base64
import pathlib
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_audio.data.decode import printable
from ssl_audio.explore.collection import Row

MOST = 200  # folders that are told apart


class Groups(NamedTuple):
    """Names of groups, and the number of each row's group [N], -1: none."""

    names: tuple[str, ...]
    of: np.ndarray

    def as_json(self) -> dict[str, Any]:
        """Return the groups as the page reads them: numbers as base64 of int16."""
        counts = np.bincount(self.of[self.of >= 0], minlength=len(self.names))
        numbers = base64.b64encode(self.of.astype("<i2").tobytes()).decode()
        return {"names": list(self.names), "counts": counts.tolist(), "of": numbers}


def folders(rows: Sequence[Row]) -> Groups | None:
    """Return groups by the files' folders; None where they tell nothing: one folder, or hundreds."""
    of = [row.path.rpartition("/")[0] for row in rows]
    names = sorted(set(of))
    if not 1 < len(names) <= MOST:
        return None
    numbers = {name: i for i, name in enumerate(names)}
    short = [pathlib.PurePath(name).name for name in names]
    if len(set(short)) < len(short):
        short = names
        if all(map(posixpath.isabs, names)):
            above = posixpath.commonpath(names)
            short = [posixpath.relpath(name, above) for name in names]
    return Groups(tuple(map(printable, short)), np.array([numbers[name] for name in of], np.int16))


def numbered(of: np.ndarray) -> Groups:
    """Return groups without names."""
    return Groups(tuple(f"cluster {i + 1}" for i in range(int(of.max()) + 1)), of)


def labelled(of: Mapping[int, str], rows: int) -> Groups:
    """Return groups by label, in the order of their first use."""
    names = list(dict.fromkeys(of.values()))
    numbers, found = {name: i for i, name in enumerate(names)}, np.full(rows, -1, np.int16)
    for row, name in list(of.items()):
        found[row] = numbers[name]
    return Groups(tuple(names), found)
