"""Features computed before, as tokens: for towers that only project what another model has encoded."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.layers.dense import Linear
from ssl_audio.structs import Tokens


class Vectors(nn.Module):
    """Vectors as they are: [B, D] is one token, [B, N, D] a sequence. No parameters."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B *N D"], valid: Bool[Array, "B N"] | None = None
    ) -> Tokens:
        """Return tokens in a grid of one row; padding is where `valid` is False."""
        if x.ndim == 2:
            x, valid = x[:, None], None
        index = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None], x.shape[:2])
        return Tokens(x=x, index=index, grid=(1, x.shape[1]), valid=valid)


class Projected(nn.Module):
    """A sequence of vectors through one linear layer, to an encoder's width.

    Attributes:
      width: D.
    """

    width: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B *N D"], valid: Bool[Array, "B N"] | None = None
    ) -> Tokens:
        """Return tokens as `Vectors` does."""
        return Vectors()(Linear(self.width, name="linear")(x), valid)
