"""The recurrence in C++ for CPUs, compiled at first use: see native.py."""

import functools
import pathlib

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.scan import native
from ssl_audio.layers.scan.tiles import pad_to

SOURCE = pathlib.Path(__file__).with_suffix(".cc")
TILE = 16  # channels in a vector, and states at a time
CHUNK = 64  # tokens between stored states
GROUPS = 4  # parts of the channels whose gradients of B and C are summed apart, hence side by side
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
    if state.dtype != jnp.float32:
        raise ValueError(
            f"selective_scan: got {state.dtype}; 'cpp' computes in float32. Use 'xla'."
        )
    _register()
    (channels, states), dtype = A.shape, state.dtype
    u, delta = (pad_to(x.astype(dtype), {2: TILE}) for x in (u, delta))
    B, C = (pad_to(x.astype(dtype), {2: TILE}) for x in (B, C))
    rates = pad_to(A.T, {0: TILE, 1: TILE})
    start = pad_to(jnp.swapaxes(state, 1, 2), {1: TILE, 2: TILE})
    found = []
    for first in range(0, states, TILE):
        part = slice(first, first + TILE)
        operands = u, delta, rates[part], B[..., part], C[..., part], start[:, part]
        found.append(_scan(reverse, *operands))
    ys, lasts = zip(*found, strict=True)
    last = jnp.swapaxes(jnp.concatenate(lasts, axis=1), 1, 2)
    return functools.reduce(jnp.add, ys)[..., :channels], last[:, :channels, :states]


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
    for name in ("SelectiveScanForward", "SelectiveScanBackward"):
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(code, name)), platform="cpu")


def _call(name: str, shapes, *operands, reverse: bool):
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.ffi.ffi_call(name, results, vmap_method="sequential")(*operands, reverse=reverse)


def _forward(reverse, u, delta, A, B, C, state, *, keep=True):
    """Scan whole tiles with the channels contiguous: A [R, E], state [B, R, E]."""
    batch, length, channels = u.shape
    starts = (batch, channels // TILE, -(-length // CHUNK) if keep else 0, TILE, TILE)
    shapes = u.shape, state.shape, starts
    y, last, starts = _call(
        "SelectiveScanForward", shapes, u, delta, A, B, C, state, reverse=reverse
    )
    return (y, last), (u, delta, A, B, C, starts)


def _backward(reverse, residuals, cotangents):
    u, delta, A, B, C, starts = residuals
    dy, dlast = cotangents
    batch, length, channels = u.shape
    mix = (batch, min(GROUPS, channels // TILE), length, TILE)
    shapes = u.shape, u.shape, dlast.shape, mix, mix, dlast.shape
    operands = u, delta, A, B, C, starts, dy, dlast
    du, ddelta, dA, dB, dC, dstate = _call(
        "SelectiveScanBackward", shapes, *operands, reverse=reverse
    )
    return du, ddelta, dA.sum(0), dB.sum(1), dC.sum(1), dstate


def _primal(reverse, u, delta, A, B, C, state):
    return _forward(reverse, u, delta, A, B, C, state, keep=False)[0]


_scan = jax.custom_vjp(_primal, nondiff_argnums=(0,))
_scan.defvjp(_forward, _backward)
