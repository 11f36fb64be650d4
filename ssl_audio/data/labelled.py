"""A user's labelled clips as parts: training, validation, test. The configs of `finetune:data=…` name it.

Splits that the data has are obeyed; a validation part is made where there is none. Which clip belongs where
depends on the clips alone, so every start of a run makes the same parts.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data import division
from ssl_audio.data.clip_columns import Coded, Columns, Example, distinct
from ssl_audio.data.manifest import GROUPS
from ssl_audio.data.shards import Shards
from ssl_audio.data.source import SPLITS, SourceInfo, coded_labels
from ssl_audio.slots import AnySource

PARTS = ("train", "validation", "test")
_CUT = re.compile(r"(#\d+(\.\d+)?(e[+-]\d+)?)+$")  # of the id of an excerpt


@dataclass(frozen=True)
class Labelled:
    """The labelled clips of another source, or one part of them.

    Rows that name the same stretch of sound are one clip with the labels of all. Clips of one file, and
    those with the same entry in a column of `by`, are in one part. Clips without a label are left out,
    unless clips may have several labels: then they are examples of none.

    Attributes:
      source: of clips that have labels.
      part: "train", "validation" or "test"; "": all.
      share: of the clips that are not for the test, for validation, where the data has none; 0: none.
      by: columns of a table; none: those in `GROUPS` that there are.
      fold: the clips of this fold are the test, where the data has folds and no split; 0: none are.
      several: clips may have several labels, even if each has one, as in the data that a model learns from.

    Raises ValueError on first use when there is no such part, a split has another name, or all clips are
    of one class.
    """

    source: AnySource
    part: str = ""
    share: float = 0.2
    by: tuple[str, ...] = ()
    fold: int = 0
    several: bool = False

    def __post_init__(self):
        if self.part not in ("", *PARTS):
            raise ValueError(f"part: got {self.part!r}, wanted one of {', '.join(PARTS)}")
        if not 0 <= self.share < 1:
            raise ValueError(f"share: wanted 0 to 1, and less than 1, got {self.share:g}")

    @property
    def rate(self) -> int | None:
        """Return the rate that the source was asked for, Hz; None: it has one of its own."""
        return getattr(self.source, "rate", None)

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        return dataclasses.replace(self.source.info, multilabel=self.found.several)

    def __len__(self) -> int:
        return len(self._rows)

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio, without decoding."""
        return self._with(i, self.source.meta(int(self._rows[i])))

    def __getitem__(self, i: int) -> Example:
        return self._with(i, self.source[int(self._rows[i])])

    def open(self, i: int) -> Example:
        """Return example `i`; of long sound what is not decoded yet, where the source has it."""
        get = getattr(self.source, "open", self.source.__getitem__)
        return self._with(i, get(int(self._rows[i])))

    def coded_labels(self) -> Coded:
        """Return the number of each clip's label [N], and the labels that they number."""
        values, codes = distinct(self.found.labels[int(row)] for row in self._rows)
        return codes, values

    @functools.cached_property
    def found(self) -> "Found":
        """Return the clips and their parts."""
        return divided(self.source, self.share, self.by, self.fold, self.several)

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        parts = self.found.parts
        rows = np.concatenate(list(parts.values())) if not self.part else parts[self.part]
        if not len(rows):
            there = ", ".join(f"{name} {len(some)}" for name, some in parts.items())
            raise ValueError(f"{self.source.info.name}: no clip is for {self.part}; {there}")
        return np.sort(rows)

    def _with(self, i: int, example: Example) -> Example:
        row = int(self._rows[i])
        about = {"label": self.found.labels[row]}
        if len(self.found.parts["train"]) < len(self.found.labels):
            about["split"] = self.found.part_of[row]
        if self.found.group_of:
            about["group"] = self.found.group_of[row]
        return {**example, **about}


@dataclass(frozen=True)
class Found:
    """The clips of a collection.

    Attributes:
      parts: name → rows of the source; a clip of several rows has the first.
      part_of: row → name of its part.
      labels: row → label: a number, or a tuple of them.
      several: clips may have several labels.
      group_of: row → number of its group; none: nothing keeps clips together.
      counts: part → clips of each class.
      groups: what keeps clips together, for people; "": nothing.
      given: the parts that the data itself names.
      notes: what people should know, a line each.
    """

    parts: Mapping[str, np.ndarray]
    part_of: Mapping[int, str]
    labels: Mapping[int, Any]
    several: bool
    group_of: Mapping[int, int]
    counts: Mapping[str, np.ndarray]
    groups: str
    given: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> np.ndarray:
        """Return the clips of each class [C]."""
        return np.sum(list(self.counts.values()), axis=0)


