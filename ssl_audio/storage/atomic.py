"""Write files whole or not at all; the only file of the package that does so.

A file takes its name only when all of it is on disk; a kill leaves `.NAME.partial` at most. An object of a
store (`remote.py`) is made from a file that is complete on this machine.
"""

import contextlib
import errno
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import IO

from ssl_audio.storage.remote import Remote


def check(final: pathlib.Path | Remote, *others: str | os.PathLike | None) -> None:
    """See that a file can be written, before hours are spent on what goes into it; make its folder.

    `others`: files that the command reads or writes, too, which it must not replace; None: not given.

    Raises:
      ValueError: it cannot, with the cause; it is one of the others.
    """
    if isinstance(final, Remote):
        return _try_remote(final.parent)
    apart([final], others)
    try:
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        final.parent.mkdir(parents=True, exist_ok=True)
        _try(final.parent)
    except OSError as error:
        raise ValueError(f"{final}: cannot be written: {error.strerror or error}.") from None


def apart(finals: Iterable[str | os.PathLike], others: Iterable[str | os.PathLike | None]) -> None:
    """See that no file which is to be written is one that the command reads or writes, too.

    Raises:
      ValueError: one is, by whatever name.
    """
    known = {os.path.realpath(os.path.expanduser(other)) for other in others if other}
    for final in finals:
        if os.path.realpath(os.path.expanduser(final)) in known:
            raise ValueError(
                f"{final}: the command has this file for something else, too, and would replace it; give "
                "another name."
            )


def check_folder(folder: pathlib.Path | Remote) -> None:
    """See that files can be written into a folder, which need not exist yet.

    Raises:
      ValueError: they cannot, with the cause.
    """
    if isinstance(folder, Remote):
        return _try_remote(folder)
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


def _try_remote(folder: Remote) -> None:
    trial = folder / f".{uuid.uuid4().hex}.partial"
    try:
        trial.put(b"0")
        trial.unlink()
    except Exception as error:  # each store has its own
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder}: cannot be written: {said:.300}") from None


@contextlib.contextmanager
def path(final: pathlib.Path | Remote, mark: str = "") -> Iterator[pathlib.Path]:
    """Give a path to write to; what is there becomes `final` unless the body raises.

    `mark`: tells writers apart that may write the same file at the same time.
    """
    if isinstance(final, Remote):
        with tempfile.TemporaryDirectory(prefix="ssl_audio-") as scratch:
            partial = pathlib.Path(scratch, final.name)
            yield partial
            final.upload(partial)
        return
    partial = final.with_name(f".{final.name}{mark}.partial")
    try:
        yield partial
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def file(final: pathlib.Path | Remote) -> Iterator[IO[bytes]]:
    """Open a file to write bytes to."""
    with path(final) as partial, open(partial, "wb") as opened:
        yield opened


def write(final: pathlib.Path | Remote, content: bytes | str, mark: str = "") -> None:
    """Write a file; text as UTF-8. `mark`: see `path`."""
    content = content.encode() if isinstance(content, str) else content
    if isinstance(final, Remote):
        return final.put(content)
    with path(final, mark) as partial:
        partial.write_bytes(content)
