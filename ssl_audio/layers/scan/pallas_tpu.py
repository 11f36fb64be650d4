"""The recurrence as Pallas kernels for TPUs: the state stays in vector memory, [R, E] per example.

The grid is (example, block of channels, block of tokens), the last in sequence. The forward pass
keeps the state at block boundaries only; the backward pass recomputes those between.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.scan.tiles import pad_to

TOKENS = 128  # in a block: B and C lie with tokens along the 128 lanes
ROWS = 8  # tokens in a register tile; u, step and y are read and written by the tile
WIDTHS = (512, 384, 256, 128)  # channels in a block: the first that divides
PARAMETERS = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary"))


def scan(
    u: Float[Array, "B N E"],
    delta: Float[Array, "B N E"],
    A: Float[Array, "E R"],
    B: Float[Array, "B N R"],
    C: Float[Array, "B N R"],
    state: Float[Array, "B E R"],
    *,
    reverse: bool,
    interpret: Any = False,
) -> tuple[Float[Array, "B N E"], Float[Array, "B E R"]]:
    """Run the recurrence in float32; see `selective_scan`. No forward mode.

    Raises:
      ValueError: for float64, which TPUs lack.
    """
    if state.dtype != jnp.float32:
        raise ValueError(f"pallas_tpu: got a {state.dtype} state, wanted float32; try 'xla'.")
    length, channels, states = u.shape[1], *A.shape
    u, delta = (pad_to(x, {1: TOKENS, 2: 128}) for x in (u, delta))
    A, state = (pad_to(jnp.swapaxes(x, -1, -2), {-2: ROWS, -1: 128}) for x in (A, state))
    B, C = (pad_to(jnp.swapaxes(x, 1, 2), {1: ROWS, 2: TOKENS}) for x in (B, C))
    y, last = _scan(reverse, interpret, u, delta, A, B, C, state)
    return y[:, :length, :channels], jnp.swapaxes(last[:, :states, :channels], 1, 2)


def _primal(reverse, interpret, u, delta, A, B, C, state):
    return _forward(reverse, interpret, u, delta, A, B, C, state, keep=False)[0]


def _forward(reverse, interpret, u, delta, A, B, C, state, keep=True):
    """Scan padded arrays: A [R, E], state [B, R, E], B and C [B, R, N]."""
    batch, length, channels = u.shape
    states, blocks = A.shape[0], length // TOKENS
    shape = _Grid(batch, blocks, channels, states, reverse)
    out_shape = [
        jax.ShapeDtypeStruct((batch, length, channels), jnp.float32),
        jax.ShapeDtypeStruct((batch, states, channels), jnp.float32),
    ]
    out_specs = [shape.tokens, shape.per_example]
    if keep:
        out_shape.append(jax.ShapeDtypeStruct((batch, blocks, states, channels), jnp.float32))
        out_specs.append(shape.starts)
    y, last, *starts = pl.pallas_call(
        functools.partial(_forward_kernel, reverse, keep),
        grid=shape.grid,
        in_specs=[shape.tokens, shape.tokens, shape.rates, *[shape.mix] * 2, shape.per_example],
        out_specs=out_specs,
        out_shape=out_shape,
        scratch_shapes=[_memory(states, shape.width)],
        compiler_params=PARAMETERS,
        interpret=interpret,
        name="selective_scan",
    )(u, delta, A, B, C, state)
    return (y, last), (u, delta, A, B, C, *starts)


def _backward(reverse, interpret, residuals, cotangents):
    u, delta, A, B, C, starts = residuals
    dy, dlast = cotangents
    batch, length, channels = u.shape
    states, blocks = A.shape[0], length // TOKENS
    shape = _Grid(batch, blocks, channels, states, not reverse)  # walks the blocks the other way
    partial = jax.ShapeDtypeStruct((batch, channels // shape.width, states, length), jnp.float32)
    whole = jax.ShapeDtypeStruct((batch, states, channels), jnp.float32)
    out_shape = [
        jax.ShapeDtypeStruct(u.shape, u.dtype),
        jax.ShapeDtypeStruct(delta.shape, delta.dtype),
        whole,
        partial,
        partial,
        whole,
    ]
    tokens, mix, per_example = shape.tokens, shape.mix, shape.per_example
    du, ddelta, dA, dB, dC, dstate = pl.pallas_call(
        functools.partial(_backward_kernel, reverse),
        grid=shape.grid,
        in_specs=[tokens, tokens, shape.rates, mix, mix, shape.starts, tokens, per_example],
        out_specs=[tokens, tokens, per_example, *[shape.partial] * 2, per_example],
        out_shape=out_shape,
        scratch_shapes=[
            _memory(states, shape.width),
            _memory(states, shape.width),
            _memory(TOKENS + 1, states, shape.width),
        ],
        compiler_params=PARAMETERS,
        interpret=interpret,
        name="selective_scan_gradient",
    )(u, delta, A, B, C, starts, dy, dlast)
    dB, dC = (x.sum(1).astype(like.dtype) for x, like in ((dB, B), (dC, C)))
    return du, ddelta, dA.sum(0), dB, dC, dstate


_scan = jax.custom_vjp(_primal, nondiff_argnums=(0, 1))
_scan.defvjp(_forward, _backward)


class _Grid:
    """The grid and what each of its steps sees of an array."""

    def __init__(self, batch, blocks, channels, states, reverse):
        self.width = width = next(w for w in WIDTHS if channels % w == 0)
        self.grid = (batch, channels // width, blocks)

        def at(block):
            return blocks - 1 - block if reverse else block

        self.tokens = pl.BlockSpec((1, TOKENS, width), lambda b, e, t: (b, at(t), e))
        self.mix = pl.BlockSpec((1, states, TOKENS), lambda b, e, t: (b, 0, at(t)))
        self.partial = pl.BlockSpec((1, 1, states, TOKENS), lambda b, e, t: (b, e, 0, at(t)))
        self.starts = pl.BlockSpec((1, 1, states, width), lambda b, e, t: (b, at(t), 0, e))
        self.rates = pl.BlockSpec((states, width), lambda b, e, t: (0, e))
        self.per_example = pl.BlockSpec((1, states, width), lambda b, e, t: (b, 0, e))


def _memory(*shape):
    return pltpu.VMEM(shape, jnp.float32)


def _tiles(reverse, tile, carry, mixes):
    """Fold `tile(first, columns, carry)` over the tiles of a block in the order of the scan.

    `columns` holds B and C [R, N] with the tile's tokens in lanes 0 to 7: they are rolled along,
    because a lane cannot be picked by a number that is not known beforehand.
    """
    count = TOKENS // ROWS

    def shifted(x, lanes):
        return pltpu.roll(x, lanes % TOKENS, 1)

    def step(i, carry):
        columns, inner = carry
        first = pl.multiple_of((count - 1 - i if reverse else i) * ROWS, ROWS)
        inner = tile(first, columns, inner)
        return [shifted(x, ROWS if reverse else -ROWS) for x in columns], inner

    columns = [x[0].astype(jnp.float32) for x in mixes]
    if reverse:
        columns = [shifted(x, ROWS) for x in columns]
    return lax.fori_loop(0, count, step, (columns, carry))[1]


def _order(reverse):
    return range(ROWS - 1, -1, -1) if reverse else range(ROWS)


def _forward_kernel(reverse, keep, u, delta, A, B, C, state, y, last, *rest):
    (starts, h) = rest if keep else (None, *rest)

    @pl.when(pl.program_id(2) == 0)
    def _():
        h[...] = state[0]

    if starts is not None:
        starts[0, 0] = h[...]

    def tile(first, columns, h):
        inputs, outputs = columns
        rows = pl.ds(first, ROWS)
        us, steps = (x[0, rows, :].astype(jnp.float32) for x in (u, delta))
        found: list[Any] = [None] * ROWS
        for k in _order(reverse):
            step = steps[k : k + 1]
            h = jnp.exp(step * A[...]) * h + step * us[k : k + 1] * inputs[:, k : k + 1]
            found[k] = jnp.sum(h * outputs[:, k : k + 1], axis=0, keepdims=True)
        y[0, rows, :] = jnp.concatenate(found, axis=0)
        return h

    h[...] = _tiles(reverse, tile, h[...], (B, C))

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        last[0] = h[...]


def _backward_kernel(
    reverse,
    u,
    delta,
    A,
    B,
    C,
    starts,
    dy,
    dlast,
    du,
    ddelta,
    dA,
    dB,
    dC,
    dstate,
    dh,
    rates,
    before,
):
    @pl.when(pl.program_id(2) == 0)
    def _():
        dh[...] = dlast[0]
        rates[...] = jnp.zeros_like(rates)

    # States by place: before[t] precedes token t in the order of the scan, before[t +- 1] follows.
    ahead, behind = (0, 1) if reverse else (1, 0)
    before[TOKENS if reverse else 0] = starts[0, 0]

    def recompute(first, columns, h):
        us, steps = (x[0, pl.ds(first, ROWS), :].astype(jnp.float32) for x in (u, delta))
        for k in _order(reverse):
            step = steps[k : k + 1]
            h = jnp.exp(step * A[...]) * h + step * us[k : k + 1] * columns[0][:, k : k + 1]
            before[first + k + ahead] = h
        return h

    _tiles(reverse, recompute, starts[0, 0], (B,))
    lane = lax.broadcasted_iota(jnp.int32, dB.shape[2:], 1)

    def tile(first, columns, carry):
        dh, rates, of_B, of_C = carry
        inputs, outputs = columns
        rows = pl.ds(first, ROWS)
        us, steps, dys = (x[0, rows, :].astype(jnp.float32) for x in (u, delta, dy))
        of_u: list[Any] = [None] * ROWS
        of_step: list[Any] = [None] * ROWS
        for k in _order(not reverse):
            here = lane == first + k
            x, step, dy_k = (v[k : k + 1] for v in (us, steps, dys))
            after, h = before[first + k + ahead], before[first + k + behind]
            row = jnp.sum(after * dy_k, axis=1, keepdims=True)
            of_C = jnp.where(here, row, of_C)
            dh = dh + dy_k * outputs[:, k : k + 1]
            row = jnp.sum(dh * (step * x), axis=1, keepdims=True)
            of_B = jnp.where(here, row, of_B)
            into = jnp.sum(dh * inputs[:, k : k + 1], axis=0, keepdims=True)
            dh = dh * jnp.exp(step * A[...])
            through = dh * h
            rates = rates + step * through
            of_u[k] = step * into
            of_step[k] = jnp.sum(through * A[...], axis=0, keepdims=True) + x * into
        du[0, rows, :] = jnp.concatenate(of_u, axis=0).astype(du.dtype)
        ddelta[0, rows, :] = jnp.concatenate(of_step, axis=0).astype(ddelta.dtype)
        return dh, rates, of_B, of_C

    none = jnp.zeros(dB.shape[2:], jnp.float32)
    carry = (dh[...], rates[...], none, none)
    dh[...], rates[...], dB[0, 0], dC[0, 0] = _tiles(not reverse, tile, carry, (B, C))

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        dA[0] = rates[...]
        dstate[0] = dh[...]
