"""Files of PyTorch before 1.6 (one stream of pickles and raw storages), read without PyTorch.

Only a state dict of plain tensors: names and arrays, as published weights are. `files.py` calls it.
"""

import collections
import math
import os
import pathlib
import pickle
import struct
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np

from ssl_audio.storage import opened

# How such a file begins: the pickle of its magic number.
BEGIN = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
WANTED = "a state dict of plain tensors"
TIMES = 16  # the most that tensors which share storages may be of the file's bytes
STORAGES = {
    "DoubleStorage": np.float64, "FloatStorage": np.float32, "HalfStorage": np.float16,
    "LongStorage": np.int64, "IntStorage": np.int32, "ShortStorage": np.int16, "CharStorage": np.int8,
    "ByteStorage": np.uint8, "BoolStorage": np.bool_,
}  # fmt: skip


class _Storage(NamedTuple):
    key: str
    dtype: Any
    size: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Refused(pickle.UnpicklingError):
    """The file wants something made that no state dict holds."""


def is_file(path: pathlib.Path) -> bool:
    """Tell whether a file is of this format."""
    with open(path, "rb") as file:
        return file.read(len(BEGIN)) == BEGIN


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return names and arrays.

    Raises:
      ValueError: the file is damaged, or holds anything else; nothing in it is run.
    """
    with (
        opened.reading(path, WANTED, pickle.UnpicklingError, OSError, struct.error),
        open(path, "rb") as file,
    ):
        for _ in ("magic number", "version", "sizes of the writer's numbers"):
            _load(file)
        tensors, storages, total = _load(file), {}, 0
        if not isinstance(tensors, dict) or not tensors:
            raise _Refused(f"{type(tensors).__name__} in place of a state dict")
        for name, tensor in tensors.items():
            if not isinstance(tensor, _Tensor):
                raise _Refused(f"{opened.short(name)}: no tensor under a name")
            storages[tensor.storage.key] = tensor.storage
            total += math.prod(tensor.shape) * np.dtype(tensor.storage.dtype).itemsize
        keys = _load(file)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise _Refused("no list of storages")
        if sorted(keys) != sorted(storages):
            raise _Refused("its storages are not those of its tensors")
        if total > TIMES * (size := os.fstat(file.fileno()).st_size):
            raise _Refused(f"{total} bytes of tensors in a file of {size}")
        arrays = {key: _raw(file, storages[key]) for key in keys}
        return {name: _array(tensor, arrays) for name, tensor in tensors.items()}


def _load(file: BinaryIO) -> Any:
    return _Unpickler(file).load()


def _raw(file: BinaryIO, storage: _Storage) -> np.ndarray:
    kind = np.dtype(storage.dtype)
    left = os.fstat(file.fileno()).st_size - file.tell() - 8
    count = int.from_bytes(file.read(8), "little")
    if count != storage.size or not 0 <= count * kind.itemsize <= left:
        raise _Refused(f"storage {storage.key}: {count} numbers, wanted {storage.size}")
    return np.frombuffer(file.read(count * kind.itemsize), kind.newbyteorder("<"))


def _array(tensor: _Tensor, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return a tensor's numbers, whatever the order of its axes in the storage."""
    shape, stride, offset = tensor.shape, tensor.stride, tensor.offset
    whole, size = arrays[tensor.storage.key], math.prod(shape)
    inside = len(shape) == len(stride) and min((offset, *shape, *stride)) >= 0
    last = (
        offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=False)) if size else offset
    )
    if not inside or size > len(whole) or last >= max(1, len(whole)):
        raise _Refused(f"a tensor {shape} with strides {stride} of {len(whole)} numbers")
    step = whole.itemsize
    steps = [s * step for s in stride]
    return np.lib.stride_tricks.as_strided(whole[offset:], shape, steps, writeable=False).copy()


# What the pickle of a state dict is written in; of the rest, some opcodes run code or take memory at will.
OPCODES = (
    pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.REDUCE, pickle.BUILD, pickle.BINPERSID,
    pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET, pickle.BINUNICODE,
    pickle.SHORT_BINSTRING, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1,
    pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT,
    pickle.SETITEM, pickle.SETITEMS,
)  # fmt: skip
_PYTHON: Any = pickle._Unpickler  # pyright: ignore[reportAttributeAccessIssue]


class _Unpickler(_PYTHON):
    """Makes dictionaries and descriptions of tensors, and nothing else.

    Python's, not C's: that one makes room for as many objects as a file says it has.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name in the file may stand for."""
        if (module, name) == ("collections", "OrderedDict"):
            return _ordered
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuilt
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise _Refused(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the description of a storage, whose numbers come later in the file."""
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or view is not None or not isinstance(key, str):
            raise _Refused("a storage that is part of another")
        if not isinstance(dtype, type) or not isinstance(size, int):
            raise _Refused("a storage of no type or size")
        return _Storage(key, dtype, size)

    def load_reduce(self) -> None:
        """Make a dictionary or describe a tensor; a type of numbers is not called."""
        given = self.stack.pop()
        if self.stack[-1] not in (_ordered, _rebuilt):
            raise _Refused("it calls what is no function")
        self.stack[-1] = self.stack[-1](*given)

    def load_build(self) -> None:
        """Leave out what is noted about a dictionary: the versions of modules."""
        self.stack.pop()
        if not isinstance(self.stack[-1], collections.OrderedDict):
            raise _Refused("it changes what is no dictionary")

    def load_setitem(self) -> None:
        """Put one value under its name."""
        value, name = self.stack.pop(), self.stack.pop()
        self.stack[-1][_name(name)] = value

    def load_setitems(self) -> None:
        """Put values under their names."""
        items = self.pop_mark()
        for name, value in zip(items[::2], items[1::2], strict=True):
            self.stack[-1][_name(name)] = value

    dispatch: ClassVar = {code[0]: _PYTHON.dispatch[code[0]] for code in OPCODES} | {
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


def _name(given: Any) -> str:
    """Return a key that is text; the hash of tuples within tuples can take forever."""
    if not isinstance(given, str):
        raise _Refused(f"{type(given).__name__} in place of a name")
    return given


def _ordered(pairs: Any = ()) -> dict[str, Any]:
    return collections.OrderedDict((_name(name), value) for name, value in pairs)


def _rebuilt(storage: Any, offset: Any, shape: Any, stride: Any, *more: Any) -> _Tensor:
    del more  # whether it had a gradient, and hooks
    if not isinstance(storage, _Storage):
        raise _Refused("a tensor without a storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))