def divided(
    source: Any, share: float, by: Sequence[str], fold: int, several: bool = False
) -> Found:
    """Return the clips of a source and their parts; see `Labelled`.

    Raises:
      ValueError: see `Labelled`.
    """
    names, where = source.info.labels, source.info.name
    columns = columns_of(source)
    places = _places(source, columns)
    labels, several, notes = _labels(source, places, where, several)
    rows = np.array(list(labels), np.int64)
    every = [label if isinstance(label, tuple) else (label,) for label in labels.values()]
    present = collections.Counter(n for some in every for n in some)
    if not any(count < len(rows) for count in present.values()):
        kinds = ", ".join(repr(names[n]) for n in present) or "none of the classes"
        raise ValueError(
            f"{where}: wanted two classes or more; all {len(rows)} clips are of one: {kinds}. In a folder "
            "each class is a sub-folder: CLASS/clip.wav, or train/CLASS/clip.wav and test/CLASS/clip.wav; a "
            "table has a column 'label'."
        )
    part, given, said = _given(source, columns, rows, fold, where)
    said += _contradicting(source, columns, places)
    groups, kept = _groups(source, columns, places, rows, by, where)
    notes += said + (_unknown_files(places) if isinstance(source, Shards) and not by else [])
    notes += _straddling(part, groups, kept)
    if share and "validation" not in given:
        mine = np.flatnonzero(part == "train")
        ids = [str(places[row]) for row in rows[mine]]
        chosen = division.held_out([every[i] for i in mine], groups[mine], ids, share)
        part[mine[chosen]] = "validation"
    parts = {name: rows[part == name] for name in PARTS}
    counts = {name: np.zeros(len(names), int) for name in PARTS}
    for name, some in zip(part, every, strict=True):
        counts[name][list(some)] += 1
    if not len(parts["train"]):
        raise ValueError(f"{where}: no clip is left for training; all are for {', '.join(given)}.")
    part_of = dict(zip(rows.tolist(), part.tolist(), strict=True))
    group_of = dict(zip(rows.tolist(), groups.tolist(), strict=True)) if kept else {}
    return Found(parts, part_of, labels, several, group_of, counts, kept, given, tuple(notes))


def _labels(
    source: Any, places: Sequence[Any], where: str, several: bool
) -> tuple[dict[int, Any], bool, list[str]]:
    """Return row → label of each clip, whether clips may have several, and what was left out."""
    codes, values = coded_labels(source)
    merged, notes = 0, []
    found: dict[int, set[int]] = {}
    first: dict[Any, int] = {}
    unlabelled = 0
    for row, code in enumerate(codes.tolist()):
        value = values[code]
        if value is None:
            unlabelled += 1
            continue
        row = first.setdefault(places[row], row)
        merged += row in found
        found.setdefault(row, set()).update(value if isinstance(value, tuple) else (value,))
    if not found:
        raise ValueError(
            f"{where}: none of its {len(codes)} clips has a label. In a folder, the name of a clip's "
            "sub-folder is its label; a table has a column 'label', or 'labels' for several."
        )
    several |= source.info.multilabel or any(len(some) > 1 for some in found.values())
    if unlabelled:
        notes.append(f"{unlabelled} of {len(codes)} clips have no label and are left out")
    if merged:
        what = "its labels together" if several else "the same label again"
        notes.append(f"{merged} rows name a clip that an earlier row names: one clip, with {what}")
    if several and (none := sum(not some for some in found.values())):
        notes.append(f"{none} clips have no label: examples of none of the classes")
    if not several:
        return {row: min(some) for row, some in found.items()}, False, notes
    return {row: tuple(sorted(some)) for row, some in found.items()}, True, notes


