"""Pictures to tokens: patches, or single pixels. And image weights brought to spectrograms.

`sound_kernel` and `sound_positions` are what lets an encoder of sound begin from one of pictures (VIP-ANT).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float
from ssl_audio.structs import Tokens
from ssl_audio.tokens.positions import stretched

CHANNELS = ("mean", "sum")


class ImagePatches(nn.Module):
    """Embed square patches of a picture that do not overlap (ViT, arXiv:2010.11929; CLIP has no bias).

    Attributes:
      width: D.
      patch: pixels of a side.
      bias: whether one is added.
    """

    width: int
    patch: int = 32
    bias: bool = False

    @nn.compact
    def __call__(self, image: Float[Array, "B Y X C"], valid: Any = None) -> Tokens:
        """Return tokens row by row; what is left of a picture at its right and lower edge is dropped."""
        del valid
        batch, height, breadth, channels = image.shape
        rows, columns = height // self.patch, breadth // self.patch
        if not rows or not columns:
            raise ValueError(
                f"pixels: a picture of {height} x {breadth} pixels is smaller than a patch of {self.patch}."
            )
        cut = image[:, : rows * self.patch, : columns * self.patch]
        cut = cut.reshape(batch, rows, self.patch, columns, self.patch, channels)
        flat = cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, -1)
        shape = (self.patch, self.patch, channels, self.width)
        kernel = self.param("kernel", _lecun, shape, jnp.float32)
        x = flat @ kernel.reshape(-1, self.width)
        if self.bias:
            x = (
                x
                + self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)[None, None]
            )
        return _tokens(x, (rows, columns))


class Pixels(nn.Module):
    """A picture's pixels as tokens of as many values as it has channels, for convolutions. No parameters."""

    @nn.compact
    def __call__(self, image: Float[Array, "B Y X C"], valid: Any = None) -> Tokens:
        """Return tokens row by row."""
        del valid
        batch, height, breadth, channels = image.shape
        return _tokens(image.reshape(batch, height * breadth, channels), (height, breadth))


def _lecun(key: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    bound = 1 / np.prod(shape[:-1]) ** 0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _tokens(x: Float[Array, "B N D"], grid: tuple[int, int]) -> Tokens:
    index = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None], x.shape[:2])
    return Tokens(x=x, index=index, grid=grid)


def sound_kernel(
    kernel: Float[Array | np.ndarray, "Y X C D"], patch: tuple[int, int], channels: str = "mean"
) -> Float[Array, "G D"]:
    """Return patch weights of pictures as those of `patchify` on one channel of sound.

    A picture's rows become time and its columns mel bins, as VIP-ANT (arXiv:2112.08995) lays spectrograms.

    Args:
      kernel: of `ImagePatches`.
      patch: mel bins and frames of a patch of sound; another size is reached bilinearly, and scaled so that
        a constant input keeps its response.
      channels: "mean" over the colours; "sum": what a spectrogram repeated as three colours gives.

    Raises:
      ValueError: `channels` is another word.
    """
    if channels not in CHANNELS:
        raise ValueError(f"channels '{channels}': wanted one of {', '.join(CHANNELS)}.")
    height, breadth, colours, width = kernel.shape
    grey = jnp.sum(jnp.asarray(kernel), axis=2) / (colours if channels == "mean" else 1)
    turned = jnp.swapaxes(grey, 0, 1)  # [mel, time, D]
    flat = stretched(turned.reshape(-1, width), (breadth, height), patch)
    return flat * (breadth * height / (patch[0] * patch[1]))


def sound_positions(
    table: Float[Array | np.ndarray, "N D"], image: tuple[int, int], sound: tuple[int, int]
) -> Float[Array, "M D"]:
    """Return a picture's table of positions for a grid of sound: rows become time, then bilinear.

    Args:
      table: of patches only, row by row.
      image: (rows, columns) of the picture.
      sound: (mel rows, time columns).
    """
    turned = jnp.swapaxes(jnp.asarray(table).reshape(*image, -1), 0, 1)
    return stretched(turned.reshape(table.shape), (image[1], image[0]), sound)
