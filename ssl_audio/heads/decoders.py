"""From visible tokens back to the whole grid: what masked autoencoders put on top of an encoder."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.conv import grouped_conv
from ssl_audio.layers.dense import INIT
from ssl_audio.slots import Backbone, Positions
from ssl_audio.structs import Encoded, Tokens
from ssl_audio.tokens.order import scatter


class Decoder(nn.Module):
    """Fill the gaps with a learned token, add positions, run a stack, predict each patch.

    He et al. 2022 (arXiv:2111.06377) section 3; Huang et al. 2022 (arXiv:2207.06405) section 3.2.

    Attributes:
      trunk: a stack with neither positions nor special tokens of its own; its width is the decoder's.
      positions: template of an absolute position embedding.
      special: how many of the encoder's special tokens go along; windows take none.
      embed: map the tokens to the trunk's width first; False: they have it.
      bias: of that map and of the one that predicts.
    """

    fills: ClassVar[bool] = (
        True  # it takes visible tokens, and has a token of its own for the others
    )

    trunk: Backbone
    positions: Positions
    special: int = 1
    embed: bool = True
    bias: bool = True

    @nn.compact
    def __call__(self, encoded: Encoded, values: int, *, train: bool = False):
        """Return predictions [B, N, G] for all N patches of the grid, G = `values` each.

        Raises:
          ValueError: the encoder has fewer special tokens than are to go along; without `embed`, another
            width than the trunk's.
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
        if self.embed:
            x = nn.Dense(width, use_bias=self.bias, kernel_init=INIT, name="embed")(x)
        elif x.shape[-1] != width:
            raise ValueError(
                f"Decoder: embed=False, but tokens are {x.shape[-1]} wide and its trunk {width}; set "
                "embed=True."
            )
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
        return nn.Dense(values, use_bias=self.bias, kernel_init=INIT, name="predict")(out)


class ConvDecoder(nn.Module):
    """Grouped 2-D convolutions over the whole grid, each added to what it came from, then a linear map.

    A layer is convolution, normalisation without scale and bias, GELU (data2vec 2.0,
    arXiv:2212.07525, section 3.2; EAT, arXiv:2401.03497).

    Attributes:
      width: channels of the layers.
      layers: number of them.
      kernel: rows and columns that each sees.
      groups: parts of the channels that do not mix.
    """

    width: int = 768
    layers: int = 6
    kernel: int = 3
    groups: int = 16

    @nn.compact
    def __call__(self, tokens: Tokens) -> Float[Array, "B N D"]:
        """Return a prediction for every token of the whole grid, in order, as wide as the tokens.

        Raises:
          ValueError: the widths are not divisible by the groups.
        """
        x = tokens.x
        batch, count, out = x.shape
        if self.width % self.groups or out % self.groups:
            raise ValueError(
                f"ConvDecoder: widths {out} and {self.width} must be divisible by "
                f"{self.groups} groups."
            )
        x = x.reshape(batch, *tokens.grid, out)
        reach = (self.kernel // 2, self.kernel - 1 - self.kernel // 2)
        for number in range(self.layers):
            y = nn.Conv(
                self.width,
                (self.kernel, self.kernel),
                padding=(reach, reach),
                feature_group_count=self.groups,
                dtype=x.dtype,
                conv_general_dilated=grouped_conv,
                name=f"conv_{number}",
            )(x)
            y = nn.LayerNorm(1e-5, use_scale=False, use_bias=False, use_fast_variance=False)(y)
            y = nn.gelu(y, approximate=False)
            x = x + y if x.shape == y.shape else y
        return nn.Dense(out, kernel_init=INIT, name="predict")(x.reshape(batch, count, -1))
