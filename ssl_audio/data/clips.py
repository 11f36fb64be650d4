"""A clip of a file, and many of them as one sequence that takes the memory of `clip_columns.py`.

Called by every source of plain audio files: `source.py`, `manifest.py` and `sets/`.
"""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from ssl_audio.data.clip_columns import FIELDS, Columns, Example, Label, in_columns, span


class Clip(NamedTuple):
    """A segment of an audio file and its metadata. None: unknown."""

    path: str
    id: str
    label: Label | None = None
    fold: int | None = None
    split: str | None = None
    text: str | tuple[str, ...] | None = None  # a caption, or several
    rewrites: tuple[str, ...] | None = None  # the captions in other words
    negatives: tuple[str, ...] | None = None  # captions that nearly fit and do not
    weight: float | None = None  # in the loss; unknown counts 1
    columns: Mapping[str, Any] | None = None  # of a user's table, whose meaning only the user knows
    start: float = 0.0  # seconds
    end: float | None = None

    def meta(self) -> Example:
        """Return the known fields of an example."""
        known = {k: getattr(self, k) for k in FIELDS}
        return {k: v for k, v in known.items() if v is not None}


class Clips(Sequence[Clip]):
    """Clips of files, as a sequence of `Clip` that is made when it is looked at.

    Attributes:
      columns: what is known of them; a path is relative to `root` unless it begins with "/", and a clip
        without an id is named by its path and its start.
      root: begins the paths.
    """

    def __init__(self, columns: Columns, root: str):
        self.columns, self.root = columns, root

    @classmethod
    def of(cls, clips: Sequence[Clip]) -> "Clips":
        """Return the same clips, in columns."""
        if isinstance(clips, Clips):
            return clips
        given = zip(*clips, strict=True) if clips else ([] for _ in Clip._fields)
        fields = dict(zip(Clip._fields, map(list, given), strict=True))
        paths, ids = fields["path"], fields["id"]
        fields["start"] = [start or None for start in fields["start"]]
        whole = not any(fields["start"]) and all(end is None for end in fields["end"])
        named = ids[0] if ids else ""
        root = paths[0].removesuffix(named) if named else ""
        # Names of whole files are mostly their paths in a folder, and need not be kept twice.
        if whole and root.endswith("/") and all(map(_ends, paths, ids, itertools.repeat(root))):
            fields |= {"path": ids, "id": []}
        else:
            root = _root(paths)
            fields["path"] = [path[len(root) :] for path in paths]
        return cls(in_columns(fields, len(clips)), root)

    def __len__(self) -> int:
        return self.columns.size

    @overload
    def __getitem__(self, i: int) -> Clip: ...
    @overload
    def __getitem__(self, i: slice) -> list[Clip]: ...
    def __getitem__(self, i: int | slice) -> Clip | list[Clip]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(f"clip {i} of {len(self)}")
        known = {name: self.columns.get(name, i % len(self)) for name in Clip._fields}
        path, start = known["path"] or "", known["start"]
        if known["id"] is None:
            bounds = (math.nan if s is None else s for s in (start, known["end"]))
            known["id"] = path + span(*bounds)
        known |= {"path": path if path.startswith("/") else self.root + path, "start": start or 0.0}
        return Clip(**known)

    def kept(self, rows: np.ndarray) -> "Clips":
        """Return some of them."""
        return Clips(self.columns.kept(rows), self.root)

    def digest(self, rate: int) -> str:
        """Return what `digest` returns for the metadata of sources of this rate, Hz."""
        return self.columns.digest(rate, _ids)


def _ids(columns: Columns, rows: np.ndarray) -> Sequence[str]:
    given = columns.cells("id", rows)
    if all(given):
        return given
    paths, spans = columns.cells("path", rows), itertools.repeat("")
    if not {"start", "end"}.isdisjoint(columns.arrays):
        none = np.full(len(rows), np.nan)
        bounds = [
            columns.arrays[name][rows] if name in columns.arrays else none
            for name in ("start", "end")
        ]
        spans = itertools.starmap(span, zip(*(some.tolist() for some in bounds), strict=True))
    return [id or path + span for id, path, span in zip(given, paths, spans, strict=False)]


def _ends(path: str, id: str, root: str) -> bool:
    return path == root + id and id[:1] not in ("", "/")


def _root(paths: Sequence[str]) -> str:
    """Return the folder that all paths are in, with a "/" behind it; "": none."""
    if not paths:
        return ""
    root = os.path.commonprefix([min(paths), max(paths)])
    root = root[: root.rfind("/") + 1]
    return "" if any(path.startswith("/", len(root)) for path in paths) else root
