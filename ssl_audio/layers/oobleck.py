"""The parts of Oobleck, the autoencoder of Stable Audio (Evans et al. 2024, arXiv:2402.04825)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.seanet import Conv, TransposedConv

DILATIONS = (1, 3, 9)


class Snake(nn.Module):
    """x + sin^2(x e^a) / (e^b + 1e-9), a and b of each channel (Ziyin et al. 2020, arXiv:2006.08195)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        """Return the activation."""
        zeros = nn.initializers.zeros
        alpha, beta = (
            self.param(name, zeros, x.shape[-1:], jnp.float32)[None, None]
            for name in ("alpha", "beta")
        )
        return x + jnp.sin(x * jnp.exp(alpha)) ** 2 / (jnp.exp(beta) + 1e-9)


class Units(nn.Module):
    """Residual units of rising dilation: Snake, convolution of 7 taps, Snake, of 1 tap, added to the input.

    Attributes:
      channels: of input and output.
    """

    channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        """Return the output of all units."""
        for i, dilation in enumerate(DILATIONS):
            y = Snake(name=f"snake_{i}_0")(x)
            y = flat(self.channels, 7, f"conv_{i}_0", dilation=dilation)(y)
            y = Snake(name=f"snake_{i}_1")(y)
            x = x + flat(self.channels, 1, f"conv_{i}_1")(y)
        return x


class Down(nn.Module):
    """A convolution with twice as many taps as its stride, with zeros of half the stride on both sides.

    Attributes:
      channels: of the output.
      stride: between outputs.
    """

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T A"]) -> Float[Array, "B U C"]:
        """Return the output; U is T / stride, or one less where an odd stride leaves too few zeros."""
        ends = -(-self.stride // 2)
        conv = Conv(self.channels, 2 * self.stride, self.stride, name="conv")
        return conv.padded(jnp.pad(x, ((0, 0), (ends, ends), (0, 0))))


class Up(nn.Module):
    """The transpose of `Down`: T values become T * stride, less one if the stride is odd.

    Attributes:
      channels: of the output.
      stride: values of the output for each of the input.
    """

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T A"]) -> Float[Array, "B U C"]:
        """Return the output."""
        ends = -(-self.stride // 2)
        found = TransposedConv(self.channels, 2 * self.stride, self.stride, name="conv").whole(x)
        return found[:, ends : found.shape[1] - ends]


def flat(channels: int, size: int, name: str, *, dilation: int = 1, bias: bool = True) -> Any:
    """Return a convolution that keeps the length, with zeros on both sides; `size` is odd."""
    return Conv(channels, size, 1, dilation, False, "constant", bias=bias, name=name)
