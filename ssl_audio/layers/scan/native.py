"""A shared object compiled on this machine at first use: where it is, who may have written it, who compiles.

Any number of processes may ask at once: one compiles, the others wait for it.
"""

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import platform
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jaxlib

from ssl_audio import startup
from ssl_audio.storage import atomic, lock

log = logging.getLogger(__name__)

NATIVE = "-mcpu=native" if platform.machine() == "arm64" else "-march=native"
COMPILERS = ("c++", "g++", "clang++")  # unless CXX names one
TIMEOUT = 120.0  # s
POLL = 0.1  # s
EXPECTED = "about 10 s"
RETRY = "ssl-audio compile-scan"
OFF = "SSL_AUDIO_SCAN=xla"


class NoCompiler(RuntimeError):
    """Nothing to compile with."""


@dataclasses.dataclass(frozen=True)
class Library:
    """A shared object for this machine's processor, system and version of jax.

    Attributes:
      what: it holds, in words.
      name: of its file.
      source: file in C++; it may include the headers beside it.
      options: of the compiler.
    """

    what: str
    name: str
    source: pathlib.Path
    options: tuple[str, ...]

    def find(self) -> pathlib.Path | None:
        """Return where it is, if this user or root has compiled it; None: nowhere."""
        paths = [folder / self.file for folder in folders()]
        return next(filter(_trusted, paths), None)

    def load(self) -> ctypes.CDLL:
        """Load it.

        Raises:
          FileNotFoundError: it is nowhere, or another user could have written it.
          OSError: it cannot be loaded, as from a file system mounted with noexec.
        """
        path = self.find()
        if path is None:
            raise FileNotFoundError(f"{self.what}: not compiled for this machine: run {RETRY}")
        with _opened(path) as file:
            if not os.path.exists(f"/proc/self/fd/{file}"):  # not Linux
                return ctypes.CDLL(str(path))
            # The very file that was looked at, whatever has happened to its name since. Its descriptor
            # stays open: the loader takes two files of one name for the same.
            return ctypes.CDLL(f"/proc/self/fd/{os.dup(file)}")

    def ensure(self) -> str:
        """Compile it unless it is there; return why it cannot be used, or "".

        A failure is remembered until the compiler, its options or what the file depends on change.

        Raises:
          NoCompiler: there is no compiler.
        """
        if self.find():
            return ""
        command = compiler()
        try:
            return self._in_turn(self._folder(), command)
        except (OSError, RuntimeError) as error:
            return str(error)

    def build(self) -> pathlib.Path:
        """Compile it, whatever was there or has failed before, and return where it is.

        Raises:
          NoCompiler, RuntimeError: no compiler, one that fails or takes too long, or no folder for it.
        """
        command, folder = compiler(), self._folder()
        self._failed(folder).unlink(missing_ok=True)
        return self._compile(folder, command)

    def _folder(self) -> pathlib.Path:
        """Return the first folder that it can be compiled into; RuntimeError: none."""
        faults = []
        for folder in folders():
            path, fault = folder / self.file, _fault(folder)
            if not fault and os.path.lexists(path) and not _trusted(path):
                fault = f"{path}: another user could have written it"
            if not fault:
                return folder
            faults.append(fault)
        raise RuntimeError(
            f"{'; '.join(faults)}. Set SSL_AUDIO_CACHE to a folder that only you can write."
        )

    @property
    def file(self) -> str:
        """The name of the file, after all that it depends on."""
        return f"{self.name}-{self._digest()}.so"

    def _digest(self) -> str:
        sources = self.source, *sorted(self.source.parent.glob("*.h"))
        parts = [*(path.read_text() for path in sources), *self.options, NATIVE, *_machine()]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def _failed(self, folder: pathlib.Path) -> pathlib.Path:
        return (folder / self.file).with_suffix(".failed")

    def _in_turn(self, folder: pathlib.Path, command: list[str]) -> str:
        """Compile, or wait for the process that does; return what is wrong, or ""."""
        began = time.monotonic()
        with _locked((folder / self.file).with_suffix(".lock")) as ours:
            if self.find():
                return ""
            if not ours:
                waited = time.monotonic() - began
                return f"another process has been compiling it for {waited:.0f} s"
            known = _read(self._failed(folder))
            if known.get("compiler") == _identity(command):
                return (
                    f"{known.get('reason', 'failed')} (on {known.get('time')}; {RETRY} tries again)"
                )
            log.info(
                "compiling %s for this processor with %s: %s, once; %s turns it off",
                self.what, command[0], EXPECTED, OFF,
            )  # fmt: skip
            try:
                self._compile(folder, command)
            except RuntimeError as error:
                reason = _short(str(error))
                found = {"compiler": _identity(command), "reason": reason}
                found["time"] = time.strftime("%Y-%m-%d %H:%M:%S")
                with contextlib.suppress(OSError):
                    atomic.write(self._failed(folder), json.dumps(found))
                return f"{reason} ({RETRY} tries again)"
        return ""

    def _compile(self, folder: pathlib.Path, command: list[str]) -> pathlib.Path:
        final = folder / self.file
        # A name that nobody can foresee, and so not a link that leads elsewhere.
        with atomic.path(final, f".{secrets.token_hex(8)}") as partial:
            files = [f"-I{jax.ffi.include_dir()}", str(self.source), "-o", str(partial)]
            _run([*command, *self.options, NATIVE, *files], folder)
            try:
                partial.chmod(0o755)
            except FileNotFoundError:
                raise RuntimeError(f"{shlex.join(command)} succeeded, but wrote no file") from None
        return final


