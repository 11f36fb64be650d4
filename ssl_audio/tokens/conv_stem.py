"""Log-mel frames to tokens at half the rate, by two convolutions over time (Whisper)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Spec
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
