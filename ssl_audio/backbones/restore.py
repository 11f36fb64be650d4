"""From the visible tokens back to the whole grid, for a predictor that sees mask tokens elsewhere."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool
from ssl_audio.layers.dense import INIT
from ssl_audio.slots import Backbone
from ssl_audio.structs import Encoded, Tokens
from ssl_audio.tokens.order import put


class Restored(nn.Module):
    """Embed encoded visible tokens, put mask tokens at all other places, encode the whole grid.

    The predictor of BEATs (arXiv:2212.09058, section 3.1).

    Attributes:
      encoder: template of the backbone that does it; its width may differ from the visible tokens'.
    """

    encoder: Backbone

    @nn.compact
    def __call__(
        self, visible: Tokens, *, train: bool = False, kept: Bool[Array, "B N"] | None = None
    ) -> Encoded:
        """Return the whole grid, in its order.

        Args:
          visible: the tokens that were encoded; those that are not valid are replaced as well.
          train: passed on.
          kept: places of the grid whose token may be used at all; None: all visible ones.
        """
        width = self.encoder.width
        mask_token = self.param("mask_token", INIT, (width,), jnp.float32)
        x = nn.Dense(width, name="embed")(visible.x)
        batch, count = x.shape[0], visible.grid[0] * visible.grid[1]
        there = jnp.ones(x.shape[:2], bool) if visible.valid is None else visible.valid
        there = put(jnp.zeros((batch, count), bool), visible.index, there)
        if kept is not None:
            there &= kept
        whole = put(jnp.zeros((batch, count, width), x.dtype), visible.index, x)
        whole = jnp.where(there[..., None], whole, mask_token[None, None])
        index = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None], (batch, count))
        return self.encoder(Tokens(whole, index, visible.grid), train=train)
