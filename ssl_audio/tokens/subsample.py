"""Log-mel frames to tokens at half the rate, by convolutions over time and frequency (Zipformer)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int, Spec
from ssl_audio.frontend.base import before
from ssl_audio.layers.norms import BiasNorm, swoosh_l, swoosh_r
from ssl_audio.structs import Tokens


class Subsample(nn.Module):
    """Three convolutions and a ConvNeXt layer (Zipformer, Yao et al. 2024, arXiv:2310.11230).

    T frames become (T - 7) // 2 tokens.

    Attributes:
      width: D.
      channels: of the convolutions.
    """

    width: int
    channels: tuple[int, int, int] = (8, 32, 128)

    takes_count: ClassVar[bool] = True

    @nn.compact
    def __call__(self, spec: Spec, count: Int[Array, "B"] | None = None) -> Tokens:
        """Return tokens on a grid of one row; `count`: frames of each clip before its padding."""
        grid = self.grid(*spec.shape[1:])
        x = spec[..., None]
        layers = zip(self.channels, ((1, 1), (2, 2), (1, 2)), ((0, 1), (0, 0), (0, 0)), strict=True)
        for i, (channels, stride, pad) in enumerate(layers):
            padding = tuple((n, n) for n in pad)
            x = swoosh_r(nn.Conv(channels, (3, 3), stride, padding=padding, name=f"conv_{i}")(x))
        valid = None
        if count is not None:  # attention to nothing is not a number
            valid = before(jnp.maximum((count - 7) // 2, 1), x.shape[1])
            x = jnp.where(valid[..., None, None], x, 0)
        x = x + self._next(x)
        x = jnp.swapaxes(x, 2, 3).reshape(*x.shape[:2], -1)
        x = BiasNorm(name="norm")(nn.Dense(self.width, name="out")(x))
        index = jnp.broadcast_to(jnp.arange(grid[1], dtype=jnp.int32)[None], x.shape[:2])
        return Tokens(x=x, index=index, grid=grid, valid=valid)

    def _next(self, x: Float[Array, "B T F C"]) -> Float[Array, "B T F C"]:
        count = x.shape[-1]
        y = nn.Conv(
            count, (7, 7), padding=((3, 3),) * 2, feature_group_count=count, name="depthwise"
        )(x)
        y = swoosh_l(nn.Dense(3 * count, name="wide")(y))
        return nn.Dense(count, name="narrow")(y)

    @property
    def stride(self) -> tuple[int, int]:
        """Return (1, frames between tokens)."""
        return 1, 2

    @property
    def patch(self) -> tuple[int, int]:
        """Return (1, frames that a token takes at least)."""
        return 1, 9

    @nn.nowrap
    def grid(self, frames: int, bins: int) -> tuple[int, int]:
        """Return (1, tokens) of so many frames.

        Raises:
          ValueError: the spectrogram is smaller than the convolutions.
        """
        if frames < 9 or bins < 7:
            raise ValueError(
                f"subsample: a spectrogram of {bins} bins x {frames} frames; wanted at least 7 x 9."
            )
        return 1, (frames - 7) // 2
