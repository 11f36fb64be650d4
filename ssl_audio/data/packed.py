"""Sources whose sound lies in larger files: what `arrow.py` and `webdataset.py` share.

A subclass says what each clip is, once, and gives the content of one; its fields choose splits and folds.
"""

import abc
import collections
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_audio.data import names as spelling
from ssl_audio.data.channels import check_channels
from ssl_audio.data.clip_columns import Coded, Columns, Example, in_columns, many_objects
from ssl_audio.data.decode import DecodeError, decode
from ssl_audio.data.source import SPLITS, SourceInfo, chosen
from ssl_audio.storage import opened

# Columns of tables and keys of JSON that hold captions.
TEXTS = ("text", "caption", "captions", "sentence", "transcription", "transcript")
MEANT = ("label", "labels", "fold", "split", "id", "weight", *TEXTS)


class Listed(NamedTuple):
    """What a collection holds.

    Attributes:
      info: what it is.
      fields: of `clip_columns.FIELDS`, and "path": one value for each clip; None: unknown.
      size: clips.
    """

    info: SourceInfo
    fields: Mapping[str, Sequence[Any]]
    size: int


class Packed(abc.ABC):
    """A source of clips inside larger files: subclasses are frozen dataclasses."""

    rate: int
    split: str
    folds: tuple[int, ...]
    channels: str

    @abc.abstractmethod
    def listed(self) -> Listed:
        """Look at the files: return what the collection is and all of its clips, in a fixed order."""

    @abc.abstractmethod
    def content(self, row: int) -> bytes | str:
        """Return the content of a clip's sound, or the path of its file.

        Raises:
          DecodeError: it has none, or it cannot be read.
        """

    @abc.abstractmethod
    def place(self, row: int) -> str:
        """Return where a clip's sound lies, for messages."""

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        return self._found[0]

    @property
    def columns(self) -> Columns:
        """What is known of the clips, in columns."""
        return self._clips

    def __len__(self) -> int:
        return self._clips.size

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio."""
        return {"rate": self.rate, **self._clips.meta(i)}

    def coded_labels(self) -> Coded:
        """Return the number of each clip's label [N], and the labels that they number; None: none."""
        return self._clips.coded("label")

    def digest(self) -> str:
        """Return what differs between collections, wherever they lie."""
        return self._clips.digest(self.rate, lambda columns, rows: columns.cells("id", rows))

    def __getitem__(self, i: int) -> Example:
        row = self._clips.row(i)
        try:
            audio = decode(self.content(row), self.rate, channels=self.channels)
        except DecodeError as error:
            raise DecodeError(f"{self.place(row)}: {error}") from error
        return {"audio": audio, **self.meta(i)}

    @functools.cached_property
    def _found(self) -> tuple[SourceInfo, Columns]:
        check_channels(self.channels)
        with many_objects():
            info, fields, size = self.listed()
            return info, in_columns(fields, size)

    @functools.cached_property
    def _clips(self) -> Columns:
        clips = self._found[1]
        if not clips.size:
            raise ValueError(f"{self.info.name}: its files hold no rows.")
        splits, folds = clips.coded("split"), clips.coded("fold")
        kept = chosen(splits, lambda value: not self.split or value == self.split)
        kept &= chosen(folds, lambda value: not self.folds or value in self.folds)
        if not kept.any():
            there = (sorted({str(value) for value in some[1]}) for some in (splits, folds))
            have, numbers = map(", ".join, there)
            raise ValueError(
                f"{self.info.name}: no clip has split={self.split!r} and a fold in {self.folds}; the splits "
                f"are {have} and the folds {numbers}"
            )
        return clips if kept.all() else clips.kept(np.flatnonzero(kept))


