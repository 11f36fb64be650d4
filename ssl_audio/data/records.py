"""Records of ArrayRecord files by their number, however many files there are: few are open at a time.

Called by `shards.py`. To open one costs less than to read a clip of ten seconds, so that files may come
and go; what is left open serves all threads.
"""

import collections
import itertools
import pathlib
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_audio.data import open_files

MOST = 256  # files open in a process, whatever it may have
_SHARE = 4  # and at most this part of what it may have
_TRIES = 3

_numbers = itertools.count()


class Records:
    """The records of some files, one after the other.

    Args:
      paths: of the files.
      counts: records in each.
    """

    def __init__(self, paths: Sequence[pathlib.Path], counts: Sequence[int]):
        self._paths = [str(path) for path in paths]
        self._ends = np.cumsum(counts)
        self._own()

    def _own(self) -> None:
        self._number = next(_numbers)  # the same path may later hold another file
        weakref.finalize(self, _open.forget, self._number)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, i: int) -> bytes:
        """Return record `i`.

        Raises:
          TooManyOpenFiles: its file cannot be opened for that reason.
          OSError, RuntimeError, ValueError: the file is missing or damaged.
        """
        file = int(np.searchsorted(self._ends, i, "right"))
        within = i - (int(self._ends[file - 1]) if file else 0)
        return _open.get(self._number, file, self._paths[file]).read([within])[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own()


class _Open:
    """The files of a process that are open, those used last; threads may share one.

    One that is put out while a thread reads it is closed when that thread lets go of it.
    """

    def __init__(self):
        self._readers: collections.OrderedDict[tuple[int, int], Any] = collections.OrderedDict()
        self._lock = threading.Lock()
        self._forgotten: collections.deque[int] = collections.deque()

    def get(self, owner: int, file: int, path: str) -> Any:
        """Return the reader of a file."""
        key = owner, file
        with self._lock:
            if (reader := self._readers.get(key)) is not None:
                self._readers.move_to_end(key)
                return reader
        reader = self._opened(path)
        with self._lock:
            self._readers[key] = reader
            out = self._take(len(self._readers) - min(MOST, open_files.raise_limit() // _SHARE))
        del out  # closed when no lock is held
        return reader

    def forget(self, owner: int) -> None:
        """Close the files of an owner at the next opportunity: the collector of garbage comes any time."""
        self._forgotten.append(owner)

    def _take(self, surplus: int) -> list[Any]:
        """Return those used longest ago and those of owners that are gone; they are open no longer."""
        gone = {self._forgotten.popleft() for _ in range(len(self._forgotten))}
        keys = [key for key in self._readers if key[0] in gone]
        keys += [key for key in self._readers if key[0] not in gone][: max(0, surplus - len(keys))]
        return [self._readers.pop(key) for key in keys]

    def _opened(self, path: str) -> Any:
        from array_record.python.array_record_module import ArrayRecordReader

        full: OSError | None = None
        for _ in range(_TRIES):
            reader = ArrayRecordReader(
                path, options="readahead_buffer_size:0", file_reader_buffer_size=32768
            )
            if reader.ok():
                return reader
            # The reader does not say why: a file that Python cannot open has a cause with a name.
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                # With its traceback it would hold this frame, and so the reader, after the file is put out.
                full = error.with_traceback(None)
                try:
                    open_files.check(error, path)
                except open_files.TooManyOpenFiles:
                    with self._lock:
                        out = self._take(len(self._readers))
                    del out
                    continue
                raise
        if full is not None:
            open_files.check(full, path)
        raise ValueError("no ArrayRecord file, or damaged")


_open = _Open()
