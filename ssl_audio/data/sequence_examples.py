"""VATT's layout: TFRecords of SequenceExamples with frames, sound and captions of a clip; without TensorFlow.

As DMVR writes them (https://github.com/google-deepmind/dmvr, examples/generate_*.py).
"""

import functools
import io
import os
import pathlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.decode import DecodeError
from ssl_audio.data.source import Example, SourceInfo
from ssl_audio.storage import opened

WANTED = "a TFRecord of SequenceExamples"
HEAD, TAIL = 12, 4  # bytes around a record: its length and checksums
LARGEST = 2**31  # bytes of a record
FRAMES = ("image/encoded",)
SOUND = ("WAVEFORM/feature/floats", "waveform/floats")
TEXTS = ("caption/string", "text/string")
LABELS = ("label/index", "clip/label/index")


@dataclass(frozen=True)
class SequenceExamples:
    """The records of a file, or of all files of a folder, in the order of their names.

    Examples have `audio`, `video` (the frames, as JPEG), `text` (captions, if there are any) and `label`.
    For `video:AudioVideo` with column="video", and `listed` the frames per second (HowTo100M: 10). The
    checksums of records are not verified.

    Attributes:
      root: a file or a folder.
      rate: of the recorded sound, Hz; it is not resampled.
      labels: names of the classes, in the order of their numbers.
    """

    root: str
    rate: int = 48_000
    labels: tuple[str, ...] = ()

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        return SourceInfo(pathlib.Path(self.root).name, self.labels)

    def __len__(self) -> int:
        return len(self._records)

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its sound and frames."""
        return self._meta(i, self._read(i))

    def __getitem__(self, i: int) -> Example:
        found = self._read(i)
        sound = _first(found, SOUND)
        if not sound:
            raise DecodeError(f"{self._name(i)}: no sound ({' or '.join(SOUND)})")
        audio = np.concatenate([np.asarray(part, np.float32) for part in sound])
        return {"audio": audio, "video": _first(found, FRAMES), **self._meta(i, found)}

    def _meta(self, i: int, found: Mapping[str, list[Any]]) -> Example:
        example: dict[str, Any] = {"id": self._name(i), "rate": self.rate}
        texts = [text.decode(errors="replace") for text in _first(found, TEXTS)]
        if texts := tuple(text for text in texts if text.strip()):
            example["text"] = texts
        numbers = [int(n) for part in _first(found, LABELS) for n in np.atleast_1d(part)]
        if numbers:
            example["label"] = numbers[0] if len(numbers) == 1 else tuple(sorted(set(numbers)))
        return example

    def _name(self, i: int) -> str:
        path, start, _ = self._records[i]
        return f"{path.name}:{start}"

    @functools.cached_property
    def _records(self) -> list[tuple[pathlib.Path, int, int]]:
        """Return the file, first byte and bytes of each record."""
        root = pathlib.Path(self.root).expanduser()
        files = [root] if root.is_file() else []
        if root.is_dir():
            files = sorted(p for p in root.iterdir() if p.is_file() and "tfrecord" in p.name)
            files = files or sorted(p for p in root.glob("*-of-*") if p.is_file())
        if not files:
            raise ValueError(
                f"SequenceExamples.root: {root}: no TFRecords; wanted files with 'tfrecord' in their names, "
                "or NAME-00000-of-00010."
            )
        return [(path, *span) for path in files for span in _spans(path)]

    def _read(self, i: int) -> dict[str, list[Any]]:
        path, start, size = self._records[i]
        with open(path, "rb") as file:
            file.seek(start)
            content = file.read(size)
        try:
            return _sequence_example(content)
        except (_Damaged, struct.error, UnicodeDecodeError) as error:
            raise DecodeError(f"{self._name(i)}: damaged ({error}); wanted {WANTED}") from None


def decoded(frame: bytes) -> np.ndarray:
    """Return a frame's JPEG as uint8 [Y, X, 3]."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(frame)) as picture:
            return np.asarray(picture.convert("RGB"))
    except Exception as error:  # Pillow raises what each format's reader does
        raise DecodeError(f"a frame that is no picture ({error})") from error


def _spans(path: pathlib.Path) -> Iterator[tuple[int, int]]:
    size, start = os.path.getsize(path), 0
    with open(path, "rb") as file:
        while start < size:
            file.seek(start)
            head = file.read(HEAD)
            length = struct.unpack("<Q", head[:8])[0] if len(head) == HEAD else LARGEST
            if length >= LARGEST or start + HEAD + length + TAIL > size:
                raise opened.error(path, f"a record at byte {start} that does not end", WANTED)
            yield start + HEAD, length
            start += HEAD + length + TAIL


class _Damaged(Exception):
    """Bytes that are no protocol buffer."""


def _fields(content: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield the numbers and values of the fields of a protocol buffer."""
    at = 0
    while at < len(content):
        tag, at = _number(content, at)
        number, kind = divmod(tag, 8)
        if kind == 0:
            value, at = _number(content, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _number(content, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise _Damaged(f"a field of kind {kind}")
        if at + size > len(content):
            raise _Damaged(f"{size} bytes are promised, {len(content) - at} are left")
        yield number, content[at : at + size]
        at += size


def _number(content: memoryview, at: int) -> tuple[int, int]:
    found = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise _Damaged("it ends within a number")
        byte, at = content[at], at + 1
        found |= (byte & 127) << shift
        if byte < 128:
            return found, at
    raise _Damaged("a number of more than 64 bits")


def _sequence_example(content: bytes) -> dict[str, list[Any]]:
    """Return name → values: of the context its list, of a feature list one value or array per step."""
    found: dict[str, list[Any]] = {}
    for number, part in _fields(memoryview(content)):
        for _, entry in _fields(part) if number in (1, 2) else ():
            pair = dict(_fields(entry))
            if not {1, 2} <= pair.keys():
                continue
            name = bytes(pair[1]).decode()
            steps = [pair[2]] if number == 1 else [step for _, step in _fields(pair[2])]
            found[name] = [value for step in steps for value in _feature(step)]
    return found


def _feature(content: memoryview) -> list[Any]:
    """Return bytes one by one, numbers as one array."""
    for kind, values in _fields(content):
        if kind == 1:
            return [bytes(value) for _, value in _fields(values)]
        if kind == 2:  # packed, or one by one
            return [np.concatenate([np.frombuffer(v, "<f4") for _, v in _fields(values)] or [[]])]
        if kind == 3:
            numbers: list[int] = []
            for _, value in _fields(values):
                if isinstance(value, int):
                    numbers.append(value)
                    continue
                at = 0
                while at < len(value):
                    one, at = _number(value, at)
                    numbers.append(one)
            return [np.array(numbers, np.int64)]
    return []


def _first(found: Mapping[str, list[Any]], names: tuple[str, ...]) -> list[Any]:
    return next((found[name] for name in names if found.get(name)), [])
