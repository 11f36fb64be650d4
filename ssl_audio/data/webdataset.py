"""WebDataset tars: samples whose members share a name up to its first dot; any clip at any time.

Members are listed once for each tar, and the list kept in the cache of the package. The format:
https://github.com/webdataset/webdataset (docs: file format).
"""

import functools
import hashlib
import json
import logging
import os
import pathlib
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio import startup
from ssl_audio.data import open_files
from ssl_audio.data.decode import DecodeError, printable
from ssl_audio.data.listing import EXTENSIONS
from ssl_audio.data.packed import (
    MEANT,
    TEXTS,
    Listed,
    Packed,
    captions,
    fold,
    numbered,
    others,
    split,
)
from ssl_audio.data.packed import unique as unique_ids
from ssl_audio.data.source import SPLITS, SourceInfo
from ssl_audio.storage import atomic, opened

WANTED = "a tar of samples, as WebDataset writes"
KEYS = ("first", "last")
BLOCK = 512  # bytes of a tar
LARGEST = 1 << 20  # bytes of a member that is read for what it says
FORMAT = 2  # of the lists in the cache

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Webdataset(Packed):
    """The samples with sound in a tar, or in all tars of a folder, in the order of names.

    Of a sample the member that is sound is the audio; `cls` is the label (a number or a name), `txt` the
    caption, `json` an object with `label` or `labels`, a caption (`text`, `caption`, …), `fold`, `split`,
    `id`; whatever else it has is kept as `columns`. A tar named as train-0001.tar gives its clips that split.

    Attributes:
      root: a tar, a folder of them, or a pattern as DIR/train-*.tar.
      keys: "first": a sample's name ends at the first dot of a member's name, as the format has it;
        "last": at the last one, where names have dots of their own.
      audio: the ending of the member that is the sound, where a sample has several, as "mic1.flac".
      labels: names in the order of their numbers; none: those there are, sorted.
      cut: also take the whole samples of a tar that was cut.

    Raises ValueError on first use when there is no tar, one is cut or no tar, or no sample has sound.
    """

    root: str
    split: str = ""  # keep this split only
    folds: tuple[int, ...] = ()  # keep these folds only
    rate: int = 16_000  # Hz
    keys: str = "first"
    audio: str = ""
    labels: tuple[str, ...] = ()
    cut: bool = False
    name: str = ""  # default: the folder's or tar's own name
    channels: str = "average"  # or "first", "loudest"

    def __post_init__(self):
        if self.keys not in KEYS:
            raise ValueError(f"Webdataset.keys: got {self.keys!r}, wanted {' or '.join(KEYS)}")

    def listed(self) -> Listed:  # noqa: D102
        samples = self._samples
        where = [f"{self._tars[s['tar']]}: {printable(s['key'])}" for s in samples]
        said = [_said(sample, place) for sample, place in zip(samples, where, strict=True)]
        labels, names, several = numbered(
            [row.get("label") for row in said], self.labels, where.__getitem__
        )
        keys = [sample["key"] for sample in samples]
        ids = [row.get("id", key) for row, key in zip(said, keys, strict=True)]
        ids = [key if id in ("", None) else id for id, key in zip(ids, keys, strict=True)]
        stems = [f"{self._tars[s['tar']].name}/{s['key']}" for s in samples]
        fields = {
            "id": unique_ids(list(map(str, ids)), stems.__getitem__),
            "label": labels,
            "fold": [fold(row.get("fold"), place) for row, place in zip(said, where, strict=True)],
            "split": [
                split(row.get("split")) or _split(self._tars[sample["tar"]].name)
                for row, sample in zip(said, samples, strict=True)
            ],
            "text": [
                captions(row.get("text"), place) for row, place in zip(said, where, strict=True)
            ],
            "columns": [others(row.get("rest", {}), MEANT) for row in said],
        }
        name = self.name or pathlib.Path(self.root).stem or "webdataset"
        silent = self._silent
        left_out = f"{silent} samples without sound" if silent else ""
        info = SourceInfo(name, names, multilabel=several, left_out=left_out)
        return Listed(info, fields, len(samples))

    def content(self, row: int) -> bytes:  # noqa: D102
        tar, first, size = (int(value) for value in self._places[row])
        path = self._tars[tar]
        try:
            with open(path, "rb") as file:
                file.seek(first)
                found = file.read(size)
        except OSError as error:
            open_files.check(error, path)
            raise DecodeError(f"{error.strerror}") from error
        if len(found) < size:
            raise DecodeError(f"truncated: {len(found)} of {size} bytes; the tar has changed")
        return found

    def place(self, row: int) -> str:  # noqa: D102
        tar, key = int(self._places[row, 0]), self._keys[row]
        return f"{printable(self._tars[tar])}: {printable(key)}"

    @functools.cached_property
    def _tars(self) -> list[pathlib.Path]:
        root = pathlib.Path(self.root).expanduser()
        if root.is_dir():
            found = sorted(root.rglob("*.tar"))
        elif root.is_file():
            found = [root]
        else:
            found = sorted(root.parent.glob(root.name)) if root.parent.is_dir() else []
        if not found:
            raise ValueError(
                f"Webdataset.root: got {root}, wanted a tar, a folder of tars, or a pattern as "
                "DIR/train-*.tar"
            )
        return found

    @functools.cached_property
    def _listed(self) -> tuple[list[dict[str, Any]], int]:
        """Return the samples that have sound, and the number of those that have none."""
        found, silent, endings = [], 0, set()
        for number, path in enumerate(self._tars):
            for key, members in _grouped(_members(path, self.cut), self.keys):
                endings.update(ending for ending, *_ in members)
                sound = self._sound(path, key, members)
                if sound is None:
                    silent += 1
                    continue
                found.append({"tar": number, "key": key, "sound": sound, "members": members})
        if not found:
            there = ", ".join(f".{ending}" for ending in sorted(endings)[:12]) or "nothing"
            raise opened.error(
                f"Webdataset.root: {self.root}", f"samples of {there}", "some with sound, as .flac"
            )
        if silent:
            log.warning(
                "%s: %d samples without sound left out, %d kept", self.root, silent, len(found)
            )
        return found, silent

    @property
    def _samples(self) -> list[dict[str, Any]]:
        return self._listed[0]

    @property
    def _silent(self) -> int:
        return self._listed[1]

    @functools.cached_property
    def _keys(self) -> list[str]:
        return [sample["key"] for sample in self._samples]

    @functools.cached_property
    def _places(self) -> np.ndarray:
        """The tar, first byte and size of each clip's sound [N, 3]."""
        return np.array([(s["tar"], *s["sound"]) for s in self._samples], np.int64)

    def __getstate__(self) -> dict[str, Any]:
        # What is needed to read clips; the list of all members is not.
        needed = ("_found", "_clips", "_places", "_keys", "_tars")
        found = {name: getattr(self, name) for name in needed}
        return {name: value for name, value in vars(self).items() if name != "_listed"} | found

    def _sound(self, path: pathlib.Path, key: str, members: Sequence[Any]) -> Any:
        """Return the first byte and size of a sample's sound; None: it has none."""
        if self.audio:
            some = [m for m in members if m[0] == self.audio.lower().removeprefix(".")]
        else:
            some = [m for m in members if f".{m[0].rpartition('.')[2]}" in EXTENSIONS]
        if len(some) > 1:
            names = ", ".join(f".{ending}" for ending, *_ in some[:4])
            raise opened.error(
                f"{printable(path)}: sample {printable(key)!r}",
                f"{len(some)} sounds ({names})",
                "one",
                "A sample's name ends at the first dot of its members' names: where names have dots of their "
                "own, set keys=last; where a sample has several sounds, say which, as audio=mic1.flac.",
            )
        return tuple(some[0][1:3]) if some else None


