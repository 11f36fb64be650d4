"""Convolutions over the grid of tokens: a small audio tower on patches, or Cnn14 and VGG-like on mel bins.

Cnn14 (Kong et al. 2020, arXiv:1912.10211) is `CNN14` as channels behind `tokens/bins.py`, with
`norms.FrozenBatchNorm`; what makes one vector of its last map is `pools.MaxMean`.
"""

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.layers.pooling import max_pooled
from ssl_audio.slots import Norm
from ssl_audio.structs import Encoded, Tokens

CNN14 = (64, 128, 256, 512, 1024, 2048)  # channels as published
# The VGG-like network of FSD50K (Fonseca et al. 2022, arXiv:2010.00475), behind `tokens/bins.py`; its clip's
# vector is `pools:MeanAndMax`.
VGG_LIKE: Mapping[str, Any] = MappingProxyType(
    dict(channels=(32, 64, 128), convolutions=2, pool="max", norm=dict(kind="norms:BatchNorm"))
)


class Cnn(nn.Module):
    """Blocks of 3 x 3 convolutions; between blocks the mean, or the maximum, of 2 x 2 tokens.

    Attributes:
      channels: width of each block; the last is the width of the tokens that come out.
      convolutions: in each block, each followed by a norm over channels and a ReLU.
      norm: template. `FrozenBatchNorm` is the batch normalisation of a published checkpoint, in training
        too; to begin from nothing take `LayerNorm`, since statistics of 0 and 1 normalise nothing.
      dropout: share of the values that training sets to 0 after each block.
      pool: of 2 x 2 tokens, "mean" or "max".
    """

    channels: tuple[int, ...] = (64, 128, 128)
    convolutions: int = 2
    norm: Norm = LayerNorm(1e-5)
    dropout: float = 0.0
    pool: str = "mean"

    def __post_init__(self):
        super().__post_init__()
        if self.pool not in POOLED:
            raise ValueError(f"pool '{self.pool}': wanted one of {', '.join(POOLED)}.")

    @property
    def joined(self) -> int:
        """Number of token columns that come in for each that goes out."""
        return 2 ** (len(self.channels) - 1)

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode tokens of the whole grid; `layers` is not kept, for the blocks differ in size."""
        del layers
        x = as_image(tokens)
        for block, width in enumerate(self.channels):
            for number in range(self.convolutions):
                name = f"block{block}_conv{number}"
                x = nn.Conv(width, (3, 3), use_bias=False, name=name)(x)
                x = nn.relu(self.norm.copy(name=f"{name}_norm")(x))
            if block + 1 < len(self.channels):
                x = POOLED[self.pool](x)
            drop = nn.Dropout(self.dropout, rng_collection="drop_path", name=f"block{block}_drop")
            x = drop(x, deterministic=not train)
        return Encoded(tokens=as_tokens(x))


def as_image(tokens: Tokens) -> Float[Array, "B H W D"]:
    """Return tokens of the whole grid, in its order, as an image."""
    return tokens.x.reshape(tokens.x.shape[0], *tokens.grid, -1)


def as_tokens(x: Float[Array, "B H W D"]) -> Tokens:
    """Return the places of an image as tokens, row by row."""
    batch, rows, columns, width = x.shape
    index = jnp.arange(rows * columns, dtype=jnp.int32)[None]
    index = jnp.broadcast_to(index, (batch, rows * columns))
    return Tokens(x=x.reshape(batch, rows * columns, width), index=index, grid=(rows, columns))


def halved(x: Float[Array, "B H W D"]) -> Float[Array, "B h w D"]:
    """Return the means of 2 x 2; a side of one stays, an odd row or column at the end is left out."""
    sides = [2 if side > 1 else 1 for side in x.shape[1:3]]
    return nn.avg_pool(x, (sides[0], sides[1]), (sides[0], sides[1]))


POOLED = {"mean": halved, "max": functools.partial(max_pooled, size=(2, 2))}
