"""Arrays of TensorFlow's checkpoints (`PREFIX.index` and `PREFIX.data-…-of-…`), without TensorFlow.

The index is a sorted table of LevelDB's format, of names and protocol buffers that say where each array lies.
The index's checksums are verified, those of the arrays are not.
"""

import math
import pathlib
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

INDEX = ".index"
MAGIC = 0xDB4775248B80FB57  # ends a table
FOOTER, TRAILER = 48, 5  # bytes: of the end of a table; after a block its compression and checksum
LARGEST = 2**24  # bytes of an index
MOST = 2**16  # arrays
LONGEST = 2**10  # bytes of a name
SIDES = 16  # most axes of an array
TEXT = 7  # the type of strings, which are left out: notes of the program that wrote the file
# By number, as in `tensorflow/core/framework/types.proto`.
TYPES: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {
        n: np.dtype(kind)
        for n, kind in {
            1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?",
            14: ml_dtypes.bfloat16, 17: "<u2", 19: "<f2", 22: "<u4", 23: "<u8",
        }.items()
    }
)  # fmt: skip


def find(path: pathlib.Path) -> pathlib.Path | None:
    """Return the index of a checkpoint, given it, the prefix, or a folder of one; None: there is none.

    Raises:
      ValueError: the folder has several.
    """
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.name.endswith(INDEX))
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:5])
            raise ValueError(f"{path}: several checkpoints of TensorFlow: give one of {names}.")
        return found[0] if found else None
    index = path if path.name.endswith(INDEX) else path.with_name(f"{path.name}{INDEX}")
    return index if index.is_file() else None


def read(index: pathlib.Path) -> dict[str, np.ndarray]:
    """Return name → array of a checkpoint; bfloat16 as float32, strings left out.

    Args:
      index: its `….index`; the files of the arrays lie beside it.

    Raises:
      FileNotFoundError: a file of arrays is missing.
      ValueError: a file is cut short, contradicts the index, or is not of this format.
    """
    if (size := index.stat().st_size) > LARGEST:
        raise ValueError(f"{index}: {size} bytes; wanted at most {LARGEST} for an index.")
    try:
        entries = dict(_table(index.read_bytes()))
        shards = _shards(index, entries.pop(b"", None))
        found = {name.decode(): _place(entry) for name, entry in entries.items()}
        arrays = {name: place for name, place in found.items() if place["type"] != TEXT}
        return _arrays(arrays, shards)
    except (_Damaged, UnicodeDecodeError) as error:
        raise ValueError(
            f"{index}: damaged ({error}); wanted the whole index of a checkpoint of TensorFlow, and the "
            "files of arrays that belong to it."
        ) from None


class _Damaged(Exception):
    """A file contradicts itself, or ends too early."""


