"""Which implementation runs the recurrence: by name, or the best that works on this machine."""

import functools
import importlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

log = logging.getLogger(__name__)

# Name -> file; each has scan(u, delta, A, B, C, state, *, reverse) -> (y, last state), the bare
# recurrence, and may have scan_together(directions, reverse) for several in one launch, scan_fused for
# what surrounds them too, and conv_silu for the convolution before them.
IMPLEMENTATIONS = ("reference", "xla", "cpp", "pallas_gpu", "pallas_tpu")
SPLIT = ("reference", "xla")  # whose work the compiler knows how to divide among devices
# What "auto" tries first; else xla.
PREFERRED = {"cpu": "cpp", "gpu": "pallas_gpu", "tpu": "pallas_tpu"}
VERSIONS = ((0, 10), (0, 12))  # of jax, first and last, that the other kernels are written for
CAPABILITY = 9.0  # compute capability of NVIDIA Hopper: the kernels need its bulk copies

Operands = tuple[Any, ...]  # u, delta, A, B, C, state


def find(name: str, dtype: Any = jnp.float32) -> str:
    """Return the implementation meant by `name` for sums of `dtype`; see `selective_scan`.

    Raises:
      ValueError: there is none of that name.
    """
    asked = "implementation"
    if name == "auto":
        asked, name = "SSL_AUDIO_SCAN", os.environ.get("SSL_AUDIO_SCAN") or "auto"
    if name == "auto":
        name = PREFERRED.get(jax.default_backend(), "xla")
        possible = dtype == jnp.float32 and (name != "cpp" or _load(name).built())
        return name if name == "xla" or (possible and _works(name)) else "xla"
    if name not in IMPLEMENTATIONS:
        known = ", ".join(["auto", *IMPLEMENTATIONS])
        raise ValueError(f"selective_scan: got {asked}={name!r}; wanted one of: {known}.")
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


@functools.cache
def _works(name: str) -> bool:
    """Try the implementation once on this machine; say so, once, if it is not to be used."""
    reason = _version() or _device() or _apart(trial, name)
    if reason:
        log.warning("selective_scan: using 'xla', not '%s': %s", name, reason)
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


def _apart(call: Callable[[str], str], name: str) -> str:
    """Call in a thread of its own, so that nothing becomes part of a trace in progress."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(call(name)))
    thread.start()
    thread.join()
    return found[0]


def trial(name: str) -> str:
    """Return what is wrong with the values and gradients of a small example; "" if nothing is."""
    g = np.random.default_rng(0)
    u, dy = (g.standard_normal((1, 72, 128)).astype(np.float32) for _ in range(2))
    B, C = (g.standard_normal((1, 72, 16)).astype(np.float32) for _ in range(2))
    state, dlast = (g.standard_normal((1, 128, 16)).astype(np.float32) for _ in range(2))
    A, delta = -np.exp(g.standard_normal((128, 16))), np.exp(g.standard_normal(u.shape) - 1)
    operands = (u, delta.astype(np.float32), A.astype(np.float32), B, C, state)

    def outputs_and_gradients(name):
        def both(operands, cotangents):
            outputs, pull = jax.vjp(lambda *x: run(name, [x], [True])[0], *operands)
            return outputs, pull(cotangents)

        return jax.tree.leaves(jax.device_get(jax.jit(both)(operands, (dy, dlast))))

    try:
        pairs = list(zip(outputs_and_gradients(name), outputs_and_gradients("xla"), strict=True))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    worst = max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs)
    return "" if worst < 1e-3 else f"it is off by {worst:.1g} on this machine"
