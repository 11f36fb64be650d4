"""From visible tokens back to the whole grid: what masked autoencoders put on top of an encoder."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.backbones.attention import INIT
from ssl_audio.letters import Array, Float, Index
from ssl_audio.structs import Encoded, Tokens


class Decoder(nn.Module):
    """Fill the gaps with a learned token, add positions, run a stack, predict each patch.

    He et al. 2022 (arXiv:2111.06377) section 3; Huang et al. 2022 (arXiv:2207.06405) section 3.2.

    Attributes:
      trunk: a stack with neither positions nor special tokens of its own; its width is the decoder's.
      positions: template of an absolute position embedding.
      special: how many of the encoder's special tokens go along; windows take none.
    """

    trunk: nn.Module
    positions: nn.Module
    special: int = 1

    @nn.compact
    def __call__(self, encoded: Encoded, values: int, *, train: bool = False):
        """Return predictions [B, N, G] for all N patches of the grid, G = `values` each.

        Raises:
          ValueError: the encoder has fewer special tokens than are to go along.
        """
        tokens, width = encoded.tokens, self.trunk.width
        x = tokens.x
        if self.special:
            if encoded.special is None or encoded.special.shape[1] < self.special:
                raise ValueError(
                    f"Decoder: special={self.special}, but the encoder has fewer special tokens; "
                    "set special=0."
                )
            x = jnp.concatenate([encoded.special[:, : self.special], x], axis=1)
        x = nn.Dense(width, kernel_init=INIT, name="embed")(x)
        special, x = x[:, : self.special], x[:, self.special :]
        mask = self.param("mask_token", INIT, (width,), jnp.float32)
        full = scatter(x, tokens.index, tokens.grid, mask[None, None])
        place, special_place = self.positions(full, self.special)
        x = full.x + place
        if self.special:
            x = jnp.concatenate([special + special_place[None], x], axis=1)
        index = jnp.pad(full.index, ((0, 0), (self.special, 0)), constant_values=-1)
        whole = Tokens(x=x, index=index, grid=tokens.grid)
        out = self.trunk(whole, train=train).tokens.x[:, self.special :]
        return nn.Dense(values, kernel_init=INIT, name="predict")(out)


def scatter(
    x: Float[Array, "B K D"], index: Index, grid: tuple[int, int], fill: Float[Array, "#B #N D"]
) -> Tokens:
    """Put tokens at their positions in the whole grid and `fill` at the others."""
    batch, total = x.shape[0], grid[0] * grid[1]
    full = jnp.broadcast_to(fill.astype(x.dtype), (batch, total, x.shape[-1]))
    full = full.at[jnp.arange(batch)[:, None], index].set(x)
    order = jnp.broadcast_to(jnp.arange(total, dtype=jnp.int32)[None], (batch, total))
    return Tokens(x=full, index=order, grid=grid)
