"""Folders and files of object stores, as gs://, s3:// and whatever fsspec knows, used like `pathlib` paths.

`place` gives either kind for what a user wrote. An object appears whole or not at all, when it is closed.
"""

import fnmatch
import os
import pathlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

EXTRAS = {"gs": "gs", "gcs": "gs", "s3": "s3"}  # address → the extra of this package


class _Stat(NamedTuple):
    st_size: int  # bytes


class Remote:
    """A place in an object store; folders need not be made there.

    Raises:
      ValueError: the address is of a kind that fsspec does not know.
      RuntimeError: the library for that kind of address is not installed.
    """

    def __init__(self, address: str):
        import fsspec

        self._kind, _, inside = address.partition("://")
        self._inside = "/".join(part for part in inside.split("/") if part)
        try:
            # Listings are kept by default, and then what other machines write is never seen.
            self._files = fsspec.filesystem(self._kind, use_listings_cache=False)
        except ImportError as error:
            extra = EXTRAS.get(self._kind)
            hint = f"pip install 'ssl_audio[{extra}]'" if extra else str(error)
            raise RuntimeError(f"{address}: needs a library for {self._kind}://: {hint}") from None
        except ValueError:
            raise ValueError(
                f"{address}: no such kind of address; wanted a folder, or gs://…, s3://…"
            ) from None

    def __str__(self) -> str:
        return f"{self._kind}://{self._inside}"

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Remote, (str(self),)

    def __truediv__(self, name: str) -> "Remote":
        return Remote(f"{self}/{name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: "Remote") -> bool:
        return str(self) < str(other)

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self._inside.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return pathlib.PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return pathlib.PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "Remote":
        """The folder that this is in."""
        return Remote(f"{self._kind}://{self._inside.rpartition('/')[0]}")

    def with_name(self, name: str) -> "Remote":
        """Return a neighbour."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> "Remote":
        """Return the neighbour with another ending."""
        return self.with_name(f"{self.stem}{suffix}")

    def expanduser(self) -> "Remote":
        """Return the same place."""
        return self

    def exists(self) -> bool:
        """Tell whether there is an object, or a folder with one."""
        return self._files.exists(str(self))

    def is_file(self) -> bool:
        """Tell whether there is such an object."""
        return self._files.isfile(str(self))

    def is_dir(self) -> bool:
        """Tell whether there are objects below."""
        return self._files.isdir(str(self))

    def stat(self) -> _Stat:
        """Return the object's size."""
        return _Stat(self._files.size(str(self)))

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the object to read bytes."""
        return self._files.open(str(self), mode)

    def read_bytes(self) -> bytes:
        """Return the content."""
        return self._files.cat_file(str(self))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the content as text."""
        return self.read_bytes().decode(encoding)

    def put(self, content: bytes) -> None:
        """Write the object; `storage/atomic.py` is what calls it."""
        self._files.pipe_file(str(self), content)

    def upload(self, path: pathlib.Path) -> None:
        """Write the object from a local file; `storage/atomic.py` is what calls it."""
        self._files.put_file(str(path), str(self))

    def download(self, path: pathlib.Path) -> None:
        """Copy the object to a local file."""
        self._files.get_file(str(self), str(path))

    def iterdir(self) -> Iterator["Remote"]:
        """Yield what is directly below."""
        try:
            found = self._files.ls(str(self), detail=False)
        except FileNotFoundError:
            return
        for path in found:
            name = path.rstrip("/").rpartition("/")[2]
            if name != self.name or path.rstrip("/").count("/") > self._inside.count("/"):
                yield self / name

    def glob(self, pattern: str) -> Iterator["Remote"]:
        """Yield what is directly below and has such a name."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            self._files.rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: folders are parts of the names of objects."""

    def rmdir(self) -> None:
        """Do nothing: a folder is gone with its last object."""


def place(where: Any) -> Any:
    """Return what a user wrote as a path, or as a place in an object store if it is an address.

    Raises:
      ValueError, RuntimeError: see `Remote`; file:// stands before a path that is not absolute.
    """
    if isinstance(where, (Remote, pathlib.Path)):
        return where
    text = os.fspath(where)
    if text.startswith("file://"):
        path = pathlib.Path(text.removeprefix("file://"))
        if not path.is_absolute():
            raise ValueError(f"{text}: wanted the folder itself, or file:///… from the root on")
        return path
    return Remote(text) if "://" in text else pathlib.Path(text).expanduser()