def folders() -> list[pathlib.Path]:
    """Return where compiled code may be, the best first: the cache, a temporary folder of the user's own."""
    found = [pathlib.Path(startup.cache())]
    if hasattr(os, "geteuid") and (temporary := _temporary()):
        found.append(temporary / f"ssl_audio-{os.geteuid()}")
    return [folder.absolute() for folder in found if not str(folder).startswith("~")]


def _temporary() -> pathlib.Path | None:
    try:
        return pathlib.Path(tempfile.gettempdir())
    except FileNotFoundError:  # nothing at all can be written
        return None


def compiler() -> list[str]:
    """Return the command of the compiler: what the environment variable CXX says, or the first there is.

    Raises:
      NoCompiler: there is none.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    what = f"CXX={named[0]}: no such compiler" if named else "no C++ compiler here"
    raise NoCompiler(f"{what}; install GCC or Clang, or name one in the environment variable CXX")


def _identity(command: list[str]) -> list[Any]:
    """Return what tells a compiler from another or a later one, without running it: it may hang."""
    path = os.path.realpath(shutil.which(command[0]) or command[0])
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return [*command, path, found.st_size, found.st_mtime_ns]
    return [*command, path]


@functools.cache
def _machine() -> list[str]:
    """Return what compiled code depends on beside its source: homes are shared by unlike machines."""
    parts = [jax.__version__, jaxlib.__version__, sys.platform, platform.machine()]
    parts += platform.libc_ver()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return parts + [line for line in lines if line.startswith(("flags", "Features"))][:1]
    except OSError:
        return [*parts, platform.processor()]


def _run(command: list[str], folder: pathlib.Path) -> None:
    """Run a compiler and what it starts for at most `TIMEOUT`; raise RuntimeError when it fails."""
    with tempfile.TemporaryFile(dir=folder) as said:  # not a pipe, which a child could keep open
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        except OSError as error:
            raise RuntimeError(f"{command[0]}: {error.strerror}") from None
        try:
            status = process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{command[0]} had not finished after {TIMEOUT:g} s") from None
        finally:
            if process.returncode is None:  # also after Ctrl-C
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    if status:
        raise RuntimeError(f"{shlex.join(command)} failed with status {status}:\n{text[:4000]}")


def _short(text: str) -> str:
    """Return a compiler's message in one line: what failed, and the first error."""
    first, *more = text.strip().splitlines()
    if not more:
        return first
    error = next((line for line in more if "error" in line.lower()), more[-1])
    return f"{first.split()[0]} {first[first.rfind('failed') :]} {error.strip()}"[:400]


def _fault(folder: pathlib.Path) -> str:
    """Return why nothing should be compiled into a folder, which is made if need be; or ""."""
    private = folder.parent == _temporary()
    try:
        folder.mkdir(mode=0o700 if private else 0o777, parents=not private, exist_ok=True)
        found = folder.lstat()
        if private and not (stat.S_ISDIR(found.st_mode) and _ours(found)):
            return f"{folder}: another user made it, or can write there"
        atomic.check_folder(folder)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _ours(found: os.stat_result) -> bool:
    """Tell whether only this user and root can have written there."""
    if not hasattr(os, "geteuid"):
        return True
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _trusted(path: pathlib.Path) -> bool:
    """Tell whether a file is there that only this user or root can have written."""
    with contextlib.suppress(OSError), _opened(path):
        return True
    return False


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[int]:
    """Open a file that only this user or root can have written; else an OSError."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        found = os.fstat(file)
        if not (stat.S_ISREG(found.st_mode) and _ours(found)):
            raise PermissionError(f"{path}: another user could have written it")
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[bool]:
    """Hold a file's lock while the body runs; False: another process did so for longer than it may."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        end = time.monotonic() + TIMEOUT + 30
        # None: the file system has no locks, and two that compile do no harm.
        while (held := lock.hold_file(file)) is False and time.monotonic() < end:
            time.sleep(POLL)
        yield held is not False
        if held:
            path.unlink(missing_ok=True)
    finally:
        os.close(file)


def _read(path: pathlib.Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    return {}
