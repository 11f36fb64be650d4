"""Vectors back to samples: the decoder of SEANet (EnCodec, arXiv:2210.13438)."""

import math
from typing import Any, ClassVar

import flax.linen as nn

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.layers.seanet import Conv, Recurrent, ResidualUnit, TransposedConv


class Seanet(nn.Module):
    """A convolution, recurrent layers, transposed convolutions that halve the channels, residual units.

    Section 3.1 of the paper. N tokens become N * product of strides samples.

    Attributes:
      sounds: channels of sound.
      channels: before the last convolution.
      strides: one after another.
      kernel, last_kernel, unit_kernel, units, growth, compress, shortcut, recurrent, causal, pad, norm: as
        of `tokens/seanet.py`.
    """

    sounds: int = 1
    channels: int = 32
    strides: tuple[int, ...] = (8, 5, 4, 2)
    kernel: int = 7
    last_kernel: int = 7
    unit_kernel: int = 3
    units: int = 1
    growth: int = 2
    compress: int = 2
    shortcut: bool = True
    recurrent: int = 2
    causal: bool = True
    pad: str = "reflect"
    norm: str = "weight"

    takes_end: ClassVar[bool] = (
        True  # it can be told where sound ends; what comes after changes nothing
    )

    def setup(self):
        """Declare the layers."""
        conv = Conv(1, 1, causal=self.causal, pad=self.pad, norm=self.norm, parent=None)
        widths = [self.channels * 2**i for i in range(len(self.strides) + 1)][::-1]
        self.first = conv.copy(channels=widths[0], size=self.kernel)
        self.memory = Recurrent(widths[0], self.recurrent)
        self.up = [
            TransposedConv(width, 2 * stride, stride, causal=self.causal, norm=self.norm)
            for width, stride in zip(widths[1:], self.strides, strict=True)
        ]
        self.unit = [
            ResidualUnit(
                width, conv, self.unit_kernel, self.growth**j, self.compress, self.shortcut
            )
            for width in widths[1:]
            for j in range(self.units)
        ]
        self.last = conv.copy(channels=self.sounds, size=self.last_kernel)

    def __call__(
        self, x: Float[Array, "B N D"], count: Int[Array, " B"] | None = None
    ) -> Float[Array, "B S C"]:
        """Return samples of vectors; `count`: those before the padding, which changes no sample of theirs."""
        x = self.memory(self.first(x, count))
        for i, up in enumerate(self.up):
            x = up(nn.elu(x), count)
            count = None if count is None else count * self.strides[i]
            for unit in self.unit[i * self.units : (i + 1) * self.units]:
                x = unit(x, count)
        return self.last(nn.elu(x), count)

    def piece(self, x: Float[Array, "B N D"], memory: Any) -> tuple[Float[Array, "B S C"], Any]:
        """Return the samples of the next vectors of a long sound, and what those after them need.

        Args:
          x: vectors; the first ones are at least `kernel` where padding mirrors.
          memory: what the call before returned; None: this is the first.
        """
        before = iter(memory or [])
        after = []

        def through(layer, x):
            x, state = layer.piece(x, next(before, None))
            after.append(state)
            return x

        x = through(self.memory, through(self.first, x))
        for i, up in enumerate(self.up):
            x = through(up, nn.elu(x))
            for unit in self.unit[i * self.units : (i + 1) * self.units]:
                x = through(unit, x)
        return through(self.last, nn.elu(x)), after

    @property
    def stride(self) -> int:
        """Return samples of one vector."""
        return math.prod(self.strides)
