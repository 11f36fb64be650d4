"""What a source of sound is, and the readers of plain audio files: a folder, a manifest.

A source is a frozen description that config can build; it looks at the disk when first used, and
it pickles. The others: `shards.py`, `tfds.py`, `synthetic.py`, `sets/`. `pipeline.py` reads all.
"""

import abc
import dataclasses
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ssl_audio.data import manifest
from ssl_audio.data import names as spelling
from ssl_audio.data.channels import check_channels
from ssl_audio.data.clip_columns import (
    FIELDS,
    Builder,
    Coded,
    Example,
    Label,
    cell,
    digest,
    distinct,
)
from ssl_audio.data.clips import Clip, Clips
from ssl_audio.data.decode import decode, printable, read
from ssl_audio.data.listing import EXTENSIONS, audio_files, audio_names
from ssl_audio.slots import AnySource

__all__ = ["FIELDS", "audio_files", "Clip", "Clips", "Coded", "Example", "Label", "digest"]

log = logging.getLogger(__name__)


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
    `label`, `fold`, `split`, `text` (a caption or a tuple of them), `rewrites`, `negatives`, `weight`; of
    plain files `root`, the folder that paths in its `columns` are relative to, and how `channels` become one.
    A source may also have `open(i)`: the example with sound that is not all decoded; and, where it knows
    them without looking at each clip, `coded_labels()` and `digest()`: see `Files`.
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


# Folders that are parts of a collection, not classes → the split that their clips have.
SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test", "eval": "test",
    "evaluation": "test", "val": "validation", "valid": "validation", "validation": "validation",
    "dev": "validation",
}  # fmt: skip


class Files(abc.ABC):
    """A source that is a list of `Clip`: subclasses are frozen dataclasses that say which."""

    rate: int
    channels = (
        "average"  # how several become one: see `data/channels.py`; subclasses may make it a field
    )

    @abc.abstractmethod
    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:
        """Look at the disk: return what the collection is and its clips, in a fixed order."""

    @functools.cached_property
    def _found(self) -> tuple[SourceInfo, Clips]:
        check_channels(self.channels)
        info, clips = self.scan()
        return info, Clips.of(clips)

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        return self._found[0]

    @property
    def clips(self) -> Clips:
        """Return all clips."""
        return self._found[1]

    def __len__(self) -> int:
        return len(self.clips)

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio, without decoding."""
        return {"rate": self.rate, **self.clips[i].meta()}

    def __getitem__(self, i: int) -> Example:
        clip = self.clips[i]
        audio = decode(*self._excerpt(clip), channels=self.channels)
        return {"audio": audio, **self._place(clip), **self.meta(i)}

    def open(self, i: int) -> Example:
        """Return example `i`; sound longer than a minute as `LongAudio`, decoded where it is looked at."""
        clip = self.clips[i]
        audio = read(*self._excerpt(clip), channels=self.channels)
        return {"audio": audio, **self._place(clip), **self.meta(i)}

    def coded_labels(self) -> Coded:
        """Return the number of each clip's label [N], and the labels that they number; None: none."""
        return Clips.of(self.clips).columns.coded("label")  # a subclass may give a list

    def digest(self) -> str:
        """Return what differs between collections, wherever they lie."""
        return Clips.of(self.clips).digest(self.rate)

    def _place(self, clip: Clip) -> dict[str, Any]:
        """Return where the sound lies, and how it is read, for what is read beside it."""
        where = {"root": self.clips.root, "path": clip.path, "start": clip.start}
        return {**where, "channels": self.channels}

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
    split: str = ""  # keep this split only

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        root = folder(self.root, "Folder.root")
        files, listed = audio_names(root)
        if not files:
            kinds = " ".join(sorted(EXTENSIONS))
            left_out = f"; left out: {listed.summary}" if listed.summary else ""
            raise ValueError(
                f"Folder.root: no audio file under {root}{left_out} (looked for {kinds})"
            )
        ids = files if all(map(str.isascii, files)) else list(map(printable, files))
        inside, codes = distinct(id.rpartition("/")[0] for id in ids)
        folders = [folder.split("/") if folder else [] for folder in inside]
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
        made = Builder()
        made.cells("path", files)
        if ids is not files:
            made.cells("id", ids)
        made.codes("label", codes)
        made.codes("split", codes)
        made.end(len(files))
        columns = made.finish({
            "label": [cell(None if name is None else number[name]) for name in names],
            "split": [SPLITS[some[0].lower()] if depth else "" for some in folders],
        })  # fmt: skip
        info = SourceInfo(self.name or root.name, labels, left_out=listed.summary)
        return info, keep(Clips(columns, f"{root / '_'}"[:-1]), str(root), self.split)


