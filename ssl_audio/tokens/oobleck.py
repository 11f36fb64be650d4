"""Samples to vectors: the encoder of DAC (arXiv:2306.06546) and of Oobleck (arXiv:2402.04825)."""

import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Int, Spec
from ssl_audio.layers.oobleck import Down, SnakeBeta, Units, flat, made
from ssl_audio.layers.seanet import until
from ssl_audio.slots import Layer
from ssl_audio.structs import Tokens


class Oobleck(nn.Module):
    """Convolutions, residual units before each stride, Snakes.

    Attributes:
      width: D; of Oobleck, twice that of the latent vectors: mean and deviation.
      channels: base of the widths.
      multiples: of it, after each stride.
      strides: one after another.
      activation: `oobleck:SnakeBeta` or `oobleck:Snake`.
      norm: of the convolutions, see `layers/seanet.py`.
      filled: sound goes on with zeros to a multiple of all strides' product, as of DAC; else what does not
        fill the last one is dropped.
    """

    width: int = 128
    channels: int = 128
    multiples: tuple[int, ...] = (1, 2, 4, 8, 16)
    strides: tuple[int, ...] = (2, 4, 4, 8, 8)
    activation: Layer = SnakeBeta()
    norm: str = "weight"
    filled: bool = False

    causal: ClassVar[bool] = False
    takes_end: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if len(self.multiples) != len(self.strides):
            raise ValueError(
                f"Oobleck: {len(self.multiples)} multiples, {len(self.strides)} strides; wanted as many."
            )

    @nn.compact
    def __call__(self, spec: Spec, count: Int[Array, " B"] | None = None) -> Tokens:
        """Return tokens of samples [B, T, channels of sound], on a grid of one row.

        Args:
          spec: samples.
          count: those of each sound before its padding, with T a multiple of all strides' product: its
            tokens, the first of them, are then those of the sound without padding.
        """
        width, snake, norm = self.channels, self.activation, self.norm
        if self.filled:
            spec = jnp.pad(spec, ((0, 0), (0, -spec.shape[1] % self.stride[1]), (0, 0)))
        if self.filled and count is not None:
            spec, count = until(spec, count), count + -count % self.stride[1]
        x = flat(width, 7, "first", norm=norm)(spec, count)
        for i, (multiple, stride) in enumerate(zip(self.multiples, self.strides, strict=True)):
            x = Units(width, snake, norm, name=f"units_{i}")(x, count)
            x, width = snake.copy(name=f"snake_{i}")(x), multiple * self.channels
            x = Down(width, stride, norm, name=f"down_{i}")(x, count)
            count = None if count is None else made(count, stride)
        x = flat(self.width, 3, "last", norm=norm)(snake.copy(name="snake")(x), count)
        index = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None], x.shape[:2])
        return Tokens(x=x, index=index, grid=(1, x.shape[1]))

    @property
    def stride(self) -> tuple[int, int]:
        """Return (1, samples between tokens)."""
        return 1, math.prod(self.strides)

    @property
    def patch(self) -> tuple[int, int]:
        """Return (1, samples that a token stands for); it sees more."""
        return self.stride

    @nn.nowrap
    def grid(self, frames: int, bins: int = 1) -> tuple[int, int]:
        """Return (1, tokens) of so many samples."""
        del bins
        if self.filled:
            frames += -frames % self.stride[1]
        for stride in self.strides:
            frames = made(frames, stride)
        return 1, frames
