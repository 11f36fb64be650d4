"""From a user's table to clips in columns, for `source:Manifest`: block after block, column by column.

Each column is checked as a whole. What is not as in most tables goes cell by cell through `tables.Row`,
whose errors name file, line and column.
"""

import collections
import contextlib
import json
import math
import operator
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, NamedTuple

import numpy as np

from ssl_audio.data import names as spelling
from ssl_audio.data import tables
from ssl_audio.data.clip_columns import (
    CODED,
    FIELDS,
    NUMBERS,
    Builder,
    as_json,
    cell,
    many_objects,
    span,
)
from ssl_audio.data.clips import Clips
from ssl_audio.data.tables import ABSENT, Block, Row

# The columns that mean something.
COLUMNS = (*FIELDS[:-1], "path", "start", "end", "labels")
# Those that entries of a batch look up by name: see `beside_files.py`.
BESIDE = ("image", "features", "positive", "negative")
# And those that say which clips belong together, where parts are made: see `labelled.py`.
GROUPS = (
    "group", "recording", "recording_id", "speaker", "speaker_id", "session", "site", "individual"
)  # fmt: skip
# Where one of these is in a path (between two line ends), pathlib may write it otherwise.
_ODD = ("//", "/./", "/\n", "/.\n", "\n/", "\n./", "\n.\n")


class Found(NamedTuple):
    """What a table holds.

    Attributes:
      clips: one for each row.
      labels: names, in the order of their numbers.
      several: a clip may have several labels.
    """

    clips: Clips
    labels: tuple[str, ...]
    several: bool


def read(path: pathlib.Path, root: pathlib.Path, labels: Sequence[str]) -> Found:
    """Return the clips of a table.

    Args:
      path: of the table.
      root: what its paths are relative to.
      labels: names in the order of their numbers; none: those there are, sorted.

    Raises:
      ValueError: naming file and line, when a row cannot be understood.
    """
    with many_objects():
        return _read(path, root, labels)


def _read(path: pathlib.Path, root: pathlib.Path, labels: Sequence[str]) -> Found:
    made, prefix = Builder(), f"{root / '_'}"[:-1]
    coders = {name: _Coder(path, name) for name in (*CODED, "labels")}
    columns: dict[str, None] = {}
    for block in tables.blocks(path, need=("path",)):
        columns |= dict.fromkeys(block.columns)
        for name in coders.keys() & block.columns.keys():
            made.codes(name, coders[name].codes(block))
        _add_paths(made, block, root, prefix, _add_numbers(made, block))
        for name, of in (("text", _texts), ("rewrites", _several), ("negatives", _several)):
            if name in block.columns:
                made.cells(name, _cells(block, name, of))
        if unused := [name for name in columns if name not in COLUMNS]:
            made.cells("columns", _others(block, unused))
        made.end(len(block.lines))
    others = (*GROUPS, *BESIDE)
    tables.tell_unused([c for c in columns if c.lower() not in others], COLUMNS, str(path))
    several = any(value not in (None, "") for value in coders["labels"].values)
    if several and any(value not in (None, "") for value in coders["label"].values):
        raise ValueError(f"{path}: both 'label' and 'labels' are filled in; keep one of them")
    made.rename("labels" if several else "label", "label")
    numbers, labels = _labels(coders["labels" if several else "label"], labels, several)
    values: dict[str, Sequence[Any]] = {
        "label": numbers if several else [some[0] if some else None for some in numbers],
        "fold": [row.number("fold", int) for row in coders["fold"].rows()],
        "split": [str(v).strip() if v else None for v in coders["split"].values],
    }
    return Found(
        Clips(made.finish({name: list(map(cell, some)) for name, some in values.items()}), prefix),
        tuple(labels),
        several,
    )


class _Coder:
    """Numbers the different cells of a column in the order of their appearance; 0: there is none.

    Attributes:
      values: the different cells.
      lines: where each stands first.
    """

    def __init__(self, path: pathlib.Path, name: str):
        self.path, self.name = path, name
        self.values: list[Any] = [None]
        self.lines = [0]
        self._numbers: collections.defaultdict[Any, int] = collections.defaultdict()
        self._numbers.default_factory = self._numbers.__len__
        self._numbers[None] = 0

    def codes(self, block: Block) -> np.ndarray:
        """Return the number of each cell of a block."""
        cells = block.columns[self.name]
        kinds = set(map(type, cells))
        # As keys of a dictionary 1, 1.0 and True are one.
        keys = cells if kinds == {str} else list(map(_key, cells))
        found = np.fromiter(map(self._numbers.__getitem__, keys), np.uint32, len(cells))
        before = np.concatenate([np.asarray([len(self.values) - 1], np.uint32), found])
        for i in np.flatnonzero(np.diff(np.maximum.accumulate(before))).tolist():
            self.values.append(cells[i])
            self.lines.append(block.lines[i])
        return found

    def place(self, i: int) -> str:
        """Return where one of the cells stands first, for messages."""
        return f"{self.path}, line {self.lines[i]}"

    def rows(self) -> list[Row]:
        """Return rows with nothing but each of the different cells."""
        given = zip(self.values, self.lines, strict=True)
        return [Row({self.name: value}, self.path, line) for value, line in given]


