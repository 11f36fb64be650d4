"""Residual blocks whose attention stays within windows of the grid (after Swin Transformer V2).

They take the whole grid in order: the decoder of Audio-MAE is made of them (arXiv:2207.06405).
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.layers.attention import attend
from ssl_audio.layers.blocks import Mlp, drop_path
from ssl_audio.layers.dense import INIT
from ssl_audio.layers.norms import LayerNorm
from ssl_audio.slots import Layer, Norm

ACROSS = -100.0  # added to the score of two tokens that only the shift brought into one window


class WindowAttention(nn.Module):
    """Attention among the tokens of a window; scores are cosines over a learned temperature.

    A small network turns the log-spaced distance of two tokens into a bias per head
    (Liu et al. 2022, arXiv:2111.09883, sections 3.2 and 3.3). Columns are padded to whole windows.

    Attributes:
      heads: H.
      rows: frequency rows of the grid; its columns follow from the number of tokens.
      window: rows and columns of a window; a smaller grid is one window.
      shift: columns by which windows begin later; what they then hold of both ends of the clip
        does not mix.
      hidden: width of the network of distances.
    """

    heads: int
    rows: int
    window: tuple[int, int] = (4, 4)
    shift: int = 0
    hidden: int = 384

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        index: Int[Array, "B N"] | None = None,
        valid: Bool[Array, "B N"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B N D"]:
        """Mix tokens; those not `valid` are not attended to. `index` is not used.

        Raises:
          ValueError: the tokens are not a grid of that many rows, or windows do not fit the rows.
        """
        del index, train
        batch, count, width = x.shape
        high, wide = min(self.window[0], self.rows), self.window[1]
        if count % self.rows or self.rows % high or width % self.heads:
            raise ValueError(
                f"WindowAttention: {count} tokens of width {width} with {self.rows} rows, windows "
                f"of {high} rows and {self.heads} heads: each must divide what it parts."
            )
        columns = count // self.rows
        wide = min(wide, columns)
        shift = self.shift if wide < columns else 0
        padded = -(-columns // wide) * wide
        region = np.arange(padded) // wide
        if shift:  # the last window holds the clip's end and, after it, its beginning
            region[padded - shift :] += 1
        valid = jnp.ones((batch, count), bool) if valid is None else valid

        def windows(a):
            """Cut [B, N, …] in windows: [B, windows, tokens, …]."""
            a = a.reshape(batch, self.rows, columns, *a.shape[2:])
            a = jnp.pad(a, ((0, 0), (0, 0), (0, padded - columns), *((0, 0),) * (a.ndim - 3)))
            a = jnp.roll(a, -shift, axis=2)
            a = a.reshape(batch, self.rows // high, high, padded // wide, wide, *a.shape[3:])
            return jnp.moveaxis(a, 3, 2).reshape(batch, -1, high * wide, *a.shape[5:])

        parts = nn.Dense(3 * width, dtype=x.dtype, kernel_init=INIT, name="qkv")(x)
        parts = windows(parts)
        q, k, v = jnp.moveaxis(parts.reshape(*parts.shape[:3], 3, self.heads, -1), 3, 0)
        heat = self.param("temperature", nn.initializers.ones, (self.heads,), jnp.float32)
        q = _unit(q) / jnp.maximum(heat, 0.01).reshape(1, 1, 1, -1, 1)
        regions = np.broadcast_to(region, (self.rows // high, high, padded))
        regions = regions.reshape(-1, high, padded // wide, wide).transpose(0, 2, 1, 3)
        regions = regions.reshape(-1, high * wide)
        across = np.where(regions[:, :, None] == regions[:, None], 0, ACROSS).astype(np.float32)
        mixed = attend(
            *(q.astype(x.dtype), _unit(k).astype(x.dtype), v),
            bias=self._bias(high, wide)[None] + across[:, None],
            valid=windows(valid),  # a window may hold nothing valid
            implementation="plain",  # windows are short
        )
        mixed = mixed.reshape(batch, self.rows // high, padded // wide, high, wide, width)
        mixed = jnp.moveaxis(mixed, 2, 3).reshape(batch, self.rows, padded, width)
        mixed = jnp.roll(mixed, shift, axis=2)[:, :, :columns].reshape(x.shape)
        return nn.Dense(width, dtype=x.dtype, kernel_init=INIT, name="out")(mixed)

    def _bias(self, high: int, wide: int) -> Float[Array, "H N N"]:
        """Return what the distances within a window add to the scores."""
        row, column = np.indices((high, wide)).reshape(2, -1)
        place = np.stack([column, row], axis=-1).astype(np.float32)  # time first
        distance = place[:, None] - place[None]
        distance = np.sign(distance) * np.log1p(np.abs(distance))
        hidden = nn.relu(nn.Dense(self.hidden, kernel_init=INIT, name="distance_up")(distance))
        bias = nn.Dense(self.heads, kernel_init=INIT, name="distance_down")(hidden)
        return jnp.moveaxis(bias.astype(jnp.float32), -1, 0)


def _unit(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Return vectors of length 1, in float32; those of length 0 as they are."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(square, 1e-12))


class ShiftedPair(nn.Module):
    """Two layers of x + norm(attention(x)), then x + norm(mlp(x)); the second's windows are shifted.

    Attributes:
      mixer: template of the attention; it gets the shift.
      norm: template of the norms, which come after each branch.
      mlp: hidden width over width.
      shift: columns, of the second layer.
    """

    mixer: Layer
    norm: Norm = LayerNorm()
    mlp: float = 4.0
    shift: int = 2

    layers = 2

    def start(self, x: Float[Array, "B N D"]):
        """Return what the layers carry: the residual stream."""
        return x

    def stream(self, carry, rate=0.0, key=None) -> Float[Array, "B N D"]:
        """Return the residual stream held in the carry."""
        del rate, key
        return carry

    def rates(self, rate: float, depth: int):
        """Return the drop-path rates of all layers, [L/2, 2]."""
        return jnp.linspace(0, rate, depth).reshape(-1, 2)

    @nn.compact
    def __call__(self, x, index, valid, rates, *, dtype, train: bool):
        """Apply both layers to the stream x [B, N, D]; `rates` [2] are their drop-path rates."""

        def branch(x, inner, name, rate):
            y = self.norm.copy(name=f"norm_{name}")(inner(x.astype(dtype)))
            key = self.make_rng("drop_path") if rates is not None else None
            return x + drop_path(y.astype(x.dtype), rate, key)

        for number, (name, shift) in enumerate((("still", 0), ("shifted", self.shift))):
            rate = 0.0 if rates is None else rates[number]
            mixer = self.mixer.copy(name=f"mixer_{name}", shift=shift)
            x = branch(x, lambda y, m=mixer: m(y, index, valid, train=train), f"mixer_{name}", rate)
            x = branch(x, Mlp(self.mlp, name=f"mlp_{name}"), f"mlp_{name}", rate)
        return nn.with_logical_constraint(x, ("batch", "tokens", "width"))
