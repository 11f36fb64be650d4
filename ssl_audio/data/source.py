"""What a source of sound is, and the readers of plain audio files: a folder, a manifest.

A source is a frozen description that config can build; it looks at the disk when first used, and
it pickles. The others: `shards.py`, `tfds.py`, `synthetic.py`, `sets/`. `pipeline.py` reads all.
"""

import abc
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ssl_audio.data import names as spelling
from ssl_audio.data import tables
from ssl_audio.data.channels import check_channels
from ssl_audio.data.decode import decode, printable, read
from ssl_audio.data.listing import EXTENSIONS, audio_files

log = logging.getLogger(__name__)

Example = dict[str, Any]
Label = int | tuple[int, ...]


@dataclass(frozen=True)
class SourceInfo:
    """What a collection is, apart from its sound."""

    name: str
    labels: tuple[str, ...] = ()  # names, in the order of the label numbers
    licence: str = "unknown"
    citation: str = ""
    url: str = ""
    multilabel: bool = False  # a clip's label is a tuple of numbers
    left_out: str = ""  # of the files of a folder: how many of which endings are not taken


class Source(Protocol):
    """Random access to clips: a Grain data source whose examples are dictionaries.

    An example has `audio` (float32 mono [S], in [-1, 1]), `rate` (Hz) and `id`, and where known
    `label`, `fold`, `split`, `text` (a caption or a tuple of them), `rewrites`, `negatives`, `weight`.
    A source may also have `open(i)`: the example with sound that is not all decoded; see `Files.open`.
    """

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Example: ...

    def meta(self, i: int, /) -> Example:
        """Return all of example `i` but its audio, without decoding."""
        ...


# What is known of a clip beside its audio: columns of a shard's index, entries of an example.
FIELDS = ("id", "label", "fold", "split", "text", "rewrites", "negatives", "weight", "columns")
# The columns of a manifest that mean something.
COLUMNS = (*FIELDS[:-1], "path", "start", "end", "labels")
# Folders that are parts of a collection, not classes → the split that their clips have.
SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test",
    "evaluation": "test", "val": "validation", "valid": "validation", "validation": "validation",
    "dev": "validation",
}  # fmt: skip


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


