"""FSD50K: Freesound clips of 0.3 to 30 s with any of 200 labels."""

import collections
import functools
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ssl_audio.data import hierarchy
from ssl_audio.data.listing import audio_names
from ssl_audio.data.source import Clip, Clips, Files, SourceInfo, folder
from ssl_audio.data.tables import Row, read
from ssl_audio.storage import opened

log = logging.getLogger(__name__)

# split → the parts that have clips of it
_PARTS = {
    "": ("dev", "eval"), "dev": ("dev",), "train": ("dev",), "val": ("dev",), "eval": ("eval",)
}  # fmt: skip
_DEV = ("train", "val")
# Folders of the tables, of the raw annotations, and of the sound of a part: of the archives, and of the
# copy on the Hugging Face Hub.
_LAYOUTS = (
    ("FSD50K.ground_truth", "FSD50K.metadata/collection", "FSD50K.{part}_audio"),
    ("labels", "metadata/collection", "clips/{part}"),
)
_LABELS = ("ground_truth", "collection")
_UNZIP = (
    "join the parts of each archive before unzipping: zip -s 0 FSD50K.{part}_audio.zip --out x.zip"
)


@dataclass(frozen=True)
class Fsd50k(Files):
    """The clips of `root`, which holds `FSD50K.ground_truth` and the two audio folders.

    The splits are those of the tables: "train" and "val" (development), "eval". The tables hold labels
    with all that they imply. An ontology tells whether that is so: a class implies those above it, see
    `data/hierarchy.py`.

    Attributes:
      root: the folder that the archives were unpacked in.
      split: keep this split only: "train", "val", "dev" (both) or "eval".
      labels: "ground_truth" (200 classes), or "collection": what people said, of some 360 classes, without
        what it implies; needs FSD50K.metadata.
      ontology: AudioSet's `ontology.json`; default: that in `root` or beside the tables, if there is one.
      parents: labels that others imply and that are missing: "check" logs them, "add" adds them too,
        "ignore" does nothing.
      partial: leave out clips without a file; otherwise they count as unreadable when they are drawn.
      rate: Hz; the files have 44.1 kHz.
    """

    root: str
    split: str = ""
    labels: str = "ground_truth"
    ontology: str = ""
    parents: str = "check"
    partial: bool = False
    rate: int = 16_000

    def __post_init__(self):
        for name, allowed in (
            ("split", tuple(_PARTS)),
            ("labels", _LABELS),
            ("parents", hierarchy.MODES),
        ):
            if getattr(self, name) not in allowed:
                wanted = ", ".join(filter(None, allowed))
                raise ValueError(
                    f"Fsd50k.{name}: got {getattr(self, name)!r}, wanted one of {wanted}"
                )

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        rows = list(self._labelled())
        if not rows:
            raise ValueError(f"Fsd50k.split: no clip of {self.split!r} in {self._folders[0]}")
        if self.parents != "ignore" and (implied := self._implied(need=self.parents == "add")):
            counts = collections.Counter(label for _, _, label, _ in rows)
            where, add = str(self._folders[0]), self.parents == "add"
            said = hierarchy.checked(counts, implied, list(self._mids), where, add=add)
            rows = [(part, id, said[label], split) for part, id, label, split in rows]
        files = {part: self._files(part) for part in _PARTS[self.split]}
        clips = [
            Clip(f"{files[part][0]}/{files[part][1].get(id, id + '.wav')}", id, label, split=split)
            for part, id, label, split in rows
            if not self.partial or id in files[part][1]
        ]
        self._tell_missing(rows, files)
        info = SourceInfo(
            "fsd50k",
            tuple(self._mids),
            licence="CC BY 4.0; each clip CC0, CC BY, CC BY-NC or CC Sampling+",
            citation="E. Fonseca et al. FSD50K: An Open Dataset of Human-Labeled Sound Events. "
            "IEEE/ACM TASLP 30, 2022. doi:10.1109/TASLP.2021.3133208",
            url="https://zenodo.org/records/4060432",
            multilabel=True,
        )
        return info, Clips.of(clips)

    @property
    def gaps(self) -> list[hierarchy.Gap]:
        """Return the labels of the tables without one that they imply: (child, parent, clips).

        Raises:
          ValueError: there is no ontology.
        """
        counts = collections.Counter(label for _, _, label, _ in self._labelled())
        return hierarchy.gaps(counts, self._implied(need=True) or (), list(self._mids))

    @functools.cached_property
    def _folders(self) -> tuple[pathlib.Path, pathlib.Path, str]:
        """The folders of the tables and of the raw annotations, and the pattern of those of the sound."""
        root = folder(self.root, "Fsd50k.root")
        there = (layout for layout in _LAYOUTS if (root / layout[0]).is_dir())
        tables, raw, sound = next(there, _LAYOUTS[0])
        return folder(root / tables, "Fsd50k.root"), root / raw, sound

    @functools.cached_property
    def _mids(self) -> Mapping[str, str]:
        """Name → identifier of each class, in the order of their numbers."""
        tables, raw, _ = self._folders
        if self.labels == "ground_truth":
            return _vocabulary(tables / "vocabulary.csv")
        both: dict[str, str] = {}  # development and evaluation number their classes differently
        for part in ("dev", "eval"):
            path = raw / f"vocabulary_collection_{part}.csv"
            for name, mid in _vocabulary(path).items():
                if both.setdefault(name, mid) != mid:
                    raise opened.error(path, f"{name} is {mid}", f"{both[name]}, as in the other")
        _check_identifiers(both, raw)  # a class may have another name in the other table
        return dict(sorted(both.items()))

    def _implied(self, need: bool) -> tuple[hierarchy.Numbers, ...] | None:
        """Return what each class implies; None: there is no ontology."""
        root = folder(self.root, "Fsd50k.root")
        folders = [root, *self._folders[:2]]
        return hierarchy.find(self.ontology, folders, list(self._mids.values()), need=need)

    def _labelled(self) -> Iterator[tuple[str, str, hierarchy.Numbers, str]]:
        """Yield the part, name, labels and split of each clip of the tables."""
        tables, raw, _ = self._folders
        number = {name: i for i, name in enumerate(self._mids)}
        known: dict[str, hierarchy.Numbers] = {}
        empty, others = 0, []
        for part in _PARTS[self.split]:
            path, splits = tables / f"{part}.csv", {}
            own = self.labels == "ground_truth" and part == "dev"  # this table says the splits
            if self.labels == "collection":
                if part == "dev":
                    splits = {
                        row["fname"]: _split(row) for row in read(path, need=("fname", "split"))
                    }
                path = raw / f"collection_{part}.csv"
            seen: set[str] = set()
            for row in read(path, need=("fname", "labels", *(["split"] if own else []))):
                id = row["fname"]
                if id in seen:
                    raise opened.error(f"{row.where}: fname", f"{id} again", "each clip once")
                seen.add(id)
                split = _split(row) if own else splits.get(id, part)
                if self.split not in ("", part, split):
                    continue
                if not row["labels"].strip() and self.labels == "collection":
                    empty += 1
                    continue
                text = row["labels"]
                if text not in known:
                    known[text] = row.numbers("labels", text.split(","), number)
                mids = ",".join(map(self._mids.__getitem__, text.split(",")))
                if row.get("mids", mids) != mids:
                    others.append(f"{row.where}: {row['mids']}, where the labels have {mids}")
                yield part, id, known[text], split
        if empty:
            log.info("%s: %d clips without any label are left out", raw, empty)
        if others:
            log.warning(
                "%d clips have other identifiers than the vocabulary gives their labels, which count: %s",
                len(others), others[0],
            )  # fmt: skip

    def _files(self, part: str) -> tuple[pathlib.Path, Mapping[str, str]]:
        """Return the folder of a part's sound, and name → file of what is there."""
        place = pathlib.Path(self.root).expanduser() / self._folders[2].format(part=part)
        if not place.is_dir():
            hint = "" if self.split else "; set split to read one part alone"
            raise ValueError(
                f"Fsd50k.root: no such folder: {place}. {_UNZIP.format(part=part)}{hint}"
            )
        return place, {os.path.splitext(os.path.basename(n))[0]: n for n in audio_names(place)[0]}

    def _tell_missing(self, rows: Sequence[tuple], files: Mapping[str, tuple]) -> None:
        """Log the clips that have no file; ValueError if none has one."""
        lost = [f"{part}/{id}" for part, id, *_ in rows if id not in files[part][1]]
        if len(lost) == len(rows):
            raise ValueError(
                f"Fsd50k.root: none of {len(rows)} clips has a file in "
                f"{', '.join(str(place) for place, _ in files.values())}"
            )
        if lost:
            what = (
                "are left out"
                if self.partial
                else "count as unreadable; partial=True leaves them out"
            )
            few = ", ".join(lost[:3]) + (", …" if len(lost) > 3 else "")
            log.warning(
                "%s: %d of %d clips have no file (%s): they %s. %s",
                self.root, len(lost), len(rows), few, what, _UNZIP.format(part=lost[0].split("/")[0]),
            )  # fmt: skip


