"""The recurrence as a plain `lax.scan`: the oracle for every other implementation."""

import jax.numpy as jnp
from jax import lax

from ssl_audio.arrays import Array, Float


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
    """Run the recurrence in the dtype of `state`; see `selective_scan`."""

    def step(h, now):
        u_t, delta_t, B_t, C_t = (x.astype(h.dtype) for x in now)
        decay = jnp.exp(delta_t[:, :, None] * A[None].astype(h.dtype))
        h = decay * h + (delta_t * u_t)[:, :, None] * B_t[:, None, :]
        return h, jnp.sum(h * C_t[:, None, :], axis=-1)

    by_time = [jnp.swapaxes(x, 0, 1) for x in (u, delta, B, C)]
    last, y = lax.scan(step, state, by_time, reverse=reverse)
    return jnp.swapaxes(y, 0, 1), last
