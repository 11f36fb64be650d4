"""Samples to mean and deviation of latents: the encoder of Oobleck (Stable Audio, arXiv:2402.04825)."""

import math

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Spec
from ssl_audio.layers.oobleck import Down, Snake, Units, flat
from ssl_audio.structs import Tokens


class Oobleck(nn.Module):
    """Convolutions, residual units before each stride, Snakes.

    Attributes:
      width: D: twice the latent vectors' width.
      channels: base of the widths.
      multiples: of it, after each stride.
      strides: one after another.
    """

    width: int = 128
    channels: int = 128
    multiples: tuple[int, ...] = (1, 2, 4, 8, 16)
    strides: tuple[int, ...] = (2, 4, 4, 8, 8)

    def __post_init__(self):
        super().__post_init__()
        if len(self.multiples) != len(self.strides):
            raise ValueError(
                f"Oobleck: {len(self.multiples)} multiples, {len(self.strides)} strides; wanted as many."
            )

    @nn.compact
    def __call__(self, spec: Spec) -> Tokens:
        """Return tokens of samples [B, T, channels of sound], on a grid of one row."""
        width = self.channels
        x = flat(width, 7, "first")(spec)
        for i, (multiple, stride) in enumerate(zip(self.multiples, self.strides, strict=True)):
            x = Snake(name=f"snake_{i}")(Units(width, name=f"units_{i}")(x))
            width = multiple * self.channels
            x = Down(width, stride, name=f"down_{i}")(x)
        x = flat(self.width, 3, "last")(Snake(name="snake")(x))
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
        for stride in self.strides:
            frames = (frames + 2 * -(-stride // 2) - 2 * stride) // stride + 1
        return 1, frames
