"""Encoded tokens → the few vectors that words are told of a clip, for `objectives/captioning.py`."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.attention import attend
from ssl_audio.layers.dense import INIT
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.structs import Encoded


class Queries(nn.Module):
    """K learned queries, each of which attends to the valid tokens, then a perceptron with GELU.

    One layer of the mapping network of ClipCap (Mokady et al. 2021, arXiv:2111.09734), whose constants attend
    to what is told.

    Attributes:
      width: D' of what comes out.
      count: K; 1 is a pooled vector.
      heads: H.
    """

    width: int
    count: int = 8
    heads: int = 4

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B K D"]:
        """Return K vectors of each clip."""
        if self.width % self.heads:
            raise ValueError(
                f"prefix: {self.heads} heads do not divide the width {self.width}; wanted a divisor."
            )
        tokens = encoded.tokens
        x = LayerNorm(1e-5, name="norm")(tokens.x)
        normal = nn.initializers.normal(1.0)
        queries = self.param("queries", normal, (self.count, self.width), jnp.float32)
        q = jnp.broadcast_to(queries, (len(x), *queries.shape))
        key, value = (
            nn.Dense(self.width, kernel_init=INIT, name=name)(x) for name in ("key", "value")
        )
        split = (-1, self.heads, self.width // self.heads)
        q, key, value = (part.reshape(len(x), *split) for part in (q, key, value))
        found = attend(q * split[-1] ** -0.5, key, value, valid=tokens.valid)
        y = nn.Dense(self.width, kernel_init=INIT, name="out")(
            found.reshape(len(x), -1, self.width)
        )
        hidden = nn.Dense(2 * self.width, kernel_init=INIT, name="up")(
            LayerNorm(1e-5, name="norm_mlp")(y)
        )
        return y + nn.Dense(self.width, kernel_init=INIT, name="down")(
            nn.gelu(hidden, approximate=False)
        )
