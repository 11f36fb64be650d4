"""The recurrence in C++ for CPUs, compiled at first use: see native.py."""

import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.scan import fused_cpp, native
from ssl_audio.layers.scan.fused_cpp import CHUNK, TILE

SOURCE = pathlib.Path(__file__).with_suffix(".cc")
OPTIONS = tuple(f"-std=c++17 -O3 -shared -fPIC -w -DTILE={TILE} -DCHUNK={CHUNK}".split())


def scan(
    u: Float[Array, "B N E"],
    delta: Float[Array, "B N E"],
    A: Float[Array, "E R"],
    B: Float[Array, "B N R"],
    C: Float[Array, "B N R"],
    state: Float[Array, "B E R"],
    *,
    reverse: bool,
) -> tuple[Float[Array, "B N E"], Float[Array, "B E R"]]:
    """Run the recurrence in float32; see `selective_scan`. No forward mode.

    Raises:
      FileNotFoundError: it cannot be compiled on this machine.
      ValueError: float64 inputs.
    """
    operands = (u, delta, A, B, C, None, None, state)
    y, (last,) = scan_fused([operands], None, None, reverse=reverse, softplus=False)
    return y, last


def scan_fused(
    directions: Sequence[fused_cpp.Operands],
    z: Array | None,
    mask: Array | None,
    *,
    reverse: bool,
    softplus: bool,
) -> tuple[Array, list[Array]]:
    """Run scans with all that surrounds them; see `fused_cpp.scan`. Errors as of `scan`."""
    dtype = jnp.result_type(*(x for operands in directions for x in operands[:5]))
    if dtype == jnp.float64:
        raise ValueError(f"selective_scan: got {dtype}; 'cpp' computes in float32. Use 'xla'.")
    _register()
    return fused_cpp.scan(directions, z, mask, reverse=reverse, softplus=softplus)


def conv_silu(
    x: Array, kernels: Sequence[tuple[Array, Array | None]], *, reverse: bool
) -> list[Array]:
    """Convolve and activate; see `fused_cpp.conv_silu`.

    Raises:
      FileNotFoundError: it cannot be compiled on this machine.
    """
    _register()
    return fused_cpp.conv_silu(x, kernels, reverse=reverse)


def library() -> native.Library:
    """Return the compiled code of this file, which need not be there yet."""
    return native.Library("the selective scan", "scan", SOURCE, OPTIONS)


def ready() -> str:
    """Compile it at first use, which the log announces; return why it cannot be used, or "".

    Raises:
      NoCompiler: not there, and nothing to compile it with.
    """
    return library().ensure()


@functools.cache
def _register() -> None:
    try:
        reason = ready()
    except native.NoCompiler as error:
        reason = str(error)
    if reason:
        raise FileNotFoundError(f"'cpp' is not compiled for this machine: {reason}.")
    code = library().load()
    for name in fused_cpp.TARGETS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(code, name)), platform="cpu")
