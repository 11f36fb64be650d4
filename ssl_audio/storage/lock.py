"""One run in a workdir at a time: a file `lock` that names the process which is at work there.

The kernel gives the file's lock back when its process dies, so that the same command goes on at once. Of
another machine's process only the file's time tells whether it lives: see `Lock`.
"""

import contextlib
import json
import logging
import os
import pathlib
import socket
import threading
import time
import uuid
from typing import Any

from ssl_audio.storage import atomic
from ssl_audio.storage.remote import Remote

log = logging.getLogger("ssl_audio")

NAME = "lock"
POLL = 0.5  # s
HINT = "Stop it or wait for its end, or use another --workdir."


class Lock:
    """Holds a workdir while the body runs; a context manager, for the first process of a run only.

    A process of this machine that died is followed at once. One of another machine touches the file four
    times in `expires` s: when it has not done so for as long, it counts as dead, and this one takes over.

    Raises:
      ValueError: another run is at work in the workdir, with host, process and time.
    """

    def __init__(self, workdir: pathlib.Path, expires: float = 60.0, hint: str = HINT):
        self.workdir, self.path, self.expires = workdir, workdir / NAME, max(expires, 1.0)
        self.hint, self.held = hint, False
        self.mine = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "boot": _boot(),
            "token": uuid.uuid4().hex,
        }
        self.lost = ""  # why the workdir is not ours any more
        self.file = -1
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    def __enter__(self) -> "Lock":
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._take()
        self.held = True
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()
        with contextlib.suppress(OSError):
            if (_read(self.path) or {}).get("token") == self.mine["token"]:
                self.path.unlink()
        if self.file >= 0:
            os.close(self.file)

    def check(self) -> None:
        """Raise RuntimeError when another run has taken over, or the workdir is gone."""
        if not self.held:  # not the first process
            return
        if not self.lost and not self.workdir.is_dir():
            self.lost = "it was removed while the run was under way"
        if self.lost:
            raise RuntimeError(
                f"{self.workdir}: {self.lost}. This run ends; nothing more is saved."
            )

    def _take(self) -> None:
        first: tuple[Any, int] | None = None  # owner and time of the file when it was first seen
        began = time.monotonic()
        while True:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise ValueError(f"{self.workdir}: cannot be written: {error.strerror}.") from None
            held = hold_file(file)
            owner, beat = _read(self.path), os.fstat(file).st_mtime_ns
            if not _is(file, self.path):  # its owner has just removed it
                os.close(file)
                continue
            here = owner is not None and owner["boot"] == self.mine["boot"]
            if held is not False and (owner is None or (here and held)):
                return self._write(file, owner)
            waited = time.monotonic() - began
            if owner is None and waited < 2:  # being written
                pass
            elif owner is None or (here and held is False):
                raise self._refusal(owner)
            elif first is None:
                first = owner["token"], beat
                log.warning(
                    "%s: locked by %s; watching for up to %g s whether it lives",
                    self.workdir, _named(owner), self.expires,
                )  # fmt: skip
            elif first != (owner["token"], beat):
                raise self._refusal(owner)
            elif waited > self.expires:
                return self._write(file, owner)
            os.close(file)
            time.sleep(POLL)

    def _write(self, file: int, owner: dict[str, Any] | None) -> None:
        if owner is not None:
            log.warning("%s: taking over from %s, which died", self.workdir, _named(owner))
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(self.mine).encode(), 0)
        os.fsync(file)
        self.file = file

    def _refusal(self, owner: dict[str, Any] | None) -> ValueError:
        return ValueError(
            f"{self.workdir}: another run is at work here: {_named(owner)}. {self.hint}"
        )

    def _beat(self) -> None:
        while not self.over.wait(self.expires / 4):
            try:
                os.utime(self.path)
                owner = _read(self.path)
            except FileNotFoundError:
                self.lost = "it, or the file 'lock' in it, was removed while the run was under way"
                return
            except OSError:  # a network file system away for a moment
                continue
            if owner is not None and owner["token"] != self.mine["token"]:
                self.lost = f"{_named(owner)} has taken over, since this one gave no sign of life"
                return


def hold_file(file: int) -> bool | None:
    """Return whether the kernel's lock of a file could be had; None: it has none here."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _read(path: pathlib.Path | Remote) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, FileNotFoundError):
        return None
    keys = ("host", "pid", "since", "boot", "token")
    return found if isinstance(found, dict) and all(key in found for key in keys) else None


def _is(file: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _named(owner: dict[str, Any] | None) -> str:
    if owner is None:
        return "a process that has not said which"
    return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"


def _boot() -> str:
    """Return what tells this start of this machine's kernel from all others."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


class Lease(Lock):
    """The same in an object store, which locks nothing: its owner writes the object anew as a sign of life.

    Whoever finds one watches it for `expires` s. Of two that come at once the later writer has it.
    """

    workdir: Any  # Remote
    path: Any

    def check(self) -> None:
        """Raise RuntimeError when another has taken over."""
        if self.lost:
            raise RuntimeError(f"{self.workdir}: {self.lost}. This run ends.")

    def _take(self) -> None:
        owner = first = _read(self.path)
        began = time.monotonic()
        if first is not None:
            log.warning(
                "%s: locked by %s; watching for up to %g s whether it lives",
                self.workdir, _named(first), self.expires,
            )  # fmt: skip
        while owner is not None and time.monotonic() - began <= self.expires:
            if owner != first:
                raise self._refusal(owner)
            time.sleep(POLL)
            owner = _read(self.path)
        if owner is not None:
            log.warning("%s: taking over from %s, which died", self.workdir, _named(owner))
        self._sign()
        time.sleep(2 * POLL)  # longer than from another's look to its writing
        if (owner := _read(self.path)) is None or owner["token"] != self.mine["token"]:
            raise self._refusal(owner)

    def _sign(self) -> None:
        self.mine["sign"] = self.mine.get("sign", 0) + 1
        atomic.write(self.path, json.dumps(self.mine))

    def _beat(self) -> None:
        while not self.over.wait(self.expires / 4):
            # A store is away for a moment: its libraries raise errors of their own, which are no OSError.
            with contextlib.suppress(Exception):
                owner = _read(self.path)
                if owner is None or owner["token"] != self.mine["token"]:
                    who = "nobody" if owner is None else _named(owner)
                    self.lost = f"{who} holds it now, since this one gave no sign of life"
                    return
                self._sign()


def on(folder: pathlib.Path | Remote, expires: float = 60.0, hint: str = HINT) -> Lock:
    """Return the lock of a folder, on a file system or in an object store."""
    kind: Any = Lease if isinstance(folder, Remote) else Lock
    return kind(folder, expires, hint)


def owner(folder: pathlib.Path | Remote) -> str:
    """Return who holds a folder or died with it, or nothing."""
    found = _read(folder / NAME)
    return _named(found) if found else ""
