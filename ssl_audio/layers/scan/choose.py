"""Which implementation runs the recurrence: by name, or the best that works here, and on all of a run."""

import concurrent.futures
import contextlib
import contextvars
import functools
import importlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.distributed import processes
from ssl_audio.layers.scan.native import NoCompiler

log = logging.getLogger(__name__)

# Name -> file; each has scan(u, delta, A, B, C, state, *, reverse) -> (y, last state), the bare
# recurrence, and may have scan_together(directions, reverse) for several in one launch, scan_fused for
# what surrounds them too, conv_silu for the convolution before them, and ready(), which compiles it at
# first use and returns why it cannot be used.
IMPLEMENTATIONS = ("reference", "xla", "cpp", "pallas_gpu", "pallas_tpu")
SPLIT = ("reference", "xla")  # whose work the compiler knows how to divide among devices
# What "auto" tries first; else xla.
PREFERRED = {"cpu": "cpp", "gpu": "pallas_gpu", "tpu": "pallas_tpu"}
VERSIONS = ((0, 10), (0, 12))  # of jax, first and last, that the other kernels are written for
CAPABILITY = 9.0  # compute capability of NVIDIA Hopper: the kernels need its bulk copies

Operands = tuple[Any, ...]  # u, delta, A, B, C, state


_agreed: dict[str, str] = {}  # name -> implementation, in a run of several processes
_reasons: dict[str, str] = {}  # implementation -> why it is not used here


_forced: contextvars.ContextVar[str] = contextvars.ContextVar("forced", default="")


@contextlib.contextmanager
def forced(name: str) -> Iterator[None]:
    """Let the body trace with this implementation, whatever a config or SSL_AUDIO_SCAN says.

    For programs that leave this machine: they may hold nothing that was compiled for it.
    """
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def find(name: str, dtype: Any = jnp.float32) -> str:
    """Return the implementation meant by `name` for sums of `dtype`; see `selective_scan`.

    Raises:
      ValueError: there is none of that name.
    """
    asked = _asked(name)
    if asked != "auto":
        return asked
    best = _agreed.get(name) or PREFERRED.get(jax.default_backend(), "xla")
    return best if best in SPLIT or (dtype == jnp.float32 and _works(best)) else "xla"


def prepare(name: str) -> str:
    """Choose before anything is traced, and compile what has to be; return the implementation.

    All processes of a run choose the same: what any of them is told to take, else the best, if all have
    it, else "xla", which the log then says. They wait for each other: to be called equally often in all.

    Raises:
      ValueError: there is none of that name; processes are told to take different ones, or one has not
        what another is told to take.
      FileNotFoundError: what was named cannot be compiled here.
    """
    asked = _asked(name)
    if processes.count() == 1:
        if asked != "auto" and (reason := _missing(asked)):
            raise FileNotFoundError(f"selective_scan: no '{asked}' on this machine: {reason}.")
        return find(name)
    if name not in _agreed:
        found = find(name)
        best = PREFERRED.get(jax.default_backend(), "xla")
        reason = _missing(asked) if asked != "auto" else _reasons.get(best, "")
        words = [json.loads(w) for w in processes.from_all(json.dumps([asked, found, reason]))]
        _agreed[name] = _agreement(words)
    return _agreed[name]


def _asked(name: str) -> str:
    if there := _forced.get():
        return there
    asked = "implementation"
    if name == "auto":
        asked, name = "SSL_AUDIO_SCAN", os.environ.get("SSL_AUDIO_SCAN") or "auto"
    if name != "auto" and name not in IMPLEMENTATIONS:
        known = ", ".join(["auto", *IMPLEMENTATIONS])
        raise ValueError(f"selective_scan: got {asked}={name!r}; wanted one of: {known}.")
    return name


def _agreement(words: Sequence[Sequence[str]]) -> str:
    """Return what all processes take; of each: what it is told to take, would take, and why no better."""
    told = sorted({asked for asked, _, _ in words} - {"auto"})
    if len(told) > 1:
        each = ", ".join(f"process {i} '{asked}'" for i, (asked, _, _) in enumerate(words))
        raise ValueError(
            f"selective_scan: the processes of this run are told to take different ones: {each}. Set "
            "SSL_AUDIO_SCAN to the same everywhere, or nowhere."
        )
    for number, (asked, found, reason) in enumerate(words) if told else ():
        if reason if asked != "auto" else found != told[0] and told[0] not in SPLIT:
            raise ValueError(
                f"selective_scan: process {number} has no '{told[0]}', which SSL_AUDIO_SCAN or the "
                f"config wants: {reason}. Mend that, or set SSL_AUDIO_SCAN=xla everywhere."
            )
    found = {found for _, found, _ in words}
    name = told[0] if told else "xla" if len(found) > 1 else found.pop()
    if len({one for _, one, _ in words}) > 1 and processes.is_lead():
        number = next(i for i, (_, one, _) in enumerate(words) if one == name)
        why = "is told to" if told else f"has no better one: {words[number][2]}"
        log.warning("selective_scan: all processes take '%s': process %d %s", name, number, why)
    return name


def run(
    name: str, directions: Sequence[Operands], reverse: Sequence[bool]
) -> list[tuple[jax.Array, jax.Array]]:
    """Run recurrences over sequences of one shape with the implementation of that name."""
    module = _load(name)
    if hasattr(module, "scan_together"):
        return module.scan_together(directions, reverse)
    return [module.scan(*d, reverse=r) for d, r in zip(directions, reverse, strict=True)]


def offers(name: str, what: str) -> Any:
    """Return the function called `what` of the implementation of that name; None: it has none."""
    return getattr(_load(name), what, None)


def _load(name: str) -> Any:
    # On demand: Pallas takes a second to import and its interface changes with every version.
    return importlib.import_module(f"ssl_audio.layers.scan.{name}")


def _missing(name: str) -> str:
    """Compile an implementation that has to be, at first use; return why it is not there, or ""."""
    try:
        return getattr(_load(name), "ready", str)()
    except NoCompiler as error:
        return str(error)


@functools.cache
def _works(name: str) -> bool:
    """Try the implementation once on this machine; say so, once, if it is not to be used."""
    level = logging.WARNING
    try:
        unfit = _version() or _device() or getattr(_load(name), "ready", str)()
        reason = unfit or trial(name)
    except NoCompiler as error:  # as in slim containers, where nobody expects one
        reason, level = str(error), logging.INFO
    if reason:
        log.log(level, "selective_scan: using 'xla', not '%s': %s", name, reason)
        _reasons[name] = reason
    return not reason


def _version() -> str:
    found, (first, last) = jax.__version_info__[:2], VERSIONS
    if first <= found <= last:
        return ""
    return f"it is written for jax {_dotted(first)} to {_dotted(last)}, this is {jax.__version__}"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _device() -> str:
    device = jax.local_devices()[0]
    capability = getattr(device, "compute_capability", None)  # of NVIDIA devices, such as "9.0"
    if capability is None or float(capability) >= CAPABILITY:
        return ""
    return f"it needs compute capability {CAPABILITY}, {device.device_kind} has {capability}"


def trial(name: str) -> str:
    """Return what is wrong with an implementation on this machine, or ""; see trial.py."""
    # In a thread of its own, so that nothing becomes part of a trace in progress.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: _load("trial").trial(name)).result()
