"""Log-mel to one token for each mel bin of each frame: for encoders that convolve over the bins."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Spec
from ssl_audio.layers.norms import FrozenBatchNorm
from ssl_audio.slots import Norm
from ssl_audio.structs import Tokens


class Bins(nn.Module):
    """Normalise each mel bin; its value in a frame is a token, D = 1 (PANNs, arXiv:1912.10211).

    Attributes:
      norm: template, over bins; None: values stay as they are. By default PANNs' batch normalisation is
        `FrozenBatchNorm`: with the statistics of a checkpoint, or 0 and 1 behind a frontend that is already
        near zero mean, and never those of a batch.
    """

    norm: Norm = FrozenBatchNorm()

    patch: ClassVar[tuple[int, int]] = (1, 1)
    stride: ClassVar[tuple[int, int]] = (1, 1)

    @nn.compact
    def __call__(self, spec: Spec) -> Tokens:
        """Return tokens with frequency as the slow axis: n = bin * T + frame."""
        batch, frames, bins = spec.shape
        x = spec if self.norm is None else self.norm(spec)
        x = jnp.swapaxes(x, 1, 2).reshape(batch, bins * frames, 1)
        index = jnp.arange(bins * frames, dtype=jnp.int32)[None]
        index = jnp.broadcast_to(index, x.shape[:2])
        return Tokens(x=x, index=index, grid=self.grid(frames, bins))

    @nn.nowrap
    def grid(self, frames: int, bins: int) -> tuple[int, int]:
        """Return (rows, columns): one each for a bin and a frame."""
        return bins, frames
