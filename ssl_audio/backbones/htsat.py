"""HTSAT: a Swin Transformer on a folded log-mel image (Chen et al. 2022, arXiv:2202.00874).

Liu et al. 2021 (arXiv:2103.14030): attention within windows, every other block's windows shifted by half
of one, and a merging of 2 x 2 tokens between stages. Its tokens come from `tokens/folded.py`.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float
from ssl_audio.backbones.stack import check_depth
from ssl_audio.layers.attention import attend
from ssl_audio.layers.blocks import Mlp, drop_path
from ssl_audio.layers.dense import INIT
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.structs import Encoded, Tokens

SIZES = {  # embedding width, blocks of each stage, heads of each stage
    "tiny": (96, (2, 2, 6, 2), (4, 8, 16, 32)),
    "base": (128, (2, 2, 12, 2), (4, 8, 16, 32)),
    "large": (256, (2, 2, 12, 2), (4, 8, 16, 32)),
}


class WindowAttention(nn.Module):
    """Attention within windows of side `window`, with a learned bias for every offset.

    Attributes:
      heads: H.
      window: its side.
      shift: windows begin as many tokens later, cyclically; tokens that the cycle alone brings
        together do not see each other.
      bias: of qkv.
    """

    heads: int
    window: int
    shift: int = 0
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B H W D"]) -> Float[Array, "B H W D"]:
        """Mix the tokens of each window."""
        batch, height, wide, width = x.shape
        side, heads = self.window, self.heads
        cut = jnp.roll(x, (-self.shift, -self.shift), (1, 2)) if self.shift else x
        cut = cut.reshape(batch, height // side, side, wide // side, side, width)
        cut = cut.swapaxes(2, 3).reshape(batch, -1, side * side, width)
        qkv = nn.Dense(3 * width, use_bias=self.bias, dtype=x.dtype, kernel_init=INIT, name="qkv")(
            cut
        )
        q, k, v = jnp.moveaxis(qkv.reshape(*cut.shape[:3], 3, heads, -1), 3, 0)
        table = self.param("offsets", INIT, ((2 * side - 1) ** 2, heads), jnp.float32)
        bias = jnp.moveaxis(table[offsets(side)], -1, 0)
        if self.shift:
            near = neighbours(height, wide, side, self.shift)
            bias = bias[None] + np.where(near, 0, -100).astype(np.float32)[:, None]
        # Windows are short: all scores at once.
        mixed = attend(q * q.shape[-1] ** -0.5, k, v, bias=bias, implementation="plain")
        mixed = nn.Dense(width, dtype=x.dtype, kernel_init=INIT, name="out")(
            mixed.reshape(cut.shape)
        )
        mixed = mixed.reshape(batch, height // side, wide // side, side, side, width)
        mixed = mixed.swapaxes(2, 3).reshape(x.shape)
        return jnp.roll(mixed, (self.shift, self.shift), (1, 2)) if self.shift else mixed


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), on a map of tokens."""

    heads: int
    window: int
    shift: int
    mlp: float
    bias: bool
    eps: float

    @nn.compact
    def __call__(self, x: Float[Array, "B H W D"], rate: float = 0.0) -> Float[Array, "B H W D"]:
        """Apply the block; `rate` above 0 drops its branches."""
        mixer = WindowAttention(self.heads, self.window, self.shift, self.bias, name="mixer")
        for name, inner in (("mixer", mixer), ("mlp", Mlp(self.mlp, name="mlp"))):
            y = inner(LayerNorm(self.eps, name=f"norm_{name}")(x))
            key = self.make_rng("drop_path") if rate else None
            x = x + drop_path(y.reshape(y.shape[0], -1, y.shape[-1]), rate, key).reshape(x.shape)
        return x


class Merge(nn.Module):
    """Four neighbouring tokens to one of twice the width."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W D"]) -> Float[Array, "B h w E"]:
        """Halve both sides of the map."""
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        joined = LayerNorm(1e-5, name="norm")(jnp.concatenate(corners, axis=-1))
        return nn.Dense(2 * x.shape[-1], use_bias=False, kernel_init=INIT, name="dense")(joined)


class Htsat(nn.Module):
    """Stages of window attention; the resulting tokens are unfolded to one sequence in time.

    Attributes:
      width: of the tokens that come in; each stage but the first is twice as wide as the one before.
      depths, heads: of each stage.
      window: side; a smaller map is one window.
      mlp: hidden width over width.
      folds: pieces of time that lie above each other in the image.
      bias: of qkv.
      eps: of the blocks' norms.
      drop_path: rate of the last block; it rises linearly from 0.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 8
    mlp: float = 4.0
    folds: int = 4
    bias: bool = True
    eps: float = 1e-5
    drop_path: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_depth("htsat: depths", *self.depths)
        if len(self.depths) != len(self.heads):
            raise ValueError(
                f"htsat: depths {self.depths} and heads {self.heads} differ in number."
            )

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode; `layers` is not kept, for the stages differ in width.

        Raises:
          ValueError: the map of a stage cannot be cut into windows or halved.
        """
        del layers
        x = tokens.x.reshape(tokens.x.shape[0], *tokens.grid, -1)
        rates = iter(np.linspace(0, self.drop_path if train else 0.0, sum(self.depths)))
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            rows, columns = x.shape[1:3]
            window = min(self.window, rows, columns)
            if rows % window or columns % window:
                raise ValueError(
                    f"htsat: stage {stage} has {rows} x {columns} tokens; wanted multiples of {window}."
                )
            for number in range(depth):
                shift = window // 2 if number % 2 and window < min(rows, columns) else 0
                block = Block(
                    *(heads, window, shift, self.mlp, self.bias, self.eps),
                    name=f"stage{stage}_block{number}",
                )
                x = block(x, float(next(rates)))
            if stage + 1 < len(self.depths):
                x = Merge(name=f"stage{stage}_merge")(x)
        batch, rows, columns, width = x.shape
        if rows % self.folds:
            raise ValueError(f"htsat: {rows} rows at the end; wanted a multiple of {self.folds}.")
        x = LayerNorm(1e-5, name="final_norm")(x)
        x = x.reshape(batch, self.folds, -1, columns, width).swapaxes(1, 2)
        rows, columns = x.shape[1], self.folds * columns
        index = jnp.broadcast_to(
            jnp.arange(rows * columns, dtype=jnp.int32)[None], (batch, rows * columns)
        )
        x = x.reshape(batch, rows * columns, width)
        return Encoded(tokens=Tokens(x=x, index=index, grid=(rows, columns)))


@functools.cache
def offsets(side: int) -> np.ndarray:
    """Return the row of the bias table for each pair of tokens of a window, [side², side²]."""
    place = np.indices((side, side)).reshape(2, -1)
    row, column = place[:, :, None] - place[:, None] + side - 1
    return row * (2 * side - 1) + column


@functools.cache
def neighbours(height: int, wide: int, side: int, shift: int) -> np.ndarray:
    """Return which tokens of each shifted window were neighbours before, [windows, side², side²]."""
    spans = (slice(0, -side), slice(-side, -shift), slice(-shift, None))
    region = np.zeros((height, wide), int)
    for number, (rows, columns) in enumerate((r, c) for r in spans for c in spans):
        region[rows, columns] = number
    region = region.reshape(height // side, side, wide // side, side).swapaxes(1, 2)
    region = region.reshape(-1, side * side)
    return region[:, :, None] == region[:, None]