def _split(row: Row) -> str:
    """Return the split of a clip of the development set: another word would leave it out of both."""
    if row["split"] not in _DEV:
        raise opened.error(f"{row.where}: split", repr(row["split"]), " or ".join(_DEV))
    return row["split"]


def _vocabulary(path: pathlib.Path) -> dict[str, str]:
    """Return name → identifier of the classes of a table without a header, in the order of their numbers."""
    rows = sorted(read(path, ("number", "name", "mid")), key=lambda row: row.whole("number"))
    for wanted, row in enumerate(rows):
        if row.whole("number") != wanted:
            got = f"{row.whole('number')}, and {wanted} classes before"
            raise opened.error(f"{row.where}: number", got, "the numbers from 0 on, each once")
    found = {row["name"]: row["mid"] for row in rows}
    if len(found) != len(rows):
        twice = next(
            n for n, c in collections.Counter(row["name"] for row in rows).items() if c > 1
        )
        raise opened.error(path, f"class {twice} twice", "each once")
    _check_identifiers(found, path)
    return found


def _check_identifiers(mids: Mapping[str, str], where: pathlib.Path) -> None:
    """Refuse two classes of one identifier: the ontology would tell of one of them alone."""
    names: dict[str, str] = {}
    for name, mid in mids.items():
        if mid in names:
            raise opened.error(
                where, f"{mid} for {names[mid]} and for {name}", "each class its own"
            )
        names[mid] = name
