"""NumPy arrays that the worker processes of a program look at together instead of copying them.

`clips.py` and `mixture.py` keep theirs here; `reading.py` sends them. The memory belongs to no file with a
name, so it is gone with the last process that has it open, however that ends.
"""

import contextlib
import math
import mmap
import os
import secrets
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssl_audio.data import open_files

_ALIGN = 64  # bytes
_sending = threading.local()


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Pickle arrays, in this thread and meanwhile, as a reference that processes of this machine can follow.

    It holds as long as this process has the arrays. Outside of it they are pickled whole, for any time and
    place.
    """
    before = getattr(_sending, "on", False)
    _sending.on = True
    try:
        yield
    finally:
        _sending.on = before


class _Place(NamedTuple):
    """Where arrays lie in the memory of a process; `mark` stands at its beginning."""

    process: int
    file: int
    mark: bytes
    layout: tuple[tuple[str, str, tuple[int, ...], int], ...]  # name, type, shape, first byte


class SharedArrays(Mapping[str, np.ndarray]):
    """Name → array, read only.

    Args:
      arrays: not to be changed any more.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = {name: np.ascontiguousarray(array).view() for name, array in arrays.items()}
        for array in self._arrays.values():
            array.flags.writeable = False
        self._place: _Place | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @property
    def nbytes(self) -> int:
        """Return how many bytes they take."""
        return sum(array.nbytes for array in self.values())

    def __getstate__(self) -> Any:
        shared = getattr(_sending, "on", False) and hasattr(os, "memfd_create")
        if shared and os.path.isdir("/proc/self/fd"):
            return self._shared()
        return {name: np.asarray(array) for name, array in self.items()}

    def __setstate__(self, state: Any) -> None:
        self.__init__({})
        if not isinstance(state, _Place):
            self.__init__(state)
            return
        path = f"/proc/{state.process}/fd/{state.file}"
        try:  # not to wait, should the number be that of a pipe by now
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                self._map(file, state)
            finally:
                os.close(file)
        except (OSError, ValueError) as error:
            open_files.check(error, path)
            raise RuntimeError(
                f"process {os.getpid()} does not reach what process {state.process} knows of the clips "
                f"({path}: {error}): has that ended, or may it not be looked into? Set data.workers=0."
            ) from None

    def _shared(self) -> _Place:
        """Move the arrays to memory that others can map; once."""
        if self._place is None:
            mark, layout, at = secrets.token_bytes(_ALIGN), [], _ALIGN
            for name, array in self.items():
                layout.append((name, array.dtype.str, array.shape, at))
                at += -(-array.nbytes // _ALIGN) * _ALIGN
            file = os.memfd_create("clips")  # open while this object is there
            weakref.finalize(self, os.close, file)
            os.truncate(file, at)
            with mmap.mmap(file, at) as memory:
                memory[:_ALIGN] = mark
                for (*_, first), array in zip(layout, self.values(), strict=True):
                    memory[first : first + array.nbytes] = array.tobytes()
            self._map(file, _Place(os.getpid(), file, mark, tuple(layout)))
        assert self._place is not None
        return self._place

    def _map(self, file: int, place: _Place) -> None:
        memory = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
        if memory[:_ALIGN] != place.mark:
            raise ValueError("something else lies there")
        self._place = place
        self._arrays = {
            name: np.frombuffer(memory, kind, math.prod(shape), first).reshape(shape)
            for name, kind, shape, first in place.layout
        }