def _given(
    source: Any, columns: Columns | None, rows: np.ndarray, fold: int, where: str
) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Return the part [n] of each clip as the data says it, and the parts that it names."""
    codes, values = coded(source, columns, "split")
    known = [SPLITS.get(str(value).strip().lower()) if value else "" for value in values]
    used = np.unique(codes[rows]).tolist()
    if odd := sorted({str(values[code]) for code in used if known[code] is None}):
        raise ValueError(
            f"{where}: split {', '.join(map(repr, odd))}: wanted {', '.join(PARTS)} (or one of "
            f"{', '.join(sorted(set(SPLITS) - set(PARTS)))})."
        )
    split = np.array([value or "" for value in known], object)[codes[rows]]
    named, notes = tuple(name for name in PARTS if (split == name).any()), []
    if "train" not in named and set(named) - {"train"} and not (split == "").any():
        raise ValueError(f"{where}: its splits are {', '.join(named)}; none is for training.")
    if named and (bare := int((split == "").sum())):
        notes.append(f"{bare} clips have no split, others do: they are used for training")
    split[split == ""] = "train"
    if not fold:
        return split, named, notes
    codes, values = coded(source, columns, "fold")
    folds = np.array([-1 if value is None else int(value) for value in values])[codes[rows]]
    there = sorted({int(f) for f in folds if f >= 0})
    if "test" in named or fold not in there:
        why = "it has a split 'test'" if "test" in named else f"its folds are {there or 'none'}"
        raise ValueError(f"{where}: fold {fold} cannot be the test: {why}.")
    split[folds == fold] = "test"
    return split, (*named, "test"), notes


def _contradicting(source: Any, columns: Columns | None, places: Sequence[Any]) -> list[str]:
    """Return a note about clips of which several rows say different splits or folds."""
    notes = []
    for name in ("split", "fold"):
        codes, values = coded(source, columns, name)
        first: dict[Any, Any] = {}
        odd = {
            place
            for place, code in zip(places, codes.tolist(), strict=True)
            if first.setdefault(place, values[code]) != values[code]
        }
        if odd:
            few = str(next(p for p in places if p in odd))
            notes.append(
                f"{len(odd)} clips have rows with different entries in '{name}', as {few}: that of the first "
                "row counts"
            )
    return notes


def _groups(
    source: Any,
    columns: Columns | None,
    places: Sequence[Any],
    rows: np.ndarray,
    by: Sequence[str],
    where: str,
) -> tuple[np.ndarray, str]:
    """Return the number of each clip's group [n], and by what they are kept together."""
    files = [place[0] if isinstance(place, tuple) else place for place in places]
    several = len(set(files)) < len(set(places))
    keys: dict[str, list[Any]] = {"file": [files[row] for row in rows]} if several else {}
    metas: list[Mapping[str, Any]] = []
    if columns is None or "columns" in {name.partition(".")[0] for name in columns.arrays}:
        metas = [source.meta(int(row)).get("columns") or {} for row in rows]
    there = {name.lower(): name for meta in metas for name in meta}
    for name in by or [there[name] for name in GROUPS if name in there]:
        if name not in there.values():
            raise ValueError(
                f"{where}: no column {name!r} to keep clips together by; there are "
                f"{', '.join(there.values()) or 'none beside the known ones'}."
            )
        keys[name] = [meta.get(name) for meta in metas]
    return division.together(list(keys.values()), len(rows)), ", ".join(keys)


def _straddling(part: np.ndarray, groups: np.ndarray, kept: str) -> list[str]:
    """Return a note about groups that the data's own splits cut, which is obeyed."""
    parts = collections.defaultdict(set)
    for group, name in zip(groups.tolist(), part.tolist(), strict=True):
        parts[group].add(name)
    cut = sum(len(names) > 1 for names in parts.values())
    return [f"{cut} groups (by {kept}) are in several of the data's own splits"] if cut else []


def _unknown_files(places: Sequence[Any]) -> list[str]:
    """Return a note about shards of an earlier version, which do not say what their clips were cut out of."""
    named = [place for place in places if isinstance(place, str)]
    files = {_CUT.sub("", name) for name in named}
    if not any(map(_CUT.search, named)) or len(files) == len(set(named)):
        return []
    return [
        f"{len(set(named))} clips are, by their names, of {len(files)} recordings, and clips of "
        "one may be in several parts: prepare them again, and they are kept together"
    ]


def columns_of(source: Any) -> Columns | None:
    """Return the columns that a source keeps its clips' metadata in; None: it has none."""
    found = getattr(getattr(source, "clips", None), "columns", getattr(source, "columns", None))
    return found if isinstance(found, Columns) else None


def coded(source: Any, columns: Columns | None, name: str) -> Coded:
    """Return the number of each clip's split or fold [N], and the values; None: unknown."""
    if columns is not None:
        return columns.coded(name)
    values, codes = distinct(source.meta(i).get(name) for i in range(len(source)))
    return codes, values


def first_rows(source: Any) -> np.ndarray:
    """Return of each row [N] the first one that names the same stretch of sound."""
    first: dict[Any, int] = {}
    places = _places(source, columns_of(source))
    return np.array([first.setdefault(place, row) for row, place in enumerate(places)], np.int64)


def _places(source: Any, columns: Columns | None) -> list[Any]:
    """Return what tells stretches of sound apart [N]: path, start and end, or else the id."""
    if columns is None or "path" not in columns.arrays:
        return [source.meta(i)["id"] for i in range(len(source))]
    paths = columns.texts("path")
    if not {"start", "end"} & set(columns.arrays):
        return list(paths)
    start, end = (columns.number(name) for name in ("start", "end"))
    start = np.nan_to_num(start)
    return list(
        zip(paths, start.tolist(), [None if e != e else e for e in end.tolist()], strict=True)
    )
