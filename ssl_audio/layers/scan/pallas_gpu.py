"""The recurrence as Mosaic GPU kernels for NVIDIA Hopper and later: the state stays in registers.

One warpgroup holds 128 channels of one example, a channel and its R states per thread, and walks
the tokens. The forward pass keeps the state every 16 tokens; the backward pass recomputes the rest
in two levels and sums gradients of B and C over channels without atomics.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.scan.segments import scan_in_segments
from ssl_audio.layers.scan.tiles import pad_to

LANES = 128  # threads of a warpgroup: channels of a block
TOKENS = 16  # between states in global memory; also what one transfer to shared memory brings
STRIDE = 4  # tokens between states in shared memory; so many are in registers on the way back
STATES = 16  # states are padded to a multiple
PITCH = LANES + 8  # of a table written by columns and read by rows: no bank is met twice
WARPGROUPS = 264  # that fill a large GPU: two for each of 132 multiprocessors
SEGMENT = 512  # fewest tokens worth a segment of their own
LOG2E = math.log2(math.e)
PARAMETERS = plgpu.CompilerParams(
    approx_math=True,  # one instruction for exp2, off by two units in the last place at most
    unsafe_no_auto_barriers=True,  # every crossing between threads is marked by commit_smem
    lowering_semantics=plgpu.LoweringSemantics.Lane,
)

Operands = tuple[Any, ...]  # u, delta, A, B, C, state


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
      ValueError: for float64.
    """
    operands = (u, delta, A, B, C, state)
    return scan_together([operands], (reverse,), interpret=interpret)[0]


