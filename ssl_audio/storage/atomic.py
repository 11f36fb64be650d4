"""Write files whole or not at all; the only file of the package that does so.

A file takes its name only when all of it is on disk; a kill leaves `.NAME.partial` at most.
"""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator
from typing import IO


def check(final: pathlib.Path) -> None:
    """See that a file can be written, before hours are spent on what goes into it; make its folder.

    Raises:
      ValueError: it cannot, with the cause.
    """
    try:
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        final.parent.mkdir(parents=True, exist_ok=True)
        _try(final.parent)
    except OSError as error:
        raise ValueError(f"{final}: cannot be written: {error.strerror or error}.") from None


def check_folder(folder: pathlib.Path) -> None:
    """See that files can be written into a folder, which need not exist yet.

    Raises:
      ValueError: they cannot, with the cause.
    """
    try:
        folder = folder.absolute()
        _try(next(place for place in (folder, *folder.parents) if place.exists()))
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written: {error.strerror or error}.") from None


def _try(folder: pathlib.Path) -> None:
    trial = folder / f".{os.getpid()}.partial"
    try:
        trial.write_bytes(b"0" * 4096)
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()


@contextlib.contextmanager
def path(final: pathlib.Path, mark: str = "") -> Iterator[pathlib.Path]:
    """Give a path to write to; what is there becomes `final` unless the body raises.

    `mark`: tells writers apart that may write the same file at the same time.
    """
    partial = final.with_name(f".{final.name}{mark}.partial")
    try:
        yield partial
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def file(final: pathlib.Path) -> Iterator[IO[bytes]]:
    """Open a file to write bytes to."""
    with path(final) as partial, open(partial, "wb") as opened:
        yield opened


def write(final: pathlib.Path, content: bytes | str) -> None:
    """Write a file; text as UTF-8."""
    with file(final) as opened:
        opened.write(content.encode() if isinstance(content, str) else content)
