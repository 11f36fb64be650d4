"""Video to tokens: blocks of some frames of a square of pixels, as VATT (arXiv:2104.11178) cuts them."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.structs import Tokens


class VoxelPatches(nn.Module):
    """Embed blocks that do not overlap with one linear layer: a convolution over time and both sides.

    Places of the picture are the rows of the tokens' grid, row by row, and time its columns: so a token's
    number is place * columns + time.

    Attributes:
      width: D.
      patch: frames, and pixels of both sides.
      bias: whether one is added.
    """

    width: int
    patch: tuple[int, int, int] = (4, 16, 16)
    bias: bool = True

    @nn.compact
    def __call__(
        self, video: Float[Array, "B T Y X C"], valid: Bool[Array, "B T"] | None = None
    ) -> Tokens:
        """Return tokens; frames, rows and columns that do not fill a block are dropped.

        Args:
          video: frames.
          valid: which of them there are; a block counts where its first frame does.

        Raises:
          ValueError: there is not one block.
        """
        counts = [n // size for n, size in zip(video.shape[1:4], self.patch, strict=True)]
        if not min(counts):
            shape = " x ".join(map(str, video.shape[1:4]))
            wanted = " x ".join(map(str, self.patch))
            raise ValueError(
                f"voxels: {shape} (frames, height, width) do not fill a block of {wanted}; give longer or "
                "larger video, or smaller blocks."
            )
        (frames, rows, columns), (t, y, x) = counts, self.patch
        batch, channels = video.shape[0], video.shape[-1]
        cut = video[:, : frames * t, : rows * y, : columns * x]
        cut = cut.reshape(batch, frames, t, rows, y, columns, x, channels)
        flat = cut.transpose(0, 3, 5, 1, 2, 4, 6, 7).reshape(batch, rows * columns * frames, -1)
        init = nn.initializers.lecun_normal()
        shape = (*self.patch, channels, self.width)
        kernel = self.param("kernel", init, shape, jnp.float32)
        found = flat @ kernel.reshape(-1, self.width)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
            found = found + bias[None, None]
        index = jnp.arange(found.shape[1], dtype=jnp.int32)
        there = None
        if valid is not None:
            first = valid[:, : frames * t : t]
            there = jnp.tile(first, (1, rows * columns))
        return Tokens(
            x=found,
            index=jnp.broadcast_to(index[None], found.shape[:2]),
            grid=(rows * columns, frames),
            valid=there,
        )
