"""What a source of sound is, and the readers of plain audio files: a folder, a manifest.

A source is a frozen description that config can build; it looks at the disk when first used, and
it pickles. The others: `shards.py`, `tfds.py`, `synthetic.py`, `sets/`. `pipeline.py` reads all.
"""

import abc
import csv
import functools
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ssl_audio.data.decode import decode

EXTENSIONS = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aiff .aif .aifc .au .snd .caf .w64 .rf64".split()
)

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


class Source(Protocol):
    """Random access to clips: a Grain data source whose examples are dictionaries.

    An example has `audio` (float32 mono [S], in [-1, 1]), `rate` (Hz) and `id`, and where known
    `label`, `fold`, `split`, `text` (a caption or a tuple of them), `rewrites`, `negatives`, `weight`.
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
FIELDS = ("id", "label", "fold", "split", "text", "rewrites", "negatives", "weight")


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
    start: float = 0.0  # seconds
    end: float | None = None

    def meta(self) -> Example:
        """Return the known fields of an example."""
        known = {k: getattr(self, k) for k in FIELDS}
        return {k: v for k, v in known.items() if v is not None}


class Files(abc.ABC):
    """A source that is a list of `Clip`: subclasses are frozen dataclasses that say which."""

    rate: int

    @abc.abstractmethod
    def scan(self) -> tuple[SourceInfo, list[Clip]]:
        """Look at the disk: return what the collection is and its clips, in a fixed order."""

    @functools.cached_property
    def _found(self) -> tuple[SourceInfo, list[Clip]]:
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
        return {"audio": decode(clip.path, self.rate, clip.start, clip.end), **self.meta(i)}


@dataclass(frozen=True)
class Folder(Files):
    """All audio files under `root`, sorted; the name of the sub-folder of `root` is the label.

    Raises ValueError on first use when `root` is missing or holds no audio.
    """

    root: str
    rate: int = 16_000  # Hz
    name: str = ""  # default: the folder's own name

    def scan(self) -> tuple[SourceInfo, list[Clip]]:  # noqa: D102
        root = folder(self.root, "Folder.root")
        paths = audio_files(root)
        if not paths:
            kinds = " ".join(sorted(EXTENSIONS))
            raise ValueError(f"Folder.root: no audio file under {root} (looked for {kinds})")
        ids = [path.relative_to(root).as_posix() for path in paths]
        names = [id.split("/")[0] if "/" in id else None for id in ids]
        labels = tuple(sorted({name for name in names if name is not None}))
        number = {label: i for i, label in enumerate(labels)}
        clips = [
            Clip(str(path), id, label=None if name is None else number[name])
            for path, id, name in zip(paths, ids, names, strict=True)
        ]
        return SourceInfo(self.name or root.name, labels), clips


@dataclass(frozen=True)
class Manifest(Files):
    """The rows of a CSV or JSON-lines file.

    Columns: `path` (needed; relative to `root`), `start` and `end` (s), `label` or `labels`
    (several: separated by ";" in CSV, a list in JSON), `text` (a caption; in JSON also a list of them),
    `rewrites` and `negatives` (lists, JSON only), `weight` (0 or more), `fold`, `split`, `id`.

    Raises ValueError on first use, naming file and line, when a row cannot be understood.
    """

    path: str
    root: str = ""  # default: the manifest's folder
    rate: int = 16_000  # Hz
    split: str = ""  # keep this split only
    folds: tuple[int, ...] = ()  # keep these folds only
    labels: tuple[str, ...] = ()  # names in the order of their numbers; default: sorted
    name: str = ""

    def scan(self) -> tuple[SourceInfo, list[Clip]]:  # noqa: D102
        path = pathlib.Path(self.path).expanduser()
        if not path.is_file():
            raise ValueError(f"Manifest.path: no such file: {path}")
        root = folder(self.root, "Manifest.root") if self.root else path.parent
        rows = list(_rows(path))
        if not rows:
            raise ValueError(f"{path}: no rows")
        multi = any(row.get("labels") not in (None, "") for _, row in rows)
        names = [_names(row, multi) for _, row in rows]
        labels = self.labels or tuple(sorted({n for some in names for n in some}, key=_natural))
        number = {label: i for i, label in enumerate(labels)}
        clips = []
        for (line, row), some in zip(rows, names, strict=True):
            where = f"{path}, line {line}"
            if not row.get("path"):
                raise ValueError(f"{where}: no 'path'; the columns are {', '.join(map(str, row))}")
            for label in some:
                if label not in number:
                    raise ValueError(f"{where}: label {label!r} is not one of {labels}")
            numbers = tuple(sorted(number[label] for label in some))
            start, end, weight = (
                _number(row, key, float, where) for key in ("start", "end", "weight")
            )
            if weight is not None and not 0 <= weight < math.inf:
                raise ValueError(f"{where}: weight: wanted 0 or more, got {weight}")
            span = "" if start is None and end is None else f"#{start or 0.0:g}"
            clips.append(
                Clip(
                    path=str(root / str(row["path"])),
                    id=str(row.get("id") or f"{row['path']}{span}"),
                    label=numbers if multi else (numbers[0] if numbers else None),
                    fold=_number(row, "fold", int, where),
                    split=str(row["split"]) if row.get("split") else None,
                    text=_texts(row.get("text")),
                    rewrites=_several(row, "rewrites", where),
                    negatives=_several(row, "negatives", where),
                    weight=weight,
                    start=start or 0.0,
                    end=end,
                )
            )
        info = SourceInfo(self.name or path.stem, labels, multilabel=multi)
        return info, keep(clips, str(path), self.split, self.folds)


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


def audio_files(root: pathlib.Path) -> list[pathlib.Path]:
    """Return the audio files under `root`, judged by extension in any case, sorted."""
    found = []
    for directory, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            pathlib.Path(directory, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS
        ]
    return sorted(found)


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


def _rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
            for line, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}, line {line}: not JSON: {error}") from None
                if not isinstance(row, dict):
                    raise ValueError(f"{path}, line {line}: wanted an object, got {text.strip()}")
                yield line, row
        else:
            reader = csv.DictReader(file)
            if reader.fieldnames and "path" not in reader.fieldnames:
                columns = ", ".join(reader.fieldnames)
                raise ValueError(f"{path}, line 1: no column 'path'; the columns are {columns}")
            for row in reader:
                yield reader.line_num, row


def _names(row: dict[str, Any], multi: bool) -> list[str]:
    value = row.get("labels") if multi else row.get("label")
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(";") if part.strip()] if multi else [value]
    if isinstance(value, Iterable):
        return [str(part) for part in value]
    return [str(value)]


def _texts(value: Any) -> str | tuple[str, ...] | None:
    if isinstance(value, list):
        return tuple(map(str, value)) or None
    return str(value) if value else None


def _several(row: dict[str, Any], key: str, where: str) -> tuple[str, ...] | None:
    value = row.get(key)
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{where}: {key}: wanted a list of texts, got {value!r}")
    return tuple(map(str, value)) if value else None


def _natural(name: str) -> tuple[float, str]:
    return (float(name), name) if name.lstrip("-").isdigit() else (float("inf"), name)


def _number(row: dict[str, Any], key: str, kind: type, where: str) -> Any:
    value = row.get(key)
    if value is None or value == "":
        return None
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {key}: wanted {kind.__name__}, got {value!r}") from None
