"""Samples to the vectors that a codec quantises: the encoder of SEANet (EnCodec, arXiv:2210.13438)."""

import math
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int, Spec
from ssl_audio.frontend.base import before
from ssl_audio.layers.seanet import Conv, Recurrent, ResidualUnit
from ssl_audio.structs import Tokens


class Seanet(nn.Module):
    """Convolutions, each stride after residual units doubling the channels; recurrent layers; a convolution.

    Section 3.1 of the paper. T samples become ceil(T / product of strides) tokens.

    Attributes:
      width: D.
      channels: of the first convolution.
      strides: one after another; a strided convolution has twice as many taps.
      kernel, last_kernel, unit_kernel: taps of the first and the last convolution, and of the units.
      units: residual units before each stride; the dilation of the i-th is `growth` to the power of i.
      growth, compress, shortcut: of the units, see `ResidualUnit`.
      recurrent: LSTM layers.
      causal, pad, norm: of all convolutions, see `Conv`.
    """

    width: int = 128
    channels: int = 32
    strides: tuple[int, ...] = (2, 4, 5, 8)
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
        self.first = conv.copy(channels=self.channels, size=self.kernel)
        widths = [self.channels * 2**i for i in range(len(self.strides) + 1)]
        self.unit = [
            ResidualUnit(
                width, conv, self.unit_kernel, self.growth**j, self.compress, self.shortcut
            )
            for width in widths[:-1]
            for j in range(self.units)
        ]
        self.down = [
            conv.copy(channels=width, size=2 * stride, stride=stride)
            for width, stride in zip(widths[1:], self.strides, strict=True)
        ]
        self.memory = Recurrent(widths[-1], self.recurrent)
        self.last = conv.copy(channels=self.width, size=self.last_kernel)

    def __call__(self, spec: Spec, count: Int[Array, "B"] | None = None) -> Tokens:
        """Return tokens of samples [B, T, channels of sound], on a grid of one row.

        Args:
          spec: samples.
          count: those of each sound before its padding, with T a multiple of all strides' product: its
            tokens, the first of them, are then those of the sound without padding.
        """
        x = self.first(spec, count)
        for i, down in enumerate(self.down):
            for unit in self.unit[i * self.units : (i + 1) * self.units]:
                x = unit(x, count)
            x = down(nn.elu(x), count)
            count = None if count is None else -(-count // self.strides[i])
        x = self.last(nn.elu(self.memory(x)), count)
        index = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None], x.shape[:2])
        return Tokens(x=x, index=index, grid=(1, x.shape[1]))

    def piece(
        self, x: Spec, memory: Any, *, last: bool = False
    ) -> tuple[Float[Array, "B N D"], Any]:
        """Return the vectors of the next piece of a long sound, and what the piece after it needs.

        Pieces give what the whole sound does.

        Args:
          x: samples, a multiple of all strides' product, unless it is the last piece. The first piece is
            at least `last_kernel` tokens long where padding mirrors sound.
          memory: what the piece before returned; None: this is the first.
          last: whether sound ends with it.
        """
        before = iter(memory or [])
        after = []

        def through(layer, x):
            x, state = layer.piece(x, next(before, None), last=last)
            after.append(state)
            return x

        x = through(self.first, x)
        for i, down in enumerate(self.down):
            for unit in self.unit[i * self.units : (i + 1) * self.units]:
                x = through(unit, x)
            x = through(down, nn.elu(x))
        return through(self.last, nn.elu(through(self.memory, x))), after

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
        return 1, -(-frames // self.stride[1])

    @nn.nowrap
    def valid(self, samples: Int[Array, "B"], count: int) -> Bool[Array, "B N"]:
        """Return which of `count` tokens stand for any of the first `samples` of each clip."""
        return before(-(-samples // self.stride[1]), count)
