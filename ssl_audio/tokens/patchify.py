"""Spectrograms to tokens: cut into patches or frames, embed with one linear layer.

Called by objectives; `patches` also makes the targets, `unpatch` the pictures of reconstructions.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype

from ssl_audio.arrays import Array, Float, Spec
from ssl_audio.slots import Norm
from ssl_audio.structs import Tokens


class Patchify(nn.Module):
    """Embed the patches of a spectrogram (a strided convolution, written as one product).

    Attributes:
      width: D.
      patch: mel bins and frames of a patch; (16, 16) for patches, (128, 2) for frames.
      stride: bins and frames between patches; smaller than `patch`, they overlap.
      dtype: of the product and its result; None: that of the input and the parameters.
      bias: whether one is added.
      norm: applied to each token after that; None: none.
    """

    width: int
    patch: tuple[int, int] = (16, 16)
    stride: tuple[int, int] = (16, 16)
    dtype: Any = None
    bias: bool = True
    norm: Norm = None

    @nn.compact
    def __call__(self, spec: Spec) -> Tokens:
        """Return tokens with frequency as the slow axis: n = row * columns + column."""
        flat = patches(spec, self.patch, self.stride)
        batch, count, size = flat.shape
        kernel = self.param("kernel", _uniform(size), (size, self.width), jnp.float32)
        flat, kernel = promote_dtype(flat, kernel, dtype=self.dtype)
        x = flat @ kernel
        if self.bias:
            bias = self.param("bias", _uniform(size), (self.width,), jnp.float32)
            x = x + bias.astype(x.dtype)[None, None]
        x = self.norm(x) if self.norm else x
        index = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None], (batch, count))
        return Tokens(x=x, index=index, grid=self.grid(spec.shape[1], spec.shape[2]))

    @nn.nowrap
    def grid(self, frames: int, bins: int) -> tuple[int, int]:
        """Return (rows, columns) of patches in a spectrogram of that size."""
        return grid(frames, bins, self.patch, self.stride)


class Cut(nn.Module):
    """Patches as they are, for what quantises or predicts them; no parameters.

    Attributes:
      patch, stride: see `Patchify`.
    """

    patch: tuple[int, int] = (16, 16)
    stride: tuple[int, int] = (16, 16)

    def __call__(self, spec: Spec) -> Tokens:
        """Return the values of each patch, in the order of `Patchify`."""
        x = patches(spec, self.patch, self.stride)
        index = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32)[None], x.shape[:2])
        return Tokens(x=x, index=index, grid=self.grid(*spec.shape[1:]))

    @nn.nowrap
    def grid(self, frames: int, bins: int) -> tuple[int, int]:
        """Return (rows, columns) of patches in a spectrogram of that size."""
        return grid(frames, bins, self.patch, self.stride)


def grid(
    frames: int, bins: int, patch: tuple[int, int], stride: tuple[int, int]
) -> tuple[int, int]:
    """Return (rows, columns) of whole patches, both sizes given as (mel bins, frames).

    Raises:
      ValueError: not one patch fits.
    """
    if bins < patch[0] or frames < patch[1]:
        raise ValueError(
            f"patchify: a spectrogram of {bins} bins x {frames} frames is smaller than one patch "
            f"of {patch[0]} x {patch[1]}; use longer clips or a smaller patch."
        )
    return (bins - patch[0]) // stride[0] + 1, (frames - patch[1]) // stride[1] + 1


def patches(spec: Spec, patch: tuple[int, int], stride: tuple[int, int]) -> Float[Array, "B N G"]:
    """Cut patches in the order of `Patchify`, each flattened with its mel bins as the slow axis."""
    batch, frames, bins = spec.shape
    rows, columns = grid(frames, bins, patch, stride)
    if patch == stride:
        spec = spec[:, : columns * patch[1], : rows * patch[0]]
        cut = spec.reshape(batch, columns, patch[1], rows, patch[0])
    else:
        cut = spec[:, _windows(columns, patch[1], stride[1])]
        cut = cut[:, :, :, _windows(rows, patch[0], stride[0])]
    return cut.transpose(0, 3, 1, 4, 2).reshape(batch, rows * columns, patch[0] * patch[1])


def unpatch(flat: Float[Array, "B N G"], grid: tuple[int, int], patch: tuple[int, int]) -> Spec:
    """Put patches that do not overlap back together: the inverse of `patches`.

    Raises:
      ValueError: the number or size of the patches does not fit `grid` and `patch`.
    """
    batch, count, size = flat.shape
    if (count, size) != (grid[0] * grid[1], patch[0] * patch[1]):
        raise ValueError(
            f"unpatch: got {count} patches of {size} values, wanted {grid[0]} x {grid[1]} patches "
            f"of {patch[0]} x {patch[1]}."
        )
    cut = flat.reshape(batch, *grid, *patch).transpose(0, 2, 4, 1, 3)
    return cut.reshape(batch, grid[1] * patch[1], grid[0] * patch[0])


def _windows(count: int, size: int, stride: int) -> np.ndarray:
    return np.arange(count)[:, None] * stride + np.arange(size)


def _uniform(fan_in: int):
    """Return PyTorch's default initialiser, for the kernel and the bias alike."""

    def init(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

    return init
