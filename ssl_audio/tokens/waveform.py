"""Samples to tokens: a stack of strided convolutions that learns its own filters, and a projection.

Called by objectives in the place of `Patchify`; `Projected` also wraps that.
"""

import dataclasses
import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int, Spec
from ssl_audio.frontend.base import before
from ssl_audio.layers.norms import LayerNorm, TimeNorm
from ssl_audio.structs import Tokens
from ssl_audio.tokens.wrapped import Wrapped


class Waveform(nn.Module):
    """Convolutions with GELU, one token about every 20 ms (wav2vec 2.0, arXiv:2006.11477, section 2).

    Attributes:
      widths, kernels, strides: channels, taps and stride of each convolution.
      bias: of the convolutions.
      norm: "group": the first convolution's channels are normalised over time, each by itself, so
        that a token depends on the whole clip, as in the published base models; "layer": every
        convolution's output is normalised over channels.
      gradient: factor on the gradient that reaches the convolutions.
    """

    widths: tuple[int, ...] = (512,) * 7
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    bias: bool = False
    norm: str = "group"
    gradient: float = 1.0

    takes_count: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if not len(self.widths) == len(self.kernels) == len(self.strides) > 0:
            raise ValueError(
                f"Waveform: {len(self.widths)} widths, {len(self.kernels)} kernels, "
                f"{len(self.strides)} strides; wanted as many of each."
            )
        if self.norm not in ("group", "layer"):
            raise ValueError(f"Waveform: norm '{self.norm}'; wanted group or layer.")

    @nn.compact
    def __call__(self, spec: Spec, count: Int[Array, "B"] | None = None) -> Tokens:
        """Return tokens of samples [B, T, 1], on a grid of one row.

        Args:
          spec: samples.
          count: those of each clip before its padding, which then changes no valid token. None:
            padding, if there is any, counts as sound, in "group" norms also for other tokens.
        """
        grid = self.grid(*spec.shape[1:])
        x = spec
        layers = zip(self.widths, self.kernels, self.strides, strict=True)
        for i, (width, size, stride) in enumerate(layers):
            conv = nn.Conv(
                width,
                (size,),
                (stride,),
                padding="VALID",
                use_bias=self.bias,
                kernel_init=nn.initializers.he_normal(),
                name=f"conv_{i}",
            )
            x = conv(x)
            if self.norm == "layer":
                x = LayerNorm(1e-5, name=f"norm_{i}")(x)
            elif i == 0:
                some = None if count is None else jnp.maximum((count - size) // stride + 1, 1)
                valid = None if some is None else before(some, x.shape[1])
                x = TimeNorm(name="norm_0")(x, valid)
            x = nn.gelu(x, approximate=False)
        if self.gradient != 1:
            x = self.gradient * x + jax.lax.stop_gradient((1 - self.gradient) * x)
        index = jnp.broadcast_to(jnp.arange(grid[1], dtype=jnp.int32)[None], x.shape[:2])
        found = Tokens(x=x, index=index, grid=grid)
        if count is None:
            return found
        some = jnp.maximum(count, self.patch[1])  # attention to nothing is not a number
        return dataclasses.replace(found, valid=self.valid(some, grid[1]))

    @property
    def stride(self) -> tuple[int, int]:
        """Return (1, samples between tokens)."""
        return 1, math.prod(self.strides)

    @property
    def patch(self) -> tuple[int, int]:
        """Return (1, samples that a token sees)."""
        field, step = 1, 1
        for size, stride in zip(self.kernels, self.strides, strict=True):
            field, step = field + (size - 1) * step, step * stride
        return 1, field

    @nn.nowrap
    def grid(self, frames: int, bins: int = 1) -> tuple[int, int]:
        """Return (1, tokens) of so many samples.

        Raises:
          ValueError: they are too few for one token.
        """
        del bins
        field, step = self.patch[1], self.stride[1]
        if frames < field:
            raise ValueError(
                f"waveform: {frames} samples are less than the {field} that one token sees; use "
                "longer clips."
            )
        return 1, (frames - field) // step + 1

    @nn.nowrap
    def valid(self, samples: Int[Array, "B"], count: int) -> Bool[Array, "B N"]:
        """Return which of `count` tokens see nothing but the first `samples` of each clip."""
        return before((samples - self.patch[1]) // self.stride[1] + 1, count)


class WavePatches(nn.Module):
    """Embed stretches of samples that do not overlap with one linear layer (VATT, arXiv:2104.11178).

    Attributes:
      width: D.
      size: samples of a stretch.
      bias: whether one is added.
    """

    width: int
    size: int = 128
    bias: bool = True

    takes_count: ClassVar[bool] = True

    @nn.compact
    def __call__(self, spec: Spec, count: Int[Array, "B"] | None = None) -> Tokens:
        """Return tokens of samples [B, T, 1] on a grid of one row; what does not fill a stretch is dropped.

        Args:
          spec: samples.
          count: those of each clip before its padding; stretches that reach into it are not valid, but for
            the first.
        """
        tokens = self.grid(*spec.shape[1:])[1]
        flat = spec[:, : tokens * self.size].reshape(spec.shape[0], tokens, self.size)
        init = nn.initializers.lecun_normal()
        x = nn.Dense(self.width, use_bias=self.bias, kernel_init=init, name="dense")(flat)
        index = jnp.broadcast_to(jnp.arange(tokens, dtype=jnp.int32)[None], x.shape[:2])
        valid = None if count is None else self.valid(jnp.maximum(count, self.size), tokens)
        return Tokens(x=x, index=index, grid=(1, tokens), valid=valid)

    @property
    def stride(self) -> tuple[int, int]:
        """Return (1, samples between tokens)."""
        return 1, self.size

    @property
    def patch(self) -> tuple[int, int]:
        """Return (1, samples that a token sees)."""
        return 1, self.size

    @nn.nowrap
    def grid(self, frames: int, bins: int = 1) -> tuple[int, int]:
        """Return (1, tokens) of so many samples.

        Raises:
          ValueError: they are too few for one token, or not samples.
        """
        if frames < self.size or bins != 1:
            raise ValueError(
                f"waveform: {frames} frames of {bins} values; wanted samples (frontend 'raw'), and at least "
                f"the {self.size} of one token."
            )
        return 1, frames // self.size

    @nn.nowrap
    def valid(self, samples: Int[Array, "B"], count: int) -> Bool[Array, "B N"]:
        """Return which of `count` tokens see nothing but the first `samples` of each clip."""
        return before(samples // self.size, count)


class Projected(Wrapped):
    """Any tokenizer, its tokens normalised and mapped to the encoder's width.

    Attributes:
      tokenizer: its width may differ from the encoder's.
      width: D.
      eps: of the LayerNorm.
      linear: map them; False: the inner tokenizer has the encoder's width already.
    """

    width: int
    eps: float = 1e-5
    linear: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not self.linear and self.tokenizer.width != self.width:
            raise ValueError(
                f"Projected: linear=False leaves {self.tokenizer.width} values per token; wanted "
                f"{self.width}."
            )

    def setup(self):
        """Declare the parameters."""
        self.norm = LayerNorm(self.eps)
        if self.linear:
            self.project = nn.Dense(self.width)

    def __call__(self, spec: Spec, count: Int[Array, "B"] | None = None) -> Tokens:
        """Return tokens of width D; `count`: of inner tokenizers that know where clips end."""
        tokens, _, x = self.parts(spec, count)
        return dataclasses.replace(tokens, x=x)

    def parts(
        self, spec: Spec, count: Int[Array, "B"] | None = None
    ) -> tuple[Tokens, Float[Array, "B N C"], Float[Array, "B N D"]]:
        """Return the inner tokenizer's tokens, these normalised, and these mapped to width D."""
        tokens = self.tokenizer(spec) if count is None else self.tokenizer(spec, count)
        normalised = self.norm(tokens.x)
        return tokens, normalised, self.project(normalised) if self.linear else normalised
