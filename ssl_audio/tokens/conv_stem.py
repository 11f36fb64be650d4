"""Log-mel frames to tokens at a lower rate, by convolutions over time (Whisper, HTCL)."""

import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Int, Spec
from ssl_audio.frontend.base import before
from ssl_audio.structs import Tokens


class ConvStem(nn.Module):
    """Two convolutions of width 3 with GELUs, the second with stride 2 (arXiv:2212.04356, section 2.2).

    T frames become (T + 1) // 2 tokens.

    Attributes:
      width: D.
    """

    width: int

    patch: ClassVar[tuple[int, int]] = (1, 2)
    stride: ClassVar[tuple[int, int]] = (1, 2)

    @nn.compact
    def __call__(self, spec: Spec) -> Tokens:
        """Return tokens on a grid of one row; frames beyond the ends count as 0."""
        x = spec
        for name, stride in (("first", 1), ("second", 2)):
            x = nn.gelu(
                nn.Conv(self.width, (3,), stride, padding=1, name=name)(x), approximate=False
            )
        index = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None], x.shape[:2])
        return Tokens(x=x, index=index, grid=self.grid(*spec.shape[1:]))

    @nn.nowrap
    def grid(self, frames: int, bins: int) -> tuple[int, int]:
        """Return (1, tokens) of so many frames."""
        del bins
        return 1, (frames + 1) // 2


class Strided(nn.Module):
    """Convolutions of any strides with GELUs (HTCL, arXiv:2505.23298: 512 wide, then to the encoder's width).

    Attributes:
      width: D.
      channels: of the convolutions.
      kernels, strides: taps and stride of each.
    """

    width: int
    channels: int = 512
    kernels: tuple[int, ...] = (5, 3, 3)
    strides: tuple[int, ...] = (2, 2, 2)

    takes_count: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if not len(self.kernels) == len(self.strides) > 0:
            raise ValueError(
                f"Strided: {len(self.kernels)} kernels, {len(self.strides)} strides; wanted as many of each."
            )

    @nn.compact
    def __call__(self, spec: Spec, count: Int[Array, "B"] | None = None) -> Tokens:
        """Return tokens on a grid of one row; `count`: frames of each clip before its padding.

        Frames beyond the ends and the padding count as 0.
        """
        x = spec
        for number, (size, stride) in enumerate(zip(self.kernels, self.strides, strict=True)):
            if count is not None:
                x = jnp.where(before(count, x.shape[1])[..., None], x, 0)
                count = -(-count // stride)
            pad = ((size // 2, (size - 1) // 2),)
            x = nn.Conv(self.channels, (size,), stride, pad, name=f"conv_{number}")(x)
            x = nn.gelu(x, approximate=False)
        x = nn.Dense(self.width, name="out")(x)
        valid = None if count is None else before(jnp.maximum(count, 1), x.shape[1])
        index = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None], x.shape[:2])
        return Tokens(x=x, index=index, grid=(1, x.shape[1]), valid=valid)

    @property
    def stride(self) -> tuple[int, int]:
        """Return (1, frames between tokens)."""
        return 1, math.prod(self.strides)

    @property
    def patch(self) -> tuple[int, int]:
        """Return (1, frames that a token stands for)."""
        return 1, math.prod(self.strides)

    @nn.nowrap
    def grid(self, frames: int, bins: int) -> tuple[int, int]:
        """Return (1, tokens) of so many frames."""
        del bins
        for stride in self.strides:
            frames = -(-frames // stride)
        return 1, frames
