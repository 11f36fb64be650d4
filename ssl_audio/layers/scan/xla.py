"""The recurrence for any XLA platform, shaped for CPUs: in place, without a [B, N, E, R] array.

The forward pass keeps the state at chunk boundaries only; the backward pass recomputes the others.
"""

import jax
import jax.numpy as jnp
from jax import lax

from ssl_audio.arrays import Array, Float

CHUNK = 32  # tokens between stored states: 16 to 64 are equally fast


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
    """Run the recurrence in the dtype of `state`; see `selective_scan`. No forward mode."""
    y, last = _scan(reverse, u, delta, A.T[None], B, C, jnp.swapaxes(state, 1, 2))
    return y, jnp.swapaxes(last, 1, 2)


def _forward(reverse, u, delta, A, B, C, state):
    """Scan with the channels contiguous: A [1, R, E], state [B, R, E]."""
    length = u.shape[1]
    chunks = -(-length // CHUNK)

    def token(i, carry):
        y, h = carry
        t = length - 1 - i if reverse else i
        h = _advance(h, t, u, delta, A, B)
        return _put(y, _over_states(h * _column(C, t, h.dtype)), t), h

    def chunk(c, carry):
        starts, y, h = carry
        starts = lax.dynamic_update_index_in_dim(starts, h, c, 0)
        first = c * CHUNK
        return starts, *lax.fori_loop(first, jnp.minimum(first + CHUNK, length), token, (y, h))

    starts = jnp.zeros((chunks, *state.shape), state.dtype)
    y = jnp.zeros_like(u, dtype=state.dtype)
    starts, y, h = lax.fori_loop(0, chunks, chunk, (starts, y, state))
    return (y, h), (u, delta, A, B, C, starts)


def _backward(reverse, residuals, cotangents):
    u, delta, A, B, C, starts = residuals
    dy, dlast = cotangents
    length, dtype = u.shape[1], starts.dtype
    chunks, size = starts.shape[0], min(CHUNK, length)

    def chunk(k, carry):
        c = chunks - 1 - k
        first = c * CHUNK
        count = jnp.minimum(size, length - first)

        def when(j):
            return length - 1 - (first + j) if reverse else first + j

        def recompute(j, carry):
            before, h, dC = carry
            before = lax.dynamic_update_index_in_dim(before, h, j, 0)
            t = when(j)
            h = _advance(h, t, u, delta, A, B)
            return before, h, _put(dC, _over_channels(h, _row(dy, t, dtype)), t)

        def token(k, carry):
            du, ddelta, dA, dB, dh = carry
            j = count - 1 - k
            t = when(j)
            h = lax.dynamic_index_in_dim(before, j, 0, keepdims=False)
            u_t, delta_t, dy_t = (_row(x, t, dtype) for x in (u, delta, dy))
            B_t, C_t = (_column(x, t, dtype) for x in (B, C))
            dh = dh + dy_t * C_t
            dB = _put(dB, _over_channels(dh, delta_t * u_t), t)
            decay = jnp.exp(delta_t * A)
            # From the stored state: (after - input) would save a product and lose its digits.
            through = dh * decay * h
            into = _over_states(dh * B_t)
            du = _put(du, delta_t * into, t)
            ddelta = _put(ddelta, _over_states(through * A) + u_t * into, t)
            return du, ddelta, dA + delta_t * through, dB, dh * decay

        *others, dC = carry
        start = lax.dynamic_index_in_dim(starts, c, 0, keepdims=False)
        before = jnp.zeros((size, *start.shape), dtype)
        before, _, dC = lax.fori_loop(0, count, recompute, (before, start, dC))
        return *lax.fori_loop(0, count, token, tuple(others)), dC

    # dA stays apart per example until the end: a sum over the batch at each token is far slower.
    du, ddelta, dA, dB, dC = (jnp.zeros_like(x) for x in (u, delta, dlast, B, C))
    carry = lax.fori_loop(0, chunks, chunk, (du, ddelta, dA, dB, dlast, dC))
    du, ddelta, dA, dB, dstate, dC = carry
    return du, ddelta, dA.sum(0, keepdims=True), dB, dC, dstate


def _primal(reverse, u, delta, A, B, C, state):
    return _forward(reverse, u, delta, A, B, C, state)[0]


_scan = jax.custom_vjp(_primal, nondiff_argnums=(0,))
_scan.defvjp(_forward, _backward)


def _advance(h, t, u, delta, A, B):
    step = _row(delta, t, h.dtype)
    return jnp.exp(step * A) * h + (step * _row(u, t, h.dtype)) * _column(B, t, h.dtype)


def _row(x, t, dtype):
    return lax.dynamic_slice_in_dim(x, t, 1, axis=1).astype(dtype)  # [B, 1, E]


def _column(x, t, dtype):
    return jnp.swapaxes(_row(x, t, dtype), 1, 2)  # [B, R, 1]


def _put(x, row, t):
    return lax.dynamic_update_slice_in_dim(x, row.astype(x.dtype), t, axis=1)


# XLA's CPU compiler hands plain reductions to a library, which costs more than the sum itself here.
def _over_states(x):
    """[B, R, E] -> [B, 1, E], as a tree of additions."""
    parts = [x[:, r : r + 1] for r in range(x.shape[1])]
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [a + b for a, b in pairs] + parts[len(parts) // 2 * 2 :]
    return parts[0]


def _over_channels(x, row):
    """[B, R, E] and [B, 1, E] -> [B, 1, R], as a batched matrix product."""
    return jnp.einsum("bre,bxe->bxr", x, row, precision=lax.Precision.HIGHEST)
