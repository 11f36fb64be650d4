"""Decoded clips as int16 in ArrayRecord files beside an `index.json`: written by `prepare.py`.

Reading one costs about a fifteenth of decoding Ogg.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ssl_audio import startup
from ssl_audio.data import open_files
from ssl_audio.data.clip_columns import (
    FIELDS,
    PLACE,
    Coded,
    Columns,
    Example,
    in_columns,
    many_objects,
)
from ssl_audio.data.decode import DecodeError
from ssl_audio.data.records import Records
from ssl_audio.data.source import SourceInfo, chosen, folder
from ssl_audio.storage import atomic, opened

INDEX = "index.json"
WANTED = "the index that `ssl-audio prepare` writes"


COLUMNS = ("id", "split", "fold")  # that every index has


@dataclass(frozen=True)
class Shards:
    """The clips of a folder that `ssl-audio prepare` wrote.

    A folder in an object store (gs://, s3://) is copied once to each machine; see `local`.

    Raises ValueError on first use when the folder is not one, or not finished.
    """

    root: str
    split: str = ""  # keep this split only
    folds: tuple[int, ...] = ()  # keep these folds only

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        return self._index.info

    def __len__(self) -> int:
        return self._clips.size

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio."""
        return {"rate": self._index.rate, **self._clips.meta(i)}

    def coded_labels(self) -> Coded:
        """Return the number of each clip's label [N], and the labels that they number; None: none."""
        return self._clips.coded("label")

    def digest(self) -> str:
        """Return what differs between collections, wherever they lie."""
        return self._clips.digest(self._index.rate, lambda columns, rows: columns.cells("id", rows))

    def __getitem__(self, i: int) -> Example:
        meta = self.meta(i)
        try:
            audio = np.frombuffer(self._records[self._clips.row(i)], "<i2")
        except (RuntimeError, OSError, ValueError, IndexError) as error:
            open_files.check(error, self.root)
            raise DecodeError(f"{self.root}: clip {meta['id']}: {error}") from error
        return {"audio": from_int16(audio), **meta}

    @functools.cached_property
    def _index(self) -> "_Index":
        try:
            path = local(self.root, INDEX)
        except FileNotFoundError:
            raise ValueError(
                f"Shards.root: no {INDEX} in {self.root}: finish preparing it first"
            ) from None
        with many_objects():
            return _Index.of(checked(opened.json_file(path, WANTED), path, self.root))

    @property
    def columns(self) -> Columns:
        """Return what is known of all clips beside their sound."""
        return self._clips

    @functools.cached_property
    def _clips(self) -> Columns:
        clips = self._index.clips
        kept = chosen(clips.coded("split"), lambda value: not self.split or value == self.split)
        kept &= chosen(clips.coded("fold"), lambda value: not self.folds or value in self.folds)
        if not kept.any():
            raise ValueError(
                f"Shards {self.root}: no clip has split={self.split!r} and a fold in {self.folds}"
            )
        return clips if kept.all() else clips.kept(np.flatnonzero(kept))

    def _local(self, shard: Mapping[str, Any]) -> pathlib.Path:
        """Return where a file of records lies here, of the content that the index says."""
        if "://" not in self.root or "sha256" in shard:
            return local(self.root, shard["file"], shard.get("sha256", ""), shard.get("size", 0))
        # An index of an earlier version: another index, another folder of copies.
        return local(self.root, shard["file"], edition=self._index.edition)

    @functools.cached_property
    def _records(self) -> Records:
        files = self._index.files
        return Records([self._local(file) for file in files], [file["count"] for file in files])


class _Index(NamedTuple):
    """What an index says: the columns of its clips take a tenth of the memory of its text, parsed."""

    info: SourceInfo
    rate: int
    files: list[dict[str, Any]]
    clips: Columns
    edition: str  # a digest; "": every file has one of its own

    @classmethod
    def of(cls, found: dict[str, Any]) -> "_Index":
        edition = ""
        if not all("sha256" in file for file in found["shards"]):
            edition = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
        info = SourceInfo(**{**found["info"], "labels": tuple(found["info"]["labels"])})
        clips = found["clips"]
        fields = {key: clips[key] for key in (*FIELDS, *PLACE) if key in clips}
        columns = in_columns(fields, len(clips["id"]))
        return cls(info, found["rate"], found["shards"], columns, edition)


def checked(index: dict[str, Any], path: pathlib.Path, root: str) -> dict[str, Any]:
    """Return an index whose parts fit each other and whose files lie in its folder.

    Args:
      index: as parsed.
      path: of its file, for messages.
      root: the folder or address that its files are in.

    Raises:
      ValueError: naming the file and the field.
    """
    info, clips, files = (
        opened.member(index, key, kind, path)
        for key, kind in (("info", dict), ("clips", dict), ("shards", list))
    )
    opened.member(info, "name", str, f"{path}: info")
    opened.member(info, "labels", list, f"{path}: info")
    if odd := info.keys() - {field.name for field in dataclasses.fields(SourceInfo)}:
        raise opened.error(f"{path}: info", f"a field {min(odd)!r}", "those of a source")
    rate = opened.member(index, "rate", int, path)
    opened.numbers(rate, lambda n: 0 < n < 2**31, f"{path}: rate", "a sampling rate, Hz")
    columns = {key: opened.member(clips, key, list, f"{path}: clips") for key in COLUMNS}
    columns |= {key: opened.member(clips, key, list, f"{path}: clips") for key in clips}
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise opened.error(f"{path}: clips", f"columns of {lengths} clips", "columns of one length")
    total = 0
    for i, shard in enumerate(files):
        where = f"{path}: shards[{i}]"
        if not isinstance(shard, dict):
            raise opened.error(where, opened.short(shard), WANTED)
        opened.inside(root, opened.member(shard, "file", str, where), f"{where}: file")
        count = opened.member(shard, "count", int, where)
        total += opened.numbers(count, lambda n: n >= 0, f"{where}: count", "a number of clips")
    if total != lengths["id"]:
        raise opened.error(f"{path}: shards", f"{total} clips", f"the {lengths['id']} of `clips`")
    return index


def local(
    root: str, name: str, sha256: str = "", size: int = 0, *, edition: str = ""
) -> pathlib.Path:
    """Return where file `name` of a folder lies on this machine.

    ArrayRecord reads anywhere in a file, so those of an object store are copied here at first use: to
    SSL_AUDIO_CACHE, else ~/.cache/ssl_audio. Where that has no room, mount the bucket instead. A copy is
    found again by its content, since a folder may have been prepared again under the same address.

    Args:
      root: the folder.
      name: of the file.
      sha256, size: of its content, where known; else it is copied anew, unless
      edition: says what it belongs to: files of the same folder, name, edition and time are the same.

    Raises:
      ValueError: there is no such folder; the file is not as the index says.
      FileNotFoundError: there is no such file in it.
    """
    if "://" not in root:
        path = folder(root, "Shards.root") / name
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; prepare the folder again, or copy it.")
        if size and path.stat().st_size != size:
            raise ValueError(
                f"{path}: {path.stat().st_size} bytes, {size} in {INDEX}: copied in part, or prepared "
                "again. Copy the folder again."
            )
        return path
    from etils import epath

    remote = epath.Path(root, name)
    if edition:
        about: Any = None
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            about = remote.stat()
        edition = f"{root} {name} {edition} {about and (about.length, about.mtime)}"
    key = sha256 or hashlib.sha256((edition or root).encode()).hexdigest()
    cache = pathlib.Path(startup.cache())
    here = cache / "shards" / key[:32] / name
    if not here.exists() or not (sha256 or edition) or (size and here.stat().st_size != size):
        here.parent.mkdir(parents=True, exist_ok=True)
        # The processes of one machine may all come here: each writes its own, the last one stays.
        with atomic.path(here, mark=f".{os.getpid()}") as partial:
            with remote.open("rb") as source, partial.open("wb") as copy:
                shutil.copyfileobj(source, copy)
            if sha256 and content(partial) != (partial.stat().st_size, sha256):
                raise ValueError(
                    f"{remote}: not the file that {INDEX} describes: copied in part, or prepared again "
                    "without its index."
                )
    return here


def content(path: pathlib.Path) -> tuple[int, str]:
    """Return the size, bytes, and SHA-256 of a file."""
    with open(path, "rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def write_records(path: Any, records: Iterable[np.ndarray], *, compress: bool) -> tuple[int, str]:
    """Write waveforms [S] in [-1, 1] as int16 to an ArrayRecord file or object, whole or not at all.

    Returns its `content`.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    # One that counts as dead, and is not, may write the same file.
    with atomic.path(path, mark=f".{uuid.uuid4().hex}") as partial:
        writer = ArrayRecordWriter(
            str(partial), f"group_size:1{'' if compress else ',uncompressed'}"
        )
        for audio in records:
            writer.write(to_int16(audio).tobytes())
        writer.close()
        return content(partial)


def to_int16(audio: np.ndarray) -> np.ndarray:
    """Return audio in [-1, 1) as little-endian int16, clipped; exact for what was int16 before."""
    return np.clip(np.rint(audio * 32768.0), -32768, 32767).astype("<i2")


def from_int16(audio: np.ndarray) -> np.ndarray:
    """Return int16 audio as float32 in [-1, 1)."""
    return np.multiply(audio, np.float32(1 / 32768), dtype=np.float32)
