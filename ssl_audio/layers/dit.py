"""A layer of a diffusion Transformer (Stable Audio Open: Evans et al. 2024, arXiv:2407.14358)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.attention import attend
from ssl_audio.layers.dense import XAVIER
from ssl_audio.layers.norms import standard
from ssl_audio.layers.rotary import rotated

TURNED = 32  # channels of a head with rotary positions, if it has no more than twice as many


class Gained(nn.Module):
    """Layer normalisation with a learned scale and no bias."""

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Normalise every token by itself."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        return standard(x, 1e-5) * scale[None, None]


class DitBlock(nn.Module):
    """x + attention with rotary positions, + attention to a condition, + gated perceptron, each of the norm.

    A condition narrower than D has fewer heads of keys and values, which are repeated. The last map of each
    part starts at zero.

    Attributes:
      heads: H.
      ratio: of the width inside the perceptron to D.
    """

    heads: int
    ratio: float = 4.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], condition: Float[Array, "B M C"]
    ) -> Float[Array, "B N D"]:
        """Return the stream after the layer."""
        width = x.shape[-1]
        size = width // self.heads
        if width % self.heads or size < TURNED or condition.shape[-1] % size:
            raise ValueError(
                f"DitBlock: {self.heads} heads, width {width}, condition {condition.shape[-1]}: wanted "
                f"heads of {TURNED} or more that divide the width, and a condition that is a multiple of one."
            )

        def dense(name: str, to: int, *, last: bool = False, bias: bool = False) -> Any:
            start = nn.initializers.zeros if last else XAVIER
            return nn.Dense(to, use_bias=bias, kernel_init=start, name=name)

        def parts(y: Array, count: int) -> Any:
            return jnp.moveaxis(y.reshape(*y.shape[:2], count, -1, size), 2, 0)

        q, k, v = parts(dense("qkv", 3 * width)(Gained(name="norm_self")(x)), 3)
        turned = max(size // 2, TURNED)
        q, k = rotated(q, turned), rotated(k, turned)
        y = attend(q * size**-0.5, k, v).reshape(x.shape)
        x = x + dense("out", width, last=True)(y)
        (q,) = parts(dense("q", width)(Gained(name="norm_cross")(x)), 1)
        k, v = parts(dense("kv", 2 * condition.shape[-1])(condition), 2)
        k, v = (jnp.repeat(y, self.heads // y.shape[2], axis=2) for y in (k, v))
        y = attend(q * size**-0.5, k, v).reshape(x.shape)
        x = x + dense("cross_out", width, last=True)(y)
        hidden = round(self.ratio * width)
        y = dense("up", 2 * hidden, bias=True)(Gained(name="norm_mlp")(x))
        y, gate = jnp.split(y, 2, -1)
        return x + dense("down", width, last=True, bias=True)(y * jax.nn.silu(gate))
