"""What every command does before its work: parser, settings of the CPU, logs, compilation cache, errors."""

import argparse
import ctypes
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

log = logging.getLogger(__name__)


def parser(verb: str, doc: str | None) -> argparse.ArgumentParser:
    """Return the parser of a verb, without options yet; `doc` is shown by --help as it is."""
    return argparse.ArgumentParser(
        prog=f"ssl-audio {verb}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option --trust of verbs that load a folder."""
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE",
        help="whose classes a folder's config.json may name beside ours; its code runs",
    )  # fmt: skip


def add_bad_share(parser: argparse.ArgumentParser) -> None:
    """Add the option --max-bad-share of verbs that read many files."""
    parser.add_argument("--max-bad-share", type=share, default=0.01, help="of unreadable files")


def step(text: str) -> int | str:
    """Return the number of a checkpoint, or "best", for argparse."""
    if text == "best" or text.isdigit():
        return text if text == "best" else int(text)
    raise argparse.ArgumentTypeError(f"got {text!r}, wanted the number of a checkpoint, or best")


def share(text: str) -> float:
    """Return a number from 0 to 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a share from 0 to 1")
    return value


def logs() -> None:
    """Show our own messages from INFO on, those of libraries from WARNING on, without decoration."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("ssl_audio").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.ERROR)


def use_compilation_cache() -> None:
    """Keep compiled programs in ~/.cache/ssl_audio (or SSL_AUDIO_CACHE) for the next start.

    JAX reads the variable when it is imported, so this comes before; many commands never import it.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _programs())


def keep_programs() -> None:
    """Do the same where JAX is there already, as in a notebook, unless it was told where to keep programs."""
    import jax

    now: Any = jax.config
    if now.jax_compilation_cache_dir or not now.jax_enable_compilation_cache:
        return
    jax.config.update("jax_compilation_cache_dir", _programs())
    log.info("compiled programs are kept in %s (SSL_AUDIO_CACHE names another folder)", _programs())


def cache() -> str:
    """Return the folder of what this package keeps between programs: SSL_AUDIO_CACHE, or ~/.cache/ssl_audio.

    A user without a home keeps the "~".
    """
    return os.path.expanduser(os.environ.get("SSL_AUDIO_CACHE") or "~/.cache/ssl_audio")


def _programs() -> str:
    return cache() if os.environ.get("SSL_AUDIO_CACHE") else os.path.join(cache(), "xla")


# Parameters of glibc's mallopt (malloc.h) and values: a thread's arena cannot hold more than 64 MiB, which
# is why there must be one for all; memory that is freed stays with the process.
_MALLOC = {
    -8: 1,
    -1: 2**31 - 1,
    -3: 2**31 - 1,
    -2: 2**28,
}  # arenas, trim and mmap thresholds, top pad


# The same as variables, for a program that begins; and blocks are mapped with huge pages, which a
# running program cannot ask of glibc.
_ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_MMAP_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
}


def tune_cpu(*, restart: bool = False) -> bool:
    """Make this process faster on a CPU: up to twice in the front end, a tenth in training.

    XLA's CPU back end takes its memory and gives it back with every call, which glibc's allocator by
    default turns into page faults: from here on the allocator keeps what it has, so the process stays as
    large as it was at most. And where the processor has AVX-512, XLA is told to use its whole width.

    For Linux with glibc; does nothing where there is a GPU or TPU, and leaves the allocator to whoever
    set a MALLOC_… variable or GLIBC_TUNABLES. Commands call it; programs call it before they use JAX:
    threads that have begun keep the memory they have, and XLA reads its flags once.

    Args:
      restart: start the program again, with huge pages too: worth it where it trains, a fourteenth of a
        step (experiments/speed). To be called before anything is imported or done.

    Returns:
      Whether anything was changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    if os.path.exists("/proc/driver/nvidia") or os.path.exists("/dev/accel0"):
        return False
    flags, widened = os.environ.get("XLA_FLAGS", ""), False
    if "xla_cpu_prefer_vector_width" not in flags and _has_avx512():
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_prefer_vector_width=512".strip()
        widened = True
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return widened
    if restart:
        environment = {**os.environ, **_ENVIRONMENT}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return widened
    return bool(min(mallopt(name, value) for name, value in _MALLOC.items())) or widened


def _has_avx512() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return any(line.startswith("flags") and " avx512f" in line for line in file)
    except OSError:
        return False


def run(main: Callable[[], Any], command: Sequence[str] = ()) -> None:
    """Call `main`; show a user's mistake as one message instead of a traceback.

    `command`: verb and arguments, to be named where an error is one that nobody foresaw.

    Raises:
      SystemExit: 1 after a mistake, 130 after Ctrl-C.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, AssertionError) as error:
        no_device = _raised_by_the_search_for_devices(error)
        if os.environ.get("SSL_AUDIO_TRACEBACK"):
            raise
        if isinstance(error, AssertionError) and not no_device:
            raise  # a mistake of ours
        message = f"{type(error).__name__}: {error}"
        if no_device:
            message = (
                f"no device: JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS', '')!r}, and JAX finds none "
                "such. Try JAX_PLATFORMS=cpu, or install JAX for it: pip install 'ssl_audio[cuda]' or "
                f"'ssl_audio[tpu]'. JAX says: {message}"
            )
        sys.exit(f"{message} (SSL_AUDIO_TRACEBACK=1 shows where)")
    except Exception as error:
        if os.environ.get("SSL_AUDIO_TRACEBACK") or not command:
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        sys.exit(
            f"ssl-audio {shlex.join(command)}: unforeseen {said[:500]}. A file that it was given is damaged "
            "in a way that nobody thought of, or this is a fault of ssl_audio: SSL_AUDIO_TRACEBACK=1 "
            "shows where; please report it."
        )


def _raised_by_the_search_for_devices(error: BaseException) -> bool:
    # Where no back end is left at all, JAX fails an assertion of its own there.
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return os.path.basename(last) == "xla_bridge.py"