@dataclass(frozen=True)
class Manifest(Files):
    """The rows of a CSV, TSV or JSON-lines file.

    Columns: `path` (needed; relative to `root`), `start` and `end` (s), `label` or `labels`
    (several: separated by ";", or else by ",", or a list in JSON), `text` (a caption; in JSON also a list of
    them), `rewrites` and `negatives` (lists, JSON only), `weight` (0 or more), `fold`, `split`, `id`. Others
    are kept as `columns`: entries of a batch name them, as `image`, `features`, `positive`, `negative`.

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

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        path = pathlib.Path(self.path).expanduser()
        if not path.is_file():
            there = "a folder (of sounds by class: set `folder`), not a table"
            what = there if path.is_dir() else "no such file"
            raise ValueError(f"Manifest.path: {what}: {path}")
        root = folder(self.root, "Manifest.root") if self.root else path.parent
        found = manifest.read(path, root, self.labels)
        info = SourceInfo(self.name or path.stem, found.labels, multilabel=found.several)
        return info, keep(found.clips, str(path), self.split, self.folds)


@dataclass(frozen=True)
class Over(abc.ABC):
    """The clips of another source, under their numbers and names; a subclass says what each becomes."""

    source: AnySource

    @property
    def info(self) -> SourceInfo:
        """Return what the other source is."""
        return self.source.info

    def __len__(self) -> int:
        return len(self.source)

    @abc.abstractmethod
    def __getitem__(self, i: int) -> Example: ...

    def meta(self, i: int) -> Example:
        """Return all of example `i` that is not decoded."""
        return self.source.meta(i)


@dataclass(frozen=True)
class Renumbered:
    """A source whose labels are numbered as in another collection, by their names.

    Raises ValueError when made, where the source has names that `labels` lacks.
    """

    source: AnySource
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

    def open(self, i: int) -> Example:
        """Return example `i`; of long sound what is not decoded yet, where the source has it."""
        return self._renumbered(getattr(self.source, "open", self.source.__getitem__)(i))

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


def folder(root: str | os.PathLike, field: str) -> pathlib.Path:
    """Return `root` as a path; ValueError naming `field` unless it is a folder."""
    path = pathlib.Path(root).expanduser()
    if not path.is_dir():
        raise ValueError(f"{field}: no such folder: {path}")
    return path


def table(root: pathlib.Path, names: Sequence[str], field: str) -> str:
    """Return the first of some names that is a file in `root`.

    Raises:
      ValueError: none is, naming `field`, and the folder in `root` that has one: of an unpacked archive.
    """
    there = next((name for name in names if (root / name).is_file()), "")
    if there:
        return there
    wanted = " or ".join(names)
    found = next((path for name in names for path in sorted(root.glob(f"*/{name}"))), None)
    near = found and root / found.relative_to(root).parts[0]
    raise ValueError(f"{field}: no {wanted} in {root}" + (f"; {near} has it" if near else ""))


def keep(clips: Sequence[Clip], where: str, split: str = "", folds: Sequence[int] = ()) -> Clips:
    """Return the clips of a split and of some folds; ValueError if none is left."""
    all_of = Clips.of(clips)
    splits, folds_there = (all_of.columns.coded(name) for name in ("split", "fold"))
    kept = chosen(splits, lambda value: not split or value == split)
    kept &= chosen(folds_there, lambda value: not folds or value in folds)
    if not kept.any():
        there = (
            sorted({str(values[code]) for code in np.unique(codes).tolist()})
            for codes, values in (splits, folds_there)
        )
        have, numbers = map(", ".join, there)
        raise ValueError(
            f"{where}: no clip has split={split!r} and a fold in {tuple(folds)}; "
            f"the splits are {have} and the folds {numbers}"
        )
    return all_of if kept.all() else all_of.kept(np.flatnonzero(kept))


def chosen(coded: Coded, wanted: Callable[[Any], bool]) -> np.ndarray:
    """Return [N], which clips have a value that is wanted."""
    codes, values = coded
    return np.array([wanted(value) for value in values], bool)[codes]


def coded_labels(source: Any) -> Coded:
    """Return the number of each clip's label [N], and the labels that they number; None: none."""
    if _knows(source, "coded_labels"):
        return source.coded_labels()
    values, codes = distinct(source.meta(i).get("label") for i in range(len(source)))
    return codes, values


def content(source: Any) -> str:
    """Return what differs between collections, wherever they lie: `digest` of the metadata of all clips."""
    if _knows(source, "digest"):
        return source.digest()
    return digest(source.meta(i) for i in range(len(source)))


def _knows(source: Any, method: str) -> bool:
    """Tell whether a method of a source agrees with its `meta`: a subclass may have changed only that."""
    kinds = (vars(kind) for kind in type(source).__mro__)
    return method in next((names for names in kinds if method in names or "meta" in names), ())


def multi_hot(label: Label, classes: int) -> np.ndarray:
    """Return float32 [C] with ones at the label or labels."""
    target = np.zeros(classes, np.float32)
    target[list(label) if isinstance(label, tuple) else [label]] = 1.0
    return target
