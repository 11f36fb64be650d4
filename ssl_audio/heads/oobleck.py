"""Vectors to samples: the decoder of DAC (arXiv:2306.06546) and of Oobleck (arXiv:2402.04825)."""

import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.layers.oobleck import SnakeBeta, Units, Up, flat
from ssl_audio.layers.seanet import until
from ssl_audio.slots import Layer


class Oobleck(nn.Module):
    """A convolution, transposed convolutions with residual units after each, a convolution.

    N vectors become N * product of strides samples; a few less where strides are odd, see `Up`.

    Attributes:
      sounds: channels of sound.
      channels: base of the widths.
      multiples: of it, before each stride; the last one is after all.
      strides: one after another.
      activation: `oobleck:SnakeBeta` or `oobleck:Snake`.
      norm: of the convolutions, see `layers/seanet.py`.
      bias: whether the last convolution has one.
      tanh: end with it, so that samples lie between -1 and 1.
    """

    sounds: int = 2
    channels: int = 128
    multiples: tuple[int, ...] = (16, 8, 4, 2, 1, 1)
    strides: tuple[int, ...] = (8, 8, 4, 4, 2)
    activation: Layer = SnakeBeta()
    norm: str = "weight"
    bias: bool = False
    tanh: bool = False

    causal: ClassVar[bool] = False
    takes_end: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if len(self.multiples) != len(self.strides) + 1:
            raise ValueError(
                f"Oobleck: {len(self.multiples)} multiples, {len(self.strides)} strides; wanted one more."
            )

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], count: Int[Array, " B"] | None = None
    ) -> Float[Array, "B S C"]:
        """Return samples of latent vectors.

        `count`: vectors before the padding, which changes no sample of theirs; after these come zeros.
        """
        snake, norm = self.activation, self.norm
        x = flat(self.multiples[0] * self.channels, 7, "first", norm=norm)(x, count)
        for i, (multiple, stride) in enumerate(zip(self.multiples[1:], self.strides, strict=True)):
            width = multiple * self.channels
            x = Up(width, stride, norm, name=f"up_{i}")(snake.copy(name=f"snake_{i}")(x), count)
            count = None if count is None else count * stride - stride % 2
            x = Units(width, snake, norm, name=f"units_{i}")(x, count)
        last = flat(self.sounds, 7, "last", bias=self.bias, norm=norm)
        x = until(last(snake.copy(name="snake")(x), count), count)
        return jnp.tanh(x) if self.tanh else x

    @property
    def stride(self) -> int:
        """Return samples of one vector."""
        return math.prod(self.strides)
