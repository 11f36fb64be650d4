"""Log-mel to the tokens of HTSAT: stretched in time, folded into a square image, cut into patches.

Chen et al. 2022 (arXiv:2202.00874) section 2; feature fusion: Wu et al. 2023 (arXiv:2211.06687) section 3.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.layers.norms import FrozenBatchNorm, LayerNorm
from ssl_audio.slots import Tokenizer
from ssl_audio.structs import Tokens


class AttentionalFusion(nn.Module):
    """Weigh two feature maps against each other at every point (AFF, arXiv:2009.14082, equation 4).

    Attributes:
      reduction: the inner layers are as many times narrower.
    """

    reduction: int = 4

    @nn.compact
    def __call__(
        self, whole: Float[Array, "B H W D"], parts: Float[Array, "B H W D"]
    ) -> Float[Array, "B H W D"]:
        """Return 2 (w whole + (1 - w) parts)."""
        x = whole + parts
        share = self._weigh("near", x) + self._weigh("far", jnp.mean(x, (1, 2), keepdims=True))
        share = nn.sigmoid(share)
        return 2 * (whole * share + parts * (1 - share))

    def _weigh(self, name: str, x: Array) -> Array:
        width = x.shape[-1]
        hidden = nn.Dense(width // self.reduction, name=f"{name}_down")(x)
        hidden = nn.relu(FrozenBatchNorm(name=f"{name}_down_norm")(hidden))
        return FrozenBatchNorm(name=f"{name}_up_norm")(nn.Dense(width, name=f"{name}_up")(hidden))


class Folded(nn.Module):
    """Normalise each mel bin, stretch to `size` * folds frames, fold, embed patches.

    The frames are cut into folds = size / F pieces, which lie above each other in the image: its row
    is piece * F + mel bin.

    Attributes:
      width: D.
      size: side of the image.
      patch: side of a patch.
      stride: between patches; patches that overlap are centred by zeros around the image.
      fusion: joins the whole clip with three parts of it, for input [B, 4, T, F]; see `__call__`.
    """

    width: int
    size: int = 256
    patch: int = 4
    stride: int = 4
    fusion: Tokenizer = None

    @nn.compact
    def __call__(
        self, spec: Float[Array, "B *C T F"], longer: Bool[Array, " B"] | None = None
    ) -> Tokens:
        """Return the tokens of an image, row by row.

        Args:
          spec: log-mel [B, T, F]; with `fusion` also [B, 4, T, F]: the whole clip shrunk to T frames,
            then parts of its first, middle and last third.
          longer: with four channels, the clips that were longer than T; the others' parts do not count.

        Raises:
          ValueError: a shape that does not fit the image.
        """
        channels = spec if spec.ndim == 4 else spec[:, None]
        if channels.shape[1] > 1 and (
            self.fusion is None or channels.shape[1] != 4 or longer is None
        ):
            raise ValueError(
                f"folded: got {channels.shape[1]} channels; wanted one, or four with fusion and `longer`."
            )
        image = fold(FrozenBatchNorm(name="mel_norm")(channels), self.size)
        x = self._cut("patch", 1)(image[:, 0, :, :, None])
        if longer is not None and channels.shape[1] == 4:
            x = jnp.where(longer[:, None, None, None], self._fuse(image[:, 1:], x), x)
        elif self.fusion is not None and self.is_initializing():
            self._fuse(jnp.repeat(image, 3, axis=1), x)
        batch, rows, columns, _ = x.shape
        x = LayerNorm(1e-5, name="norm")(x.reshape(batch, rows * columns, -1))
        index = jnp.arange(rows * columns, dtype=jnp.int32)[None]
        index = jnp.broadcast_to(index, x.shape[:2])
        return Tokens(x=x, index=index, grid=(rows, columns))

    def _cut(self, name: str, longer: int) -> nn.Conv:
        """Return the convolution that embeds patches `longer` times as long as they are high."""
        around = (self.patch - self.stride) // 2
        return nn.Conv(
            self.width,
            (self.patch, longer * self.patch),
            (self.stride, longer * self.stride),
            padding=((around, around), (around, around)),
            name=name,
        )

    def _fuse(self, parts: Float[Array, "B C H W"], whole: Float[Array, "B h w D"]) -> Array:
        batch, count = parts.shape[:2]
        x = self._cut("part_patch", 3)(parts.reshape(-1, *parts.shape[2:], 1))
        x = jnp.moveaxis(x.reshape(batch, count, *x.shape[1:]), 1, 2)
        x = x.reshape(batch, x.shape[1], -1, x.shape[-1])[:, :, : whole.shape[2]]
        x = jnp.pad(x, ((0, 0), (0, 0), (0, whole.shape[2] - x.shape[2]), (0, 0)))
        assert self.fusion is not None
        return self.fusion(whole, x)


def fold(spec: Float[Array, "B C T F"], size: int) -> Float[Array, "B C H W"]:
    """Stretch to size * folds frames and lay the folds = size / F pieces above each other.

    Raises:
      ValueError: F does not divide `size`, or there are more frames than fit.
    """
    batch, channels, frames, bins = spec.shape
    folds = size // bins
    if size % bins or frames > size * folds:
        raise ValueError(
            f"folded: {frames} frames of {bins} mel bins do not fit an image of {size} x {size}: "
            f"wanted a divisor of {size} for the bins, and at most {size * max(folds, 1)} frames."
        )
    if frames < size * folds:
        spec = jnp.einsum("ut,bctf->bcuf", jnp.asarray(cubic(frames, size * folds)), spec)
    pieces = spec.reshape(batch, channels, folds, size, bins)
    return jnp.swapaxes(pieces, 3, 4).reshape(batch, channels, size, size)


@functools.cache
def cubic(old: int, new: int) -> np.ndarray:
    """Return the matrix [new, old] of a cubic resampling that keeps the end points.

    The kernel is Keys' with a = -0.75, as in PyTorch (`jax.image.resize` has -0.5); taps beyond an end
    repeat it.
    """
    a = -0.75
    place = np.arange(new) * ((old - 1) / max(new - 1, 1))
    whole = np.floor(place).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        x = np.abs(place - whole - tap)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((x - 5) * x + 8) * x * a - 4 * a
        np.add.at(
            matrix,
            (np.arange(new), np.clip(whole + tap, 0, old - 1)),
            np.where(x <= 1, near, far),
        )
    return matrix.astype(np.float32)
