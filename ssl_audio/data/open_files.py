"""How many files a process may have open: raised as far as the system allows, named where it is not enough.

Called by whoever reads clips: to have no file left to open is no fault of the clip that was to be read.
"""

import contextlib
import errno
import functools
import os
from typing import Any

WANTED = (
    2**16
)  # open files; no more are asked for, since some programs walk through all there may be
_FULL = {
    errno.EMFILE: "this process may have {limit} files open, and has them",
    errno.ENFILE: "the machine has as many files open as it may (sysctl fs.file-max)",
}
_TRY = (
    "No clip is at fault. Allow more with `ulimit -n {more}` before the start (docker run --ulimit "
    "nofile={more}; LimitNOFILE= of systemd), or read with fewer data.workers and data.threads."
)


class TooManyOpenFiles(OSError):
    """No further file can be opened: an error of the process or the machine, not of a file."""


@functools.cache
def raise_limit() -> int:
    """Let this process and those it starts open as many files as they may; return how many that are."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return WANTED
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return WANTED if soft == resource.RLIM_INFINITY else soft
    with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def check(error: BaseException, name: Any) -> None:
    """Raise `TooManyOpenFiles` if that is what an error is about.

    Args:
      error: raised where a file was opened.
      name: of the file.
    """
    if isinstance(error, TooManyOpenFiles):
        raise error
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL:
        limit = raise_limit()
        cause = f"{_FULL[number].format(limit=limit)}. {_TRY.format(more=max(4096, 4 * limit))}"
        raise TooManyOpenFiles(number, cause, os.fspath(name)) from error