def scan_together(
    directions: Sequence[Operands], reverse: Sequence[bool], *, interpret: Any = False
) -> list[tuple[Array, Array]]:
    """Run recurrences over sequences of one shape in one launch, each with the operands of `scan`.

    Long sequences of a small batch are cut into segments that run side by side.
    """
    u, _, A, _, _, state = directions[0]
    if state.dtype != jnp.float32:
        raise ValueError(f"pallas_gpu: got a {state.dtype} state, wanted float32; try 'xla'.")
    if len({tuple(x.dtype for x in operands) for operands in directions}) > 1:
        pairs = zip(directions, reverse, strict=True)
        return [scan_together([d], (r,), interpret=interpret)[0] for d, r in pairs]
    (batch, length, channels), states = u.shape, A.shape[1]
    running = len(directions) * batch * -(-channels // LANES)
    segments = min(length // SEGMENT, WARPGROUPS // running)
    if segments >= 4:  # twice the work, so two would gain nothing
        within = functools.partial(scan_together, interpret=interpret)
        return scan_in_segments(within, segments, directions, reverse)
    found = _scan(tuple(reverse), interpret, [_pad(*operands) for operands in directions])
    return [
        (y[:, :length, :channels], jnp.swapaxes(last[:, :states, :channels], 1, 2))
        for y, last in found
    ]


def _pad(u, delta, A, B, C, state):
    u, delta = (pad_to(x, {1: TOKENS, 2: LANES}) for x in (u, delta))
    A, state = (pad_to(jnp.swapaxes(x, -1, -2), {-2: STATES, -1: LANES}) for x in (A, state))
    # Small arrays; to unpack 16 bits would cost every thread an instruction for each of their values.
    B, C = (pad_to(x.astype(jnp.float32), {1: TOKENS, 2: STATES}) for x in (B, C))
    return u, delta, A, B, C, state


def _primal(reverse, interpret, directions):
    return _forward(reverse, interpret, directions, keep=False)[0]


def _forward(reverse, interpret, directions, keep=True):
    """Scan padded arrays: A [R, E], state [B, R, E]."""
    u, delta, A, B, C, state = directions[0]
    float32 = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    found = _launch(
        _forward_kernel,
        (reverse, interpret),
        [(u, delta, A * LOG2E, B, C, state) for u, delta, A, B, C, state in directions],
        made=[
            float32(u.shape),
            float32(state.shape),
            *[float32((u.shape[0], u.shape[1] // TOKENS, *A.shape))] * keep,
        ],
        fetched=[u, delta, B, C],
    )
    residuals = [(*given[:5], *made[2:]) for given, made in zip(directions, found, strict=True)]
    return [(y, last) for y, last, *_ in found], residuals


def _backward(reverse, interpret, residuals, cotangents):
    u, delta, A, B, C, _ = residuals[0]
    dy, dlast = cotangents[0]
    batch, length, channels = u.shape
    states = A.shape[0]
    mixes = jax.ShapeDtypeStruct((batch, channels // LANES, length * 2 * states), jnp.float32)
    found = _launch(
        _backward_kernel,
        (reverse, interpret),
        [
            (u, delta, A * LOG2E, B, C, starts, dy, dlast)
            for (u, delta, A, B, C, starts), (dy, dlast) in zip(residuals, cotangents, strict=True)
        ],
        made=[jax.typeof(u), jax.typeof(delta), jax.typeof(dlast), mixes, jax.typeof(dlast)],
        fetched=[u, delta, dy, B, C],
        scratch=[
            plgpu.SMEM((TOKENS // STRIDE, states, LANES), jnp.float32),
            plgpu.SMEM((4 * states, PITCH), jnp.float32),
        ],
    )

    def gradients(du, ddelta, dA, mixes, dstate):
        # A partial sum per block of channels; B before C at each token.
        mixes = mixes.sum(1).reshape(batch, length, 2, states)
        return du, ddelta, dA.sum(0), mixes[:, :, 0], mixes[:, :, 1], dstate

    return ([gradients(*made) for made in found],)


_scan = jax.custom_vjp(_primal, nondiff_argnums=(0, 1))
_scan.defvjp(_forward, _backward)


class _Place(NamedTuple):
    """What a warpgroup works on, and the barriers of its transfers."""

    reverse: bool
    interpreted: bool
    example: Any
    channel: Any
    barrier: Any

    @property
    def lanes(self):
        return pl.ds(self.channel, LANES)

    def token(self, j):
        """Return where in its block the j-th token in the order of the scan lies."""
        return TOKENS - 1 - j if self.reverse else j


def _launch(kernel, modes, directions, *, made, fetched, scratch=()):
    """Run `kernel(place, inputs, outputs, buffers, scratch)` for all directions; return outputs."""
    reverse, interpret = modes
    batch, _, channels = directions[0][0].shape
    # Two blocks of tokens of each array: one in use, one on its way. B and C come last.
    buffers = [
        plgpu.SMEM((2, TOKENS, LANES if n < len(fetched) - 2 else x.shape[2]), x.dtype)
        for n, x in enumerate(fetched)
    ]
    inputs, outputs, count = len(directions[0]), len(made), len(directions)

    def body(*refs):
        given, refs = refs[: inputs * count], refs[inputs * count :]
        results, rest = refs[: outputs * count], refs[outputs * count :]
        here = (lax.axis_index("example"), lax.axis_index("block") * LANES, rest[-1])

        def run(n):
            kernel(
                _Place(reverse[n], bool(interpret), *here),
                given[n * inputs :][:inputs],
                results[n * outputs :][:outputs],
                rest[: len(buffers)],
                rest[len(buffers) : -1],
            )

        for n in range(count):
            if count == 1:
                run(n)
            else:
                pl.when(lax.axis_index("direction") == n)(functools.partial(run, n))

    found = plgpu.kernel(
        body,
        out_type=[*made] * count,
        grid=(channels // LANES, batch, count),
        grid_names=("block", "example", "direction"),
        scratch_types=[
            *buffers,
            *scratch,
            plgpu.Barrier(num_arrivals=len(buffers), num_barriers=2),
        ],
        compiler_params=PARAMETERS,
        interpret=interpret,
    )(*[x for operands in directions for x in operands])
    return [found[n * outputs :][:outputs] for n in range(count)]


def _over_blocks(
    place: _Place, number_of: Callable, arrays: Sequence, buffers: Sequence, step: Callable, carry
):
    """Fold `step(block, first token, slot, carry)` over blocks of tokens, fetched one ahead.

    Args:
      place: see there.
      number_of: of the k-th block to visit, its number in the order of the scan.
      arrays: in global memory, [B, N, E], at the end B and C [B, N, R].
      buffers: in shared memory, one for each.
      step: finds the block in buffer[slot].
      carry: its first carry.
    """
    count = arrays[0].shape[1] // TOKENS

    def first_of(number):
        return (count - 1 - number if place.reverse else number) * TOKENS

    def fetch(k):
        slot = lax.rem(k, 2)
        tokens = pl.ds(first_of(number_of(k)), TOKENS)
        for n, (array, buffer) in enumerate(zip(arrays, buffers, strict=True)):
            lanes = place.lanes if n < len(arrays) - 2 else slice(None)
            source = array.at[place.example, tokens, lanes]
            plgpu.copy_gmem_to_smem(source, buffer.at[slot], place.barrier.at[slot])

    def visit(k, carry):
        plgpu.commit_smem()  # from here on nobody reads the other slot
        pl.when(k + 1 < count)(lambda: fetch(k + 1))
        slot, number = lax.rem(k, 2), number_of(k)
        plgpu.barrier_wait(place.barrier.at[slot])
        return step(number, first_of(number), slot, carry)

    fetch(jnp.int32(0))
    return lax.fori_loop(0, count, visit, carry)


def _row(ref, *index):
    return ref[index].astype(jnp.float32)


def _forward_kernel(place, inputs, outputs, buffers, scratch):
    u, delta, A, B, C, state = inputs
    y, last, *starts = outputs
    u_block, delta_block, B_block, C_block = buffers
    states = range(A.shape[0])
    rates = [A[r, place.lanes] for r in states]

    def block(number, first, slot, h):
        if starts:
            for r in states:
                starts[0][place.example, number, r, place.lanes] = h[r]

        def token(j, h):
            i = place.token(j)
            step, x = _row(delta_block, slot, i), _row(u_block, slot, i)
            # Read before the exponentials, which would keep the compiler from joining the reads.
            into, out_of = ([_row(mix, slot, i, r) for r in states] for mix in (B_block, C_block))
            entering, out, advanced = step * x, None, []
            for r in states:
                h_r = jnp.exp2(step * rates[r]) * h[r] + entering * into[r]
                term = h_r * out_of[r]
                out = term if out is None else out + term
                advanced.append(h_r)
            y[place.example, first + i, place.lanes] = out
            return advanced

        return lax.fori_loop(0, TOKENS, token, h)

    h = [state[place.example, r, place.lanes] for r in states]
    h = _over_blocks(place, lambda k: k, (u, delta, B, C), buffers, block, h)
    for r in states:
        last[place.example, r, place.lanes] = h[r]


def _backward_kernel(place, inputs, outputs, buffers, scratch):
    u, delta, A, B, C, starts, dy, dlast = inputs
    du, ddelta, dA, mixes, dstate = outputs
    u_block, delta_block, dy_block, B_block, C_block = buffers
    within, table = scratch  # states within a block; products to sum over channels
    states, count = range(A.shape[0]), starts.shape[1]
    rates = [A[r, place.lanes] for r in states]

    def block(number, first, slot, carry):
        def entering(i):
            """Return step, input and what enters the state at a token."""
            step, x = _row(delta_block, slot, i), _row(u_block, slot, i)
            return step, x, [step * x * _row(B_block, slot, i, r) for r in states]

        def keep(s, h):
            for r in states:
                within[s, r] = h[r]

        def recompute(s, h):
            keep(s, h)
            for k in range(STRIDE):
                step, _, inputs = entering(place.token(s * STRIDE + k))
                h = [jnp.exp2(step * rates[r]) * h[r] + inputs[r] for r in states]
            return h

        h = [starts[place.example, number, r, place.lanes] for r in states]
        stretches = TOKENS // STRIDE
        keep(stretches - 1, lax.fori_loop(0, stretches - 1, recompute, h))

        def stretch(s, carry):
            dh, of_rates = carry
            s = stretches - 1 - s
            path, decays = [[within[s, r] for r in states]], []
            for k in range(STRIDE):
                step, _, inputs = entering(place.token(s * STRIDE + k))
                decays.append([jnp.exp2(step * rates[r]) for r in states])
                path.append([decays[k][r] * path[k][r] + inputs[r] for r in states])
            for k in reversed(range(STRIDE)):
                i = place.token(s * STRIDE + k)
                step, x, grad = (
                    _row(buffer, slot, i) for buffer in (delta_block, u_block, dy_block)
                )
                odd = 1 - k % 2 if place.reverse else k % 2  # so is i
                row = odd * 2 * len(states)
                into: Any = None
                slope: Any = None
                for r in states:
                    table[row + len(states) + r, pl.ds(0, LANES)] = path[k + 1][r] * grad
                    dh_r = dh[r] + grad * _row(C_block, slot, i, r)
                    table[row + r, pl.ds(0, LANES)] = dh_r * (step * x)
                    term = dh_r * _row(B_block, slot, i, r)
                    into = term if into is None else into + term
                    dh[r] = dh_r * decays[k][r]
                    through = dh[r] * path[k][r]
                    term = through * rates[r]
                    slope = term if slope is None else slope + term
                    of_rates[r] = of_rates[r] + through * step
                du[place.example, first + i, place.lanes] = (step * into).astype(du.dtype)
                of_step = slope * (1 / LOG2E) + x * into
                ddelta[place.example, first + i, place.lanes] = of_step.astype(ddelta.dtype)
                if k % 2 == 0:  # two tokens fill the table
                    plgpu.commit_smem()
                    start = (first + i - odd) * 2 * len(states)
                    block = place.channel // LANES
                    sums = _sums_of_rows(table, place.interpreted)
                    mixes[place.example, block, pl.ds(start, 4 * len(states))] = sums
                    plgpu.commit_smem()
            return dh, of_rates

        return lax.fori_loop(0, stretches, stretch, carry)

    dh = [dlast[place.example, r, place.lanes] for r in states]
    carry = (dh, [rate * 0.0 for rate in rates])
    arrays = (u, delta, dy, B, C)
    dh, of_rates = _over_blocks(place, lambda k: count - 1 - k, arrays, buffers, block, carry)
    for r in states:
        dA[place.example, r, place.lanes] = of_rates[r]
        dstate[place.example, r, place.lanes] = dh[r]


def _sums_of_rows(table, interpreted):
    lanes = pl.ds(0, LANES)
    if interpreted:  # whose older versions know nothing of layouts
        return jnp.sum(table[:, lanes], axis=1)
    layout = plgpu.Layout.WGMMA
    return jnp.sum(plgpu.layout_cast(table[:, lanes], layout), axis=1)
