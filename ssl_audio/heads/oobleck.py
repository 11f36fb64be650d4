"""Latent vectors back to samples: the decoder of Oobleck (Stable Audio, arXiv:2402.04825)."""

import flax.linen as nn

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.oobleck import Snake, Units, Up, flat


class Oobleck(nn.Module):
    """A convolution, transposed convolutions with residual units after each, a convolution without bias.

    Attributes:
      sounds: channels of sound.
      channels: base of the widths.
      multiples: of it, before each stride; the last one is after all.
      strides: one after another.
    """

    sounds: int = 2
    channels: int = 128
    multiples: tuple[int, ...] = (16, 8, 4, 2, 1, 1)
    strides: tuple[int, ...] = (8, 8, 4, 4, 2)

    def __post_init__(self):
        super().__post_init__()
        if len(self.multiples) != len(self.strides) + 1:
            raise ValueError(
                f"Oobleck: {len(self.multiples)} multiples, {len(self.strides)} strides; wanted one more."
            )

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B S C"]:
        """Return samples of latent vectors."""
        x = flat(self.multiples[0] * self.channels, 7, "first")(x)
        for i, (multiple, stride) in enumerate(zip(self.multiples[1:], self.strides, strict=True)):
            width = multiple * self.channels
            x = Up(width, stride, name=f"up_{i}")(Snake(name=f"snake_{i}")(x))
            x = Units(width, name=f"units_{i}")(x)
        return flat(self.sounds, 7, "last", bias=False)(Snake(name="snake")(x))
