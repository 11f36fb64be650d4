"""The parts of DAC (Kumar et al. 2023, arXiv:2306.06546) and of Oobleck, Stable Audio's autoencoder after it.

Evans et al. 2024, arXiv:2402.04825. The two differ in the activation, in what ends the decoder, and in that
DAC fills its last stride with zeros.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.layers.seanet import Conv, TransposedConv, until
from ssl_audio.slots import Layer

DILATIONS = (1, 3, 9)


class Snake(nn.Module):
    """x + sin^2(a x) / (a + 1e-9), a of each channel (Ziyin et al. 2020, arXiv:2006.08195); DAC's."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B T C"]:
        """Return the activation."""
        ones = nn.initializers.ones
        alpha = self.param("alpha", ones, x.shape[-1:], jnp.float32)[None, None]
        return x + jnp.sin(alpha * x) ** 2 / (alpha + 1e-9)


class SnakeBeta(nn.Module):
    """x + sin^2(x e^a) / (e^b + 1e-9), a and b of each channel (BigVGAN, arXiv:2206.04658); Oobleck's."""

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
      activation: `oobleck:SnakeBeta` or `oobleck:Snake`.
      norm: of the convolutions, see `Conv`.
    """

    channels: int
    activation: Layer = SnakeBeta()
    norm: str = "weight"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T C"], count: Int[Array, " B"] | None = None
    ) -> Float[Array, "B T C"]:
        """Return the output of all units; `count`: values before the padding, see `Conv`."""
        for i, dilation in enumerate(DILATIONS):
            y = self.activation.copy(name=f"snake_{i}_0")(x)
            y = flat(self.channels, 7, f"conv_{i}_0", dilation=dilation, norm=self.norm)(y, count)
            y = self.activation.copy(name=f"snake_{i}_1")(y)
            x = x + flat(self.channels, 1, f"conv_{i}_1", norm=self.norm)(y, count)
        return x


class Down(nn.Module):
    """A convolution with twice as many taps as its stride, with zeros of half the stride on both sides.

    Attributes:
      channels: of the output.
      stride: between outputs.
      norm: of the convolution, see `Conv`.
    """

    channels: int
    stride: int
    norm: str = "weight"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T A"], count: Int[Array, " B"] | None = None
    ) -> Float[Array, "B U C"]:
        """Return the output of all of them, `made`; `count`: values before the padding, see `Conv`."""
        ends = -(-self.stride // 2)
        conv = Conv(self.channels, 2 * self.stride, self.stride, norm=self.norm, name="conv")
        x = jnp.pad(until(x, count), ((0, 0), (ends, ends), (0, 0)))
        return conv.padded(x, None if count is None else made(count, self.stride))


class Up(nn.Module):
    """The transpose of `Down`: T values become T * stride, less one if the stride is odd.

    Attributes:
      channels: of the output.
      stride: values of the output for each of the input.
      norm: of the convolution, see `TransposedConv`.
    """

    channels: int
    stride: int
    norm: str = "weight"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T A"], count: Int[Array, " B"] | None = None
    ) -> Float[Array, "B U C"]:
        """Return the output; `count`: values before the padding, see `Conv`."""
        ends = -(-self.stride // 2)
        conv = TransposedConv(
            self.channels, 2 * self.stride, self.stride, norm=self.norm, name="conv"
        )
        found = conv.whole(x, count)
        return found[:, ends : found.shape[1] - ends]


def made(count: Any, stride: int) -> Any:
    """Return the outputs of `Down` of so many values: one for each whole stride, or for half an odd one."""
    return (count + 2 * -(-stride // 2) - 2 * stride) // stride + 1


def flat(
    channels: int,
    size: int,
    name: str | None = None,
    *,
    dilation: int = 1,
    bias: bool = True,
    norm: str = "weight",
) -> Any:
    """Return a convolution that keeps the length, with zeros on both sides; `size` is odd."""
    return Conv(channels, size, 1, dilation, False, "constant", norm, bias, name=name)
