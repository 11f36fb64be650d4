"""A perceptron whose hidden values are gated (Shazeer 2020, arXiv:2002.05202)."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.dense import xavier


class SwishGlu(nn.Module):
    """down(a * swish(b)), where a and b are linear maps of a token.

    Attributes:
      ratio: of the width of a and of b to D.
      gain: as of `Mlp`.
    """

    ratio: float
    gain: float | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Map every token by itself."""
        hidden, init = round(self.ratio * x.shape[-1]), xavier(self.gain)
        both = nn.Dense(2 * hidden, dtype=x.dtype, kernel_init=init, name="up")(x)
        a, b = jnp.split(both, 2, axis=-1)
        return nn.Dense(x.shape[-1], dtype=x.dtype, kernel_init=init, name="down")(a * nn.silu(b))
