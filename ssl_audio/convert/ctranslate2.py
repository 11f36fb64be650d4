"""Arrays of CTranslate2's `model.bin`, as faster-whisper's models are published in, without CTranslate2."""

import pathlib
import struct
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

VERSIONS = (4, 5, 6)  # of the format: since 4 with the type of each array
# By number, as in the files.
TYPES: list[np.dtype[Any]] = [
    np.dtype(kind) for kind in ("<f4", "i1", "<i2", "<i4", "<f2", ml_dtypes.bfloat16)
]
LONGEST = 2**12  # bytes of a name
SCALE = "_scale"  # after the name of an array of whole numbers: what each row was multiplied by


def is_file(path: pathlib.Path) -> bool:
    """Tell whether a file begins as CTranslate2's do: with the version of its format, not as torch's."""
    with open(path, "rb") as file:
        start = file.read(4)
    return len(start) == 4 and struct.unpack("<I", start)[0] in VERSIONS


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return name → array; whole numbers with a scale, and bfloat16, as float32.

    Names that are aliases of others give their arrays, too.

    Raises:
      ValueError: the file is cut short, or not of this format.
    """
    with open(path, "rb") as file:
        try:
            return _floats(_arrays(_Reader(file, path.stat().st_size)))
        except (_Cut, UnicodeDecodeError) as error:
            at = file.tell()
            raise ValueError(
                f"{path}: damaged at byte {at} ({error}); wanted a whole model.bin of CTranslate2, of format "
                f"{VERSIONS[0]} to {VERSIONS[-1]}."
            ) from None


class _Cut(Exception):
    """More was promised than there is."""


class _Reader:
    """Numbers, names and arrays, one after the other."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size

    def number(self, form: str) -> int:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def name(self) -> str:
        length = self.number("H")
        if not 1 <= length <= LONGEST:
            raise _Cut(f"a name of {length} bytes")
        return self.take(length)[:-1].decode()  # a zero ends it

    def take(self, count: int) -> bytes:
        left = self._size - self._file.tell()
        if count > left:
            raise _Cut(f"{count} bytes are promised, {left} are left")
        return self._file.read(count)


def _arrays(reader: _Reader) -> dict[str, np.ndarray]:
    version = reader.number("I")
    if version not in VERSIONS:
        raise _Cut(f"format {version}")
    reader.name()  # of the kind of model
    reader.number("I")  # its revision
    found = {}
    for _ in range(reader.number("I")):
        name = reader.name()
        shape = tuple(reader.number("I") for _ in range(reader.number("B")))
        kind = reader.number("B")
        if kind >= len(TYPES):
            raise _Cut(f"{name}: type {kind}")
        count, wanted = reader.number("I"), TYPES[kind].itemsize
        for side in shape:
            wanted *= side
        if count != wanted:
            raise _Cut(f"{name}: {count} bytes for an array {shape} of {TYPES[kind]}")
        found[name] = np.frombuffer(reader.take(count), TYPES[kind]).reshape(shape)
    for _ in range(reader.number("I")):
        alias, name = reader.name(), reader.name()
        if name not in found:
            raise _Cut(f"{alias} stands for {name}, which is not there")
        found[alias] = found[name]
    return found


def _floats(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays with those that are stored as whole numbers scaled back."""
    found = {}
    for name, value in arrays.items():
        if name.endswith(SCALE) and name.removesuffix(SCALE) in arrays:
            continue
        scale = arrays.get(f"{name}{SCALE}")
        if scale is not None:
            rows = np.asarray(scale, np.float32).reshape(-1, *[1] * (value.ndim - 1))
            value = value.astype(np.float32) / rows
        found[name] = value.astype(np.float32) if value.dtype == TYPES[-1] else value
    return found
