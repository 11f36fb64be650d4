"""The items of a list as tokens: each has a vector of its own, learned or computed before."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Int
from ssl_audio.layers.dense import INIT
from ssl_audio.structs import Tokens


class Lookup(nn.Module):
    """Look up the vector of each item.

    Attributes:
      count: V, how many items there are.
      width: D.
    """

    count: int
    width: int = 64

    @nn.compact
    def __call__(self, items: Int[Array, "B N"], valid: Bool[Array, "B N"]) -> Tokens:
        """Return tokens in a grid of one row; padding is where `valid` is False."""
        index = jnp.broadcast_to(jnp.arange(items.shape[1], dtype=jnp.int32)[None], items.shape)
        table: Any = self.param("table", INIT, (self.count, self.width), jnp.float32)
        return Tokens(x=table[items], index=index, grid=(1, items.shape[1]), valid=valid)