def _key(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return None if value is None or value is ABSENT else (type(value), json.dumps(value))


def _labels(
    coder: _Coder, known: Sequence[str], several: bool
) -> tuple[list[tuple[int, ...]], tuple[str, ...]]:
    """Return the numbers of the labels in each of the different cells, and the names of all."""
    if several:
        where = str(coder.path)
        names = spelling.several(coder.values, coder.place, coder.name, known, where)
    else:
        names = [_label(value, coder.place(i)) for i, value in enumerate(coder.values)]
    present = sorted({name for some in names for name in some}, key=spelling.natural)
    labels = tuple(known) or tuple(present)
    number = {label: i for i, label in enumerate(labels)}
    if not number.keys() >= set(present):
        for i, some in enumerate(names):
            for label in some:
                if label not in number:
                    raise ValueError(f"{coder.place(i)}: label {label!r} is not one of {labels}")
    return [tuple(sorted({number[name] for name in some})) for some in names], labels


def _label(value: Any, where: str) -> list[str]:
    if isinstance(value, (list, tuple, dict)):
        raise ValueError(f"{where}: label: got {value!r}, wanted one; write several as 'labels'")
    name = spelling.text(value)
    return [name] if name else []


def _add_paths(
    made: Builder, block: Block, root: pathlib.Path, prefix: str, bounds: Mapping[str, np.ndarray]
) -> None:
    """Add paths, relative to `root`, and ids where they are not what follows from path, start and end."""
    cells = block.columns.get("path", [None] * len(block.lines))
    if set(map(type, cells)) != {str} or not all(cells):
        for row in map(block.row, range(len(block.lines))):
            file = row.get("path")
            if not file:
                raise ValueError(
                    f"{row.where}: no 'path'; the columns are {', '.join(map(str, row))}"
                )
            if not isinstance(file, str):
                raise ValueError(f"{row.where}: path: wanted a text, got {file!r}")
    files = list(map(str.strip, cells))
    if any(map(operator.ne, files, cells)):  # a blank may belong to the name
        files = [
            a if a == b or not (root / b).exists() else b for a, b in zip(files, cells, strict=True)
        ]
    given = block.columns.get("id", [""] * len(files))
    ids = [str(id) if id not in ("", None, ABSENT) else "" for id in given]
    # pathlib leaves out what does not count in a path, as in "./a.wav"; most have nothing of it.
    text = "\n" + "\n".join(files) + "\n"
    if any(part in text for part in _ODD):
        for i, file in enumerate(files):
            path = str(root / file)
            if path == prefix + file:
                continue
            start, end = (
                float(bounds[key][i]) if key in bounds else math.nan for key in ("start", "end")
            )
            ids[i] = ids[i] or file + span(start, end)
            inside = path.startswith(prefix)
            files[i] = path[len(prefix) :] if inside else os.path.abspath(path)
    made.cells("path", files)
    made.cells("id", ids)


def _add_numbers(made: Builder, block: Block) -> dict[str, np.ndarray]:
    """Add start, end and weight, and return them; NaN: none."""
    found = {key: _numbers(block, key) for key in NUMBERS if key in block.columns}
    none = np.full(len(block.lines), np.nan)
    start, end = (found.get(key, none) for key in ("start", "end"))
    wrong = end <= np.nan_to_num(start)
    for values in found.values():
        wrong |= values < 0
    for i in np.flatnonzero(wrong)[:1].tolist():
        where = block.row(i).where
        for key, values in found.items():
            if values[i] < 0:
                raise ValueError(f"{where}: {key}: wanted 0 or more, got {values[i]:g}")
        raise ValueError(f"{where}: end: wanted more than start, got {end[i]:g}")
    for key, values in found.items():
        made.numbers(key, values)
    return found


def _numbers(block: Block, key: str) -> np.ndarray:
    cells = block.columns[key]
    kinds = set(map(type, cells))
    with contextlib.suppress(ValueError, OverflowError):
        if kinds == {str}:
            found = np.array([float(text or "nan") for text in cells])
            if np.isfinite(found).sum() + cells.count("") == len(cells):
                return found
        elif kinds <= {int, float}:
            found = np.array(cells, np.float64)
            if np.isfinite(found).all():
                return found
    rows = map(block.row, range(len(cells)))
    return np.array([math.nan if (n := row.number(key, float)) is None else n for row in rows])


def _cells(block: Block, name: str, of: Callable[[Any, str], Any]) -> list[str]:
    where = [f"{block.path}, line {line}: {name}" for line in block.lines]
    given = (None if value is ABSENT else value for value in block.columns[name])
    return [cell(of(value, place)) for value, place in zip(given, where, strict=True)]


def _texts(value: Any, where: str) -> str | tuple[str, ...] | None:
    del where
    if isinstance(value, list):
        return tuple(map(str, value)) or None
    return str(value) if value else None


def _several(value: Any, where: str) -> tuple[str, ...] | None:
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{where}: wanted a list of texts, got {value!r}")
    return tuple(map(str, value)) if value else None


def _others(block: Block, names: Sequence[str]) -> list[str]:
    """Return the cells of columns without a meaning, by name, as one cell for each row."""
    parts: list[list[str]] = []
    for name in names:
        cells = block.columns.get(name, [ABSENT] * len(block.lines))
        key = f"{quoted(name)}: "
        parts.append([
            key + quoted(c) if isinstance(c, str) else "" if c is ABSENT else key + json.dumps(c)
            for c in cells
        ])  # fmt: skip
    rows = (", ".join(filter(None, some)) for some in zip(*parts, strict=True))
    return [as_json(f"{{{row}}}") if row else "" for row in rows]
