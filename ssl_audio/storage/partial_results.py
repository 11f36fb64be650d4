"""Results on disk as they come, so that a kill loses little: `inference/embed.py` writes and reads them.

A part is one file, whole or absent: a line of JSON that says what lies where, then float32 numbers.
"""

import contextlib
import json
import pathlib
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssl_audio.storage import atomic, opened
from ssl_audio.storage.remote import Remote

SETTINGS = "settings.json"
BYTES = 2**25  # a part is written when this much has come together,
SHARE = 0.01  # or after this share of the time the run has taken, and at least a second


class _Place(NamedTuple):
    path: Any
    offset: int  # bytes
    shape: tuple[int, ...]


class Parts:
    """A folder that keeps the vector and the frames of each finished clip, by the clip's id.

    Frames come piece by piece; those of a clip that a killed run did not finish count for nothing.
    The folder is made with the first part.

    Raises:
      ValueError: the folder holds the parts of a run with other settings.
    """

    def __init__(self, folder: pathlib.Path | Remote, settings: Mapping[str, Any]):
        self._folder, self._settings = folder, dict(settings)
        self._copies: dict[Any, pathlib.Path] = {}  # of objects of a store, on this machine
        self._vectors: dict[str, tuple[int, _Place]] = {}  # by clip: of which run, and where
        self._frames: dict[tuple[int, str], list[_Place]] = {}  # by run and clip
        self._run = self._number = 0  # in the name of the next part
        self._waiting: list[tuple[str, str, np.ndarray]] = []
        self._bytes = 0  # that wait
        self._began = self._written = time.monotonic()
        if not (folder / SETTINGS).exists():
            self.remove()  # what a kill left while parts were being removed
        else:
            self._check()
            for path in sorted(folder.glob("*.part")):
                self._run = 1 + self._index(path)

    @property
    def finished(self) -> set[str]:
        """The clips whose results are complete and on disk."""
        return set(self._vectors)

    def add_frames(self, id: str, frames: np.ndarray) -> None:
        """Take the next frames [n, D] of a clip."""
        self._add("frames", id, frames)

    def finish(self, id: str, vector: np.ndarray) -> None:
        """Take the vector [D'] of a clip that has given all its frames."""
        self._add("vector", id, vector)

    def vector(self, id: str) -> np.ndarray:
        """Return a finished clip's vector [D']."""
        return self._read(self._vectors[id][1])

    def frames(self, id: str) -> Iterator[np.ndarray]:
        """Yield a finished clip's frames [n, D], piece by piece."""
        return map(self._read, self._pieces(id))

    def length(self, id: str) -> int:
        """Return how many frames a finished clip has."""
        return sum(place.shape[0] for place in self._pieces(id))

    def forget_changed(self, files: Mapping[str, str]) -> int:
        """Take clips for unfinished whose files have changed since they were finished; return how many.

        Args:
          files: of clips, by id. What lies in an object store is not looked at, nor are times to come, which
            recorders with a wrong clock give.
        """
        times: dict[Any, float] = {}
        changed = []
        for id, file in files.items():
            if id not in self._vectors or isinstance(path := self._vectors[id][1].path, Remote):
                continue
            with contextlib.suppress(OSError):  # gone: that is found when it is read
                since = times.setdefault(path, path.stat().st_mtime)
                if since < pathlib.Path(file).stat().st_mtime <= time.time():
                    changed.append(id)
        for id in changed:
            del self._vectors[id]
        return len(changed)

    def write(self) -> None:
        """Put on disk what has come since the last part."""
        if not self._waiting:
            return
        if not (self._folder / SETTINGS).exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic.file(self._folder / SETTINGS) as file:
                file.write(json.dumps(self._settings, indent=1).encode())
        offset, index = 0, []
        for kind, id, values in self._waiting:
            index.append((kind, id, offset, values.shape))
            offset += values.nbytes
        path = self._folder / f"{self._run:04d}-{self._number:06d}.part"
        with atomic.file(path) as file:
            file.write(json.dumps(index).encode() + b"\n")
            for _, _, values in self._waiting:
                file.write(values.data)
        self._index(path)
        self._waiting, self._bytes = [], 0
        self._number, self._written = self._number + 1, time.monotonic()

    def remove(self) -> None:
        """Remove the parts, and the folder unless something else is in it."""
        # Settings first: parts without them count for nothing.
        for pattern in (SETTINGS, "*.part", ".*.partial"):
            for path in self._folder.glob(pattern):
                path.unlink()
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _add(self, kind: str, id: str, values: np.ndarray) -> None:
        self._waiting.append((kind, id, np.ascontiguousarray(values, np.float32)))
        self._bytes += values.nbytes
        now = time.monotonic()
        late = now - self._written >= max(1.0, SHARE * (now - self._began))
        if late or self._bytes >= BYTES:
            self.write()

    def _check(self) -> None:
        path = self._folder / SETTINGS
        hint = f"Remove {self._folder} to start anew."
        before = opened.json_file(path, f"the settings of an interrupted run. {hint}")
        differ = [k for k, v in self._settings.items() if before.get(k) != v]
        if differ:
            changes = ", ".join(f"{k}: {before.get(k)}, now {self._settings[k]}" for k in differ)
            raise ValueError(
                f"{self._folder}: an interrupted run with other settings left its results here "
                f"({changes}). Go on with its settings, or remove the folder to start anew."
            )

    def _index(self, path: Any) -> int:
        """Take note of what a part holds; return which run wrote it."""
        wanted = f"a part of an interrupted run. Remove {self._folder} to start anew"
        with opened.reading(path, wanted), path.open("rb") as file:
            run = int(path.stem.partition("-")[0])
            index = json.loads(file.readline())
            start, size = file.tell(), path.stat().st_size
            ends = (start + offset + 4 * int(np.prod(shape)) for _, _, offset, shape in index)
            if max(ends, default=-1) != size:
                raise ValueError(f"{size} bytes, which is not what its first line says")
        for kind, id, offset, shape in index:
            place = _Place(path, start + offset, tuple(shape))
            if kind == "vector":
                self._vectors[id] = run, place
            else:
                self._frames.setdefault((run, id), []).append(place)
        return run

    def _pieces(self, id: str) -> list[_Place]:
        return self._frames.get((self._vectors[id][0], id), [])

    def _read(self, place: _Place) -> np.ndarray:
        path = place.path
        if isinstance(path, Remote):
            if path not in self._copies:
                if not self._copies:
                    self._scratch = pathlib.Path(tempfile.mkdtemp(prefix="ssl_audio-"))
                    weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
                copy = self._scratch / path.name
                path.download(copy)
                self._copies[path] = copy
            path = self._copies[path]
        values = np.fromfile(path, np.float32, int(np.prod(place.shape)), offset=place.offset)
        return values.reshape(place.shape)


class Joined:
    """The finished clips of several `Parts`, read as if they were one."""

    def __init__(self, some: Sequence[Parts]):
        self._of = {id: parts for parts in some for id in parts.finished}

    @property
    def finished(self) -> set[str]:
        """The clips whose results are complete."""
        return set(self._of)

    def vector(self, id: str) -> np.ndarray:
        """Return a clip's vector [D']."""
        return self._of[id].vector(id)

    def frames(self, id: str) -> Iterator[np.ndarray]:
        """Yield a clip's frames [n, D], piece by piece."""
        return self._of[id].frames(id)

    def length(self, id: str) -> int:
        """Return how many frames a clip has."""
        return self._of[id].length(id)