class Files(abc.ABC):
    """A source that is a list of `Clip`: subclasses are frozen dataclasses that say which."""

    rate: int
    channels = (
        "average"  # how several become one: see `data/channels.py`; subclasses may make it a field
    )

    @abc.abstractmethod
    def scan(self) -> tuple[SourceInfo, list[Clip]]:
        """Look at the disk: return what the collection is and its clips, in a fixed order."""

    @functools.cached_property
    def _found(self) -> tuple[SourceInfo, list[Clip]]:
        check_channels(self.channels)
        return self.scan()

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        return self._found[0]

    @property
    def clips(self) -> list[Clip]:
        """Return all clips."""
        return self._found[1]

    def __len__(self) -> int:
        return len(self.clips)

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio, without decoding."""
        return {"rate": self.rate, **self.clips[i].meta()}

    def __getitem__(self, i: int) -> Example:
        clip = self.clips[i]
        return {"audio": decode(*self._excerpt(clip), channels=self.channels), **self.meta(i)}

    def open(self, i: int) -> Example:
        """Return example `i`; sound longer than a minute as `LongAudio`, decoded where it is looked at."""
        return {
            "audio": read(*self._excerpt(self.clips[i]), channels=self.channels),
            **self.meta(i),
        }

    def _excerpt(self, clip: Clip) -> tuple[str, int, float, float | None]:
        return clip.path, self.rate, clip.start, clip.end


@dataclass(frozen=True)
class Folder(Files):
    """All audio files under `root`, sorted; the name of the sub-folder of `root` is the label.

    Where every sub-folder is named like a part of a collection (train, test, val, …), that is the clip's
    split, and the label is the folder below. Labels are numbered in the order of whole numbers, then names.

    Raises ValueError on first use when `root` is missing or holds no audio.
    """

    root: str
    rate: int = 16_000  # Hz
    name: str = ""  # default: the folder's own name
    channels: str = "average"  # or "first", "loudest"

    def scan(self) -> tuple[SourceInfo, list[Clip]]:  # noqa: D102
        root = folder(self.root, "Folder.root")
        paths = audio_files(root)
        if not paths:
            kinds = " ".join(sorted(EXTENSIONS))
            left_out = f"; left out: {paths.summary}" if paths.summary else ""
            raise ValueError(
                f"Folder.root: no audio file under {root}{left_out} (looked for {kinds})"
            )
        ids = [printable(path.relative_to(root)) for path in paths]
        folders = [id.split("/")[:-1] for id in ids]
        tops = {some[0].lower() if some else "" for some in folders}
        depth = int(tops <= set(SPLITS))
        parts = {top for top in tops if SPLITS.get(top) in ("train", "test")}
        if not depth and {SPLITS[top] for top in parts} == {"train", "test"}:
            others = sorted(top or "files beside them" for top in tops - set(SPLITS))
            log.warning(
                "%s: %s look like parts of the data, but are taken for classes, as there is also %s: keep "
                "those elsewhere if they are parts", root, ", ".join(sorted(parts)), ", ".join(others[:5]),
            )  # fmt: skip
        names = [some[depth] if len(some) > depth else None for some in folders]
        labels = tuple(sorted({name for name in names if name is not None}, key=spelling.natural))
        number = {label: i for i, label in enumerate(labels)}
        clips = [
            Clip(
                str(path),
                id,
                label=None if name is None else number[name],
                split=SPLITS[some[0].lower()] if depth else None,
            )
            for path, id, name, some in zip(paths, ids, names, folders, strict=True)
        ]
        info = SourceInfo(self.name or root.name, labels, left_out=paths.summary)
        return info, clips


@dataclass(frozen=True)
class Manifest(Files):
    """The rows of a CSV, TSV or JSON-lines file.

    Columns: `path` (needed; relative to `root`), `start` and `end` (s), `label` or `labels`
    (several: separated by ";", or else by ",", or a list in JSON), `text` (a caption; in JSON also a list of
    them), `rewrites` and `negatives` (lists, JSON only), `weight` (0 or more), `fold`, `split`, `id`. Others
    are kept as `columns` and not used.

    Raises ValueError on first use, naming file and line, when a row cannot be understood.
    """

    path: str
    root: str = ""  # default: the manifest's folder
    rate: int = 16_000  # Hz
    split: str = ""  # keep this split only
    folds: tuple[int, ...] = ()  # keep these folds only
    labels: tuple[str, ...] = ()  # names in the order of their numbers; default: sorted
    name: str = ""
    channels: str = "average"  # or "first", "loudest"

    def scan(self) -> tuple[SourceInfo, list[Clip]]:  # noqa: D102
        path = pathlib.Path(self.path).expanduser()
        if not path.is_file():
            raise ValueError(f"Manifest.path: no such file: {path}")
        root = folder(self.root, "Manifest.root") if self.root else path.parent
        table = list(tables.read(path, need=("path",)))
        unused = tables.tell_unused(table, COLUMNS, str(path))
        multi = any(row.get("labels") not in (None, "") for row in table)
        if multi and any(row.get("label") not in (None, "") for row in table):
            raise ValueError(f"{path}: both 'label' and 'labels' are filled in; keep one of them")
        names = (
            spelling.several(table, "labels", self.labels, str(path))
            if multi
            else [_label(row.get("label"), row.where) for row in table]
        )
        present = sorted({name for some in names for name in some}, key=spelling.natural)
        labels = self.labels or tuple(present)
        number = {label: i for i, label in enumerate(labels)}
        clips = []
        for row, some in zip(table, names, strict=True):
            where = row.where
            file = row.get("path")
            if not file:
                raise ValueError(f"{where}: no 'path'; the columns are {', '.join(map(str, row))}")
            if not isinstance(file, str):
                raise ValueError(f"{where}: path: wanted a text, got {file!r}")
            if file != file.strip() and not (root / file).exists():
                file = file.strip()
            for label in some:
                if label not in number:
                    raise ValueError(f"{where}: label {label!r} is not one of {labels}")
            numbers = tuple(sorted({number[label] for label in some}))
            start, end, weight = (row.number(key, float) for key in ("start", "end", "weight"))
            for key, value in (("weight", weight), ("start", start), ("end", end)):
                if value is not None and value < 0:
                    raise ValueError(f"{where}: {key}: wanted 0 or more, got {value:g}")
            if end is not None and end <= (start or 0.0):
                raise ValueError(f"{where}: end: wanted more than start, got {end:g}")
            span = "" if start is None and end is None else f"#{start or 0.0:g}"
            clips.append(
                Clip(
                    path=str(root / file),
                    id=str(row.get("id") or f"{file}{span}"),
                    label=numbers if multi else (numbers[0] if numbers else None),
                    fold=row.number("fold", int),
                    split=str(row["split"]).strip() if row.get("split") else None,
                    text=_texts(row.get("text")),
                    rewrites=_several(row, "rewrites", where),
                    negatives=_several(row, "negatives", where),
                    weight=weight,
                    columns={key: row[key] for key in unused if key in row} or None,
                    start=start or 0.0,
                    end=end,
                )
            )
        info = SourceInfo(self.name or path.stem, labels, multilabel=multi)
        return info, keep(clips, str(path), self.split, self.folds)


@dataclass(frozen=True)
class Renumbered:
    """A source whose labels are numbered as in another collection, by their names.

    Raises ValueError when made, where the source has names that `labels` lacks.
    """

    source: Any  # a Source
    labels: tuple[str, ...]

    def __post_init__(self):
        if other := [name for name in self.source.info.labels if name not in self.labels]:
            raise ValueError(
                f"{self.source.info.name}: classes {', '.join(map(repr, other))} are not among those of "
                f"training, {', '.join(map(repr, self.labels))}"
            )

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is, with the names of the other one."""
        return dataclasses.replace(self.source.info, labels=self.labels)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Example:
        return self._renumbered(self.source[i])

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio, without decoding."""
        return self._renumbered(self.source.meta(i))

    @functools.cached_property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(self.labels.index(name) for name in self.source.info.labels)

    def _renumbered(self, example: Example) -> Example:
        label = example.get("label")
        if label is None:
            return example
        several = isinstance(label, tuple)
        found = tuple(sorted(self._numbers[n] for n in label)) if several else self._numbers[label]
        return {**example, "label": found}


def by_names(source: Any, labels: tuple[str, ...]) -> Any:
    """Return a source whose labels have the numbers of these names; one without names as it is.

    Raises:
      ValueError: see `Renumbered`.
    """
    same = not labels or source.info.labels in ((), labels)
    return source if same else Renumbered(source, labels)


def digest(metas: Iterable[Example]) -> str:
    """Return what differs between collections, wherever they lie: a digest of the metadata of all clips."""
    found = hashlib.sha256(b"[")
    for number, meta in enumerate(metas):
        found.update(f"{', ' if number else ''}{json.dumps(meta)}".encode())
    found.update(b"]")
    return found.hexdigest()


def folder(root: str | os.PathLike, field: str) -> pathlib.Path:
    """Return `root` as a path; ValueError naming `field` unless it is a folder."""
    path = pathlib.Path(root).expanduser()
    if not path.is_dir():
        raise ValueError(f"{field}: no such folder: {path}")
    return path


def keep(clips: list[Clip], where: str, split: str = "", folds: Sequence[int] = ()) -> list[Clip]:
    """Return the clips of a split and of some folds; ValueError if none is left."""
    kept = [
        clip
        for clip in clips
        if (not split or clip.split == split) and (not folds or clip.fold in folds)
    ]
    if not kept:
        splits = sorted({str(clip.split) for clip in clips})
        have = sorted({str(clip.fold) for clip in clips})
        raise ValueError(
            f"{where}: no clip has split={split!r} and a fold in {tuple(folds)}; "
            f"the splits are {', '.join(splits)} and the folds {', '.join(have)}"
        )
    return kept


def multi_hot(label: Label, classes: int) -> np.ndarray:
    """Return float32 [C] with ones at the label or labels."""
    target = np.zeros(classes, np.float32)
    target[list(label) if isinstance(label, tuple) else [label]] = 1.0
    return target


def _texts(value: Any) -> str | tuple[str, ...] | None:
    if isinstance(value, list):
        return tuple(map(str, value)) or None
    return str(value) if value else None


def _label(value: Any, where: str) -> list[str]:
    if isinstance(value, (list, tuple, dict)):
        raise ValueError(f"{where}: label: got {value!r}, wanted one; write several as 'labels'")
    name = spelling.text(value)
    return [name] if name else []


def _several(row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...] | None:
    value = row.get(key)
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{where}: {key}: wanted a list of texts, got {value!r}")
    return tuple(map(str, value)) if value else None
