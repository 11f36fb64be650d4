"""Write files whole or not at all; the only file of the package that does so.

A file takes its name only when all of it is on disk; a kill leaves `.NAME.partial` at most.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import IO


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