def numbered(
    values: Sequence[Any], names: Sequence[str], where: Callable[[int], str]
) -> tuple[list[Any], tuple[str, ...], bool]:
    """Return the labels of clips as numbers, the names that they number, and whether clips have several.

    Args:
      values: for each clip a name, a number, a list of them, or None.
      names: in the order of their numbers; none: those there are, sorted, a number by its digits.
      where: returns where the value of a clip stands, for messages.

    Raises:
      ValueError: a name or number that is not among `names`; lists of zeros and ones for all classes;
        something else.
    """
    lists = [value for value in values if isinstance(value, (list, tuple))]
    several = bool(lists)
    if any(len(some) > len(set(some)) for some in lists if _zeros_and_ones(some)) and all(
        map(_zeros_and_ones, lists)
    ):
        first = next(i for i, value in enumerate(values) if isinstance(value, (list, tuple)))
        raise opened.error(
            where(first), f"label {opened.short(values[first])}", "the numbers or names of a clip's classes",
            "Zeros and ones for all classes are not read: list the numbers of those that are 1.",
        )  # fmt: skip
    known = {name: i for i, name in enumerate(names)}

    def name_of(value: Any, i: int) -> str | None:
        if isinstance(value, float):  # a column with gaps
            value = None if value != value else int(value) if value.is_integer() else value
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is None or value == "" or (whole and names and value == -1):
            return None  # -1 stands for unknown where numbers have names
        if whole and names:
            if not 0 <= value < len(names):
                raise opened.error(where(i), f"label {value}", f"0 to {len(names) - 1}")
            return names[value]
        if not whole and not isinstance(value, str):
            raise opened.error(
                where(i), f"label {opened.short(value)}", "a name, a number, or a list"
            )
        name = str(value).strip()
        if names and name not in known:
            few = ", ".join(list(known)[:5])
            raise opened.error(where(i), f"label {name!r}", f"one of {len(known)} names ({few}, …)")
        return name

    found: list[Any] = []
    for i, value in enumerate(values):
        some = value if isinstance(value, (list, tuple)) else [value]
        found.append([name for part in some if (name := name_of(part, i)) is not None])
    if not names:
        names = sorted({name for some in found for name in some}, key=spelling.natural)
        known = {name: i for i, name in enumerate(names)}
    labels: list[Any] = []
    for value, some in zip(values, found, strict=True):
        numbers = tuple(sorted({known[name] for name in some}))
        unknown = not numbers and not isinstance(value, (list, tuple))
        labels.append(None if unknown else numbers if several else numbers[0])
    return labels, tuple(names), several


def _zeros_and_ones(some: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and value in (0, 1) for value in some)


def captions(value: Any, where: str) -> str | tuple[str, ...] | None:
    """Return a caption, or several; None: there is none.

    Raises:
      ValueError: it is no text.
    """
    if value is None or value == "" or value == []:
        return None
    some = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(text, str) for text in some):
        raise opened.error(where, opened.short(value), "a text, or a list of texts")
    return tuple(some) if isinstance(value, (list, tuple)) else value


def fold(value: Any, where: str) -> int | None:
    """Return the number of a fold; None: there is none.

    Raises:
      ValueError: it is no whole number.
    """
    if value is None or value == "" or value != value:
        return None
    try:
        found = int(value)
        if isinstance(value, bool) or found != float(value):
            raise ValueError
    except (TypeError, ValueError):
        raise opened.error(f"{where}: fold", opened.short(value), "a whole number") from None
    return found


def split(value: Any) -> str | None:
    """Return the usual name of a split, another name as it is; None: there is none."""
    if value is None or value == "":
        return None
    return SPLITS.get(str(value).strip().lower(), str(value))


def unique(ids: Sequence[str | None], where: Callable[[int], str]) -> list[str]:
    """Return the ids if all are there and differ, else all with their places, which may repeat."""
    if all(ids) and len(set(ids)) == len(ids):
        return [str(id) for id in ids]
    found, seen = [], collections.Counter()
    for i, id in enumerate(ids):
        name = f"{where(i)}{f':{id}' if id else ''}"
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return found


def others(row: Mapping[str, Any], used: Sequence[str]) -> dict[str, Any] | None:
    """Return the plain values of a row that have no meaning here."""
    kinds = (str, int, float, bool)
    found = {
        key: value
        for key, value in row.items()
        if key not in used and isinstance(value, kinds) and value == value
    }
    return found or None