class _Bytes:
    """A stretch of bytes, read from the front."""

    def __init__(self, content: bytes):
        self._content, self._at = content, 0

    @property
    def left(self) -> int:
        return len(self._content) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise _Damaged(f"{count} bytes are promised, {self.left} are left")
        self._at += count
        return self._content[self._at - count : self._at]

    def number(self) -> int:
        """Return a number of seven bits a byte, the least first, of 64 bits at most."""
        found = 0
        for shift in range(0, 64, 7):
            (byte,) = self.take(1)
            found |= (byte & 127) << shift
            if byte < 128:
                return found
        raise _Damaged("a number of more than 64 bits")


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table, keys in their order.

    Raises:
      _Damaged: it is none, or its keys are out of order.
    """
    if len(content) < FOOTER or struct.unpack("<Q", content[-8:])[0] != MAGIC:
        raise _Damaged("its last bytes are not those of a table")
    footer = _Bytes(content[-FOOTER:-8])
    for _ in _block(content, *_handle(footer)):  # said about the table: nothing that is needed
        pass
    count, last, left = 0, None, len(content)
    for _, handle in _block(content, *_handle(footer)):
        start, size = _handle(_Bytes(handle))
        left -= size + TRAILER
        if left < 0:  # an index that names one long block over and over would take forever
            raise _Damaged("its blocks overlap")
        for key, value in _block(content, start, size):
            if last is not None and key <= last:
                raise _Damaged("its names are out of order")
            count, last = count + 1, key
            if count > MOST:
                raise _Damaged(f"more than {MOST} names")
            yield key, value


def _handle(source: _Bytes) -> tuple[int, int]:
    """Return where a block begins, and its bytes."""
    return source.number(), source.number()


def _block(content: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block; a key begins with a part of the one before."""
    end = start + size
    if end + TRAILER > len(content) - FOOTER:
        raise _Damaged(f"a block at byte {start} of {size} bytes reaches beyond the end")
    compression, checksum = struct.unpack("<BI", content[end : end + TRAILER])
    if compression:
        raise _Damaged(f"a block at byte {start} is compressed, of kind {compression}")
    if checksum != _checksum(content[start : end + 1]):
        raise _Damaged(f"the checksum of the block at byte {start} is another")
    if size < 4:
        raise _Damaged(f"a block of {size} bytes")
    (restarts,) = struct.unpack("<I", content[end - 4 : end])
    if 4 * (restarts + 1) > size:
        raise _Damaged(f"a block of {size} bytes with {restarts} places to begin at")
    source, key = _Bytes(content[start : end - 4 * (restarts + 1)]), b""
    while source.left:
        shared, own, value = source.number(), source.number(), source.number()
        if shared > len(key) or shared + own > LONGEST:
            raise _Damaged(f"a name of {own} bytes after {shared} of the one before")
        key = key[:shared] + source.take(own)
        yield key, source.take(value)


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the numbers and values of the fields of a protocol buffer."""
    source = _Bytes(content)
    while source.left:
        number, kind = divmod(source.number(), 8)
        if kind == 0:
            yield number, source.number()
        elif kind == 2:
            yield number, source.take(source.number())
        elif kind in (1, 5):
            yield number, source.take(8 if kind == 1 else 4)
        else:
            raise _Damaged(f"a field of kind {kind}")


def _numbers(content: bytes, *wanted: int) -> list[int]:
    """Return fields that are whole numbers; 0 where they are not said, the last where they are repeated."""
    found = dict.fromkeys(wanted, 0)
    for number, value in _fields(content):
        if number in found:
            if not isinstance(value, int):
                raise _Damaged(f"field {number} is no whole number")
            found[number] = value
    return list(found.values())


def _shards(index: pathlib.Path, header: bytes | None) -> list[pathlib.Path]:
    """Return the files of arrays.

    Raises:
      FileNotFoundError: one is missing.
      _Damaged: there is no header, or it is of another format.
    """
    if header is None:
        raise _Damaged("it has no header")
    count, big = _numbers(header, 1, 2)
    if big:
        raise _Damaged("numbers with the most significant byte first cannot be read")
    if not 1 <= count <= MOST:
        raise _Damaged(f"{count} files of arrays")
    prefix = index.name.removesuffix(INDEX)
    for number in range(count):
        path = index.with_name(f"{prefix}.data-{number:05}-of-{count:05}")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing; {index.name} names {count} such files.")
    return [index.with_name(f"{prefix}.data-{n:05}-of-{count:05}") for n in range(count)]


def _place(entry: bytes) -> dict[str, Any]:
    """Return the type, shape, shard, first byte and bytes of an array."""
    kind, shard, start, size = _numbers(entry, 1, 3, 4, 5)
    shape: list[int] = []
    for number, value in _fields(entry):
        if number == 7:
            raise _Damaged("an array in slices, which cannot be read")
        if number == 2:
            if not isinstance(value, bytes):
                raise _Damaged("a shape that is a number")
            shape += [_side(part) for part in _fields(value)]
    if len(shape) > SIDES:
        raise _Damaged(f"an array of {len(shape)} axes")
    if math.prod(side or 1 for side in shape) >= 2**48:  # an empty array of long sides, too
        raise _Damaged(f"an array {tuple(shape)}")
    return dict(type=kind, shape=tuple(shape), shard=shard, start=start, size=size)


def _side(field: tuple[int, int | bytes]) -> int:
    number, value = field
    if number != 2 or not isinstance(value, bytes):
        raise _Damaged("a shape without sides")
    return _numbers(value, 1)[0]


def _arrays(
    places: Mapping[str, dict[str, Any]], shards: list[pathlib.Path]
) -> dict[str, np.ndarray]:
    sizes = [path.stat().st_size for path in shards]
    for name, place in places.items():
        kind, shape, shard, size = (place[key] for key in ("type", "shape", "shard", "size"))
        if kind not in TYPES:
            raise _Damaged(f"{name}: type {kind}")
        if size != math.prod(shape) * TYPES[kind].itemsize:
            raise _Damaged(f"{name}: {size} bytes for an array {shape} of {TYPES[kind]}")
        if shard >= len(shards) or place["start"] + size > sizes[shard]:
            raise _Damaged(f"{name}: lies outside the files of arrays")
    if (total := sum(place["size"] for place in places.values())) > sum(sizes):
        raise _Damaged(f"{total} bytes of arrays in files of {sum(sizes)}")
    found = {}
    for name, place in places.items():
        dtype, shape = TYPES[place["type"]], place["shape"]
        value = np.fromfile(
            shards[place["shard"]], dtype, math.prod(shape), offset=place["start"]
        ).reshape(shape)
        found[name] = value.astype(np.float32) if dtype == ml_dtypes.bfloat16 else value
    return found


def _checksum(content: bytes) -> int:
    """Return CRC-32C, turned and shifted as LevelDB stores it."""
    found = 0xFFFFFFFF
    for byte in content:
        found = _CRC[(found ^ byte) & 255] ^ (found >> 8)
    found ^= 0xFFFFFFFF
    return (((found >> 15) | (found << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC = tuple(map(_crc, range(256)))
