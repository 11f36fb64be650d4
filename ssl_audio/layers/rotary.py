"""Rotary positions: angles that grow with the place, by which queries and keys are turned.

Su et al. 2021 (arXiv:2104.09864), in halves, as GPT-NeoX has them.
"""

import jax.numpy as jnp

from ssl_audio.arrays import Array, Float


def rotated(x: Float[Array, "B N H W"], width: int, base: float = 10_000.0) -> Array:
    """Return queries or keys whose first `width` channels are turned by their place in the sequence."""
    rate = base ** (-jnp.arange(0, width, 2) / width)
    angle = jnp.arange(x.shape[1], dtype=jnp.float32)[:, None] * rate[None]
    cos, sin = (jnp.tile(f(angle), 2)[None, :, None] for f in (jnp.cos, jnp.sin))
    turned, rest = x[..., :width], x[..., width:]
    first, second = jnp.split(turned, 2, -1)
    turned = turned * cos + jnp.concatenate([-second, first], -1) * sin
    return jnp.concatenate([turned, rest], -1)
