"""Positions that a convolution over the sequence tells: where a token lies shows in its neighbours.

Called by encoders in the place of a table; they know the order of the sequence only, not its length.
"""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.conv import grouped_conv
from ssl_audio.layers.dense import uniform
from ssl_audio.layers.norms import standard
from ssl_audio.structs import Tokens


class Convolution(nn.Module):
    """One wide grouped convolution with weight normalisation, then GELU (wav2vec 2.0, BEATs).

    The weights of each tap have a length of their own (Salimans & Kingma 2016, arXiv:1602.07868).

    Attributes:
      size: taps.
      groups: of channels; each sees only its own.
    """

    size: int = 128
    groups: int = 16

    hides_padding: ClassVar[bool] = True  # it is 0 where it comes in, see `Stack`

    @nn.compact
    def __call__(self, tokens: Tokens, special: int = 0) -> tuple[Float[Array, "B N D"], float]:
        """Return what is added to the tokens, and 0 for special ones."""
        del special
        width = tokens.x.shape[-1]
        shape = _shape(self.size, width, self.groups)
        deviation = (4 / (self.size * width)) ** 0.5
        direction = self.param("kernel", nn.initializers.normal(deviation), shape, jnp.float32)

        def start(key, shape, dtype):
            del key, shape
            return _length(direction)[:, 0, 0].astype(dtype)

        gain = self.param("gain", start, (self.size,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (width,), jnp.float32)
        kernel = direction * (gain[:, None, None] / _length(direction))
        x = grouped_conv(
            tokens.x,
            kernel,
            window_strides=(1,),
            padding=(_ends(self.size),),
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=self.groups,
        )
        x = x + bias[None, None]
        return nn.gelu(x, approximate=False), 0.0


class Convolutions(nn.Module):
    """Several grouped convolutions, each normalised over channels, then GELU (data2vec).

    Baevski et al. 2022 (arXiv:2202.03555) section 4.2.

    Attributes:
      depth: number of convolutions.
      size: taps of each.
      groups: of channels; each sees only its own.
      masked: what a convolution makes of padding is 0 for the next one, as where a clip ends without
        padding. False: only before the first, as where the published code is given a padded batch.
    """

    depth: int = 5
    size: int = 19
    groups: int = 16
    masked: bool = False

    @property
    def hides_padding(self) -> bool:
        """Whether padding changes no other token's position."""
        return self.masked

    @nn.compact
    def __call__(self, tokens: Tokens, special: int = 0) -> tuple[Float[Array, "B N D"], float]:
        """Return what is added to the tokens, and 0 for special ones."""
        del special
        x, width = tokens.x, tokens.x.shape[-1]
        shape = _shape(self.size, width, self.groups)
        init = uniform((self.size * shape[1]) ** -0.5)
        for i in range(self.depth):
            conv = nn.Conv(
                width,
                (self.size,),
                padding=(_ends(self.size),),
                feature_group_count=self.groups,
                kernel_init=init,
                conv_general_dilated=grouped_conv,
                name=f"conv_{i}",
            )
            x = standard(conv(x), 1e-5)
            x = nn.gelu(x, approximate=False)
            if self.masked and tokens.valid is not None:
                x = jnp.where(tokens.valid[..., None], x, 0)
        return x, 0.0


def _ends(size: int) -> tuple[int, int]:
    """Return the padding; of an even number of taps one more looks back than ahead."""
    return size // 2, (size - 1) // 2


def _length(direction):
    return jnp.sqrt(jnp.sum(direction**2, axis=(1, 2), keepdims=True))


def _shape(size: int, width: int, groups: int) -> tuple[int, int, int]:
    if width % groups:
        raise ValueError(f"convolution: width {width} is not divisible by {groups} groups.")
    return size, width // groups, width