def _grouped(
    members: Sequence[Sequence[Any]], keys: str
) -> Iterator[tuple[str, list[tuple[str, int, int, Any]]]]:
    """Yield the name of each sample and its members (ending, first byte, size, content)."""
    key, some = None, []
    for name, first, size, content in members:
        folder, mark, base = name.rpartition("/")
        stem, dot, ending = base.partition(".") if keys == "first" else base.rpartition(".")
        if (
            not stem
            or not dot
            or base.startswith("._")
            or (name.startswith("__") and name.endswith("__"))
        ):
            continue  # the format passes over such members; macOS adds those of "._"
        this = f"{folder}{mark}{stem}"
        if this != key and some:
            yield str(key), some
            some = []
        key = this
        some.append((ending.lower(), first, size, content))
    if some:
        yield str(key), some


def _members(path: pathlib.Path, cut: bool) -> list[list[Any]]:
    """Return [name, first byte, size, text or None] of each member of a tar; kept for the next time.

    Raises:
      ValueError: it is no tar, or was cut.
    """
    about = path.stat()
    version = f"{FORMAT}|{path.resolve()}|{about.st_size}|{about.st_mtime_ns}"
    name = hashlib.sha256(version.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    kept = pathlib.Path(startup.cache()) / "webdataset" / f"{name}.json"
    try:
        found = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        found = _read(path)
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(kept, json.dumps(found), mark=f".{os.getpid()}")
        except OSError as error:
            log.info("%s: its list is not kept: %s", path, error)
    if found["cut"] and not cut:
        raise opened.error(
            printable(path),
            f"a tar that was cut ({found['cut']}, {len(found['members'])} whole members)",
            "a whole one",
            "Copy it again; or set cut=True to take what is whole.",
        )
    if found["cut"]:
        log.warning("%s: cut (%s); what is whole is taken", printable(path), found["cut"])
    return found["members"]


def _read(path: pathlib.Path) -> dict[str, Any]:
    members, places, end, size, cut = [], {}, 0, path.stat().st_size, ""
    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":
            raise opened.error(path, "a compressed tar", WANTED, "Decompress it first: gunzip.")
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                    if member.offset_data + member.size > size:
                        cut = f"in {printable(member.name)}"
                        break
                    if member.islnk():  # the same file under another name
                        same = places.get(member.linkname)
                        members += [[member.name, *same, None]] if same else []
                    elif member.isreg():
                        places[member.name] = member.offset_data, member.size
                        members.append([member.name, member.offset_data, member.size, None])
        except tarfile.ReadError as error:
            if not members:
                raise opened.error(path, opened.short(error), WANTED) from None
            cut = f"after {printable(members[-1][0])}"
        file.seek(end)
        if not cut and file.read(BLOCK) != bytes(BLOCK):
            cut = f"after {printable(members[-1][0])}, no end mark" if members else "no end mark"
        for member in members:
            name, first, length, _ = member
            if name.rpartition(".")[2].lower() in ("cls", "txt", "json") and length <= LARGEST:
                file.seek(first)
                member[3] = file.read(length).decode("utf-8", "backslashreplace")
    return {"members": members, "cut": cut}


def _said(sample: dict[str, Any], where: str) -> dict[str, Any]:
    """Return label, caption and the rest of what a sample's members say."""
    found: dict[str, Any] = {}
    for ending, _, _, content in sample["members"]:
        kind = ending.rpartition(".")[2]
        if content is None:
            continue
        if kind == "cls":
            text = content.strip()
            found["label"] = int(text) if text.removeprefix("-").isdecimal() else text
        elif kind == "txt":
            found["text"] = content.strip()
        elif kind == "json":
            rest = opened.parsed(content, f"{where}.{ending}", "what is known of a sample")
            found["rest"] = rest
            some = [rest[key] for key in ("label", "labels") if rest.get(key) is not None]
            if some:
                found.setdefault("label", some[0])
            if texts := [rest[key] for key in TEXTS if rest.get(key)]:
                found.setdefault("text", texts[0])
            found |= {key: rest[key] for key in ("fold", "split", "id") if key in rest}
    return found


def _split(name: str) -> str | None:
    """Return the split that a tar's name begins with; None: none."""
    begin = name.lower().replace("_", "-").partition("-")[0].partition(".")[0]
    return SPLITS.get(begin)
