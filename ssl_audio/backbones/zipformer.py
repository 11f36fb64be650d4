"""Zipformer: stacks of layers at several frame rates (Yao et al. 2024, arXiv:2310.11230); SPEAR's encoder.

A layer computes its attention weights once and uses them three times. What only regularises training
(balancers, whitening, scheduled bypasses) is left out: it is not part of the function that is learned.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.backbones.stack import check_depth, over_layers
from ssl_audio.layers import attention
from ssl_audio.layers.norms import BiasNorm, swoosh_l, swoosh_r
from ssl_audio.structs import Encoded, Tokens


class Zipformer(nn.Module):
    """A backbone whose middle stacks see fewer, wider frames.

    Each stack takes the width it has: channels are cut off or zeros put on. The result takes each
    channel from the last stack that has it.

    Attributes:
      widths, depths, hidden, kernels, heads: of each stack: D, layers, width of the second of three
        perceptrons, taps of the convolutions, attention heads.
      rates: frames of the input that become one in each stack.
      query, value, place: sizes per head of queries and keys, values, and positional queries.
      positions: values that encode a distance.
      output_rate: frames that become one after the last stack.
      masked: frames are averaged as if a clip ended where its padding begins. False: padding fills up
        the last run, as where the published code is given a padded batch.
      remat: see `Stack`.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    hidden: tuple[int, ...]
    kernels: tuple[int, ...]
    heads: tuple[int, ...]
    rates: tuple[int, ...]
    query: int = 32
    value: int = 12
    place: int = 4
    positions: int = 48
    output_rate: int = 1
    masked: bool = False
    remat: str = "dots"

    def __post_init__(self):
        super().__post_init__()
        check_depth("zipformer: depths", *self.depths)
        names = ("widths", "depths", "hidden", "kernels", "heads", "rates")
        counts = {name: len(getattr(self, name)) for name in names}
        if len(set(counts.values())) != 1:
            raise ValueError(f"Zipformer: wanted as many of each per stack, got {counts}.")
        if any(size % 2 == 0 for size in self.kernels):
            raise ValueError(f"Zipformer: kernels {self.kernels}; wanted odd numbers.")

    @property
    def width(self) -> int:
        """Return the width of the result."""
        return max(self.widths)

    @property
    def hides_padding(self) -> bool:
        """Whether tokens that are not valid change no others, however many there are."""
        return self.masked

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode tokens; `layers` also returns every layer's, at the input's rate, zeros put on."""
        x, valid = tokens.x.astype(jnp.float32), tokens.valid
        found, outputs = [], []
        for i, (width, depth, rate) in enumerate(
            zip(self.widths, self.depths, self.rates, strict=True)
        ):
            given = x = _resized(x, width)
            mask = None if valid is None else valid[:, ::rate]
            if rate > 1:
                x = Downsample(rate, name=f"down_{i}")(self._ended(x, valid))
            bias = _distances(x.shape[1], self.positions)
            layer = Layer(
                hidden=self.hidden[i],
                kernel=self.kernels[i],
                heads=self.heads[i],
                query=self.query,
                value=self.value,
                place=self.place,
                name=f"stack_{i}",
            )

            def body(layer, x, _, mask=mask, bias=bias):
                x = layer(x, mask, bias)
                return x, x

            x, each = over_layers(body, depth, self.remat)(layer, x, None)
            if rate > 1:
                x = jnp.repeat(x, rate, axis=1)[:, : given.shape[1]]
                each = jnp.repeat(each, rate, axis=2)[:, :, : given.shape[1]]
                x = Bypass(name=f"combine_{i}")(given, x)
            found.append(x)
            outputs.append(_resized(each, self.width))
        x = self._combined(found)
        if self.output_rate > 1:
            x = Downsample(self.output_rate, name="down_output")(self._ended(x, valid))
            valid = None if valid is None else valid[:, :: self.output_rate]
            columns = x.shape[1]
            index = jnp.broadcast_to(jnp.arange(columns, dtype=jnp.int32)[None], x.shape[:2])
            tokens = Tokens(x, index, (1, columns), valid)
        stacked = jnp.concatenate(outputs, axis=0) if layers else None
        return Encoded(tokens=dataclasses.replace(tokens, x=x), layers=stacked)

    def _ended(self, x: Array, valid: Array | None) -> Array:
        """Return frames with the last valid one in the place of all after it."""
        if valid is None or not self.masked:
            return x
        last = jnp.maximum(jnp.sum(valid, axis=1, keepdims=True) - 1, 0)
        place = jnp.minimum(jnp.arange(x.shape[1])[None], last)
        return jnp.take_along_axis(x, place[..., None], axis=1)

    def _combined(self, found: list[Array]) -> Array:
        parts, have = [], 0
        for x in reversed(found):
            if x.shape[-1] > have:
                parts.append(x[..., have:])
                have = x.shape[-1]
        return jnp.concatenate(parts, axis=-1)


class Layer(nn.Module):
    """One layer: three perceptrons, three uses of the attention weights, two convolutions."""

    hidden: int
    kernel: int
    heads: int
    query: int
    value: int
    place: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        valid: Bool[Array, "B N"] | None,
        distances: Float[Array, "M P"],
    ) -> Float[Array, "B N D"]:
        """Return the stream after the layer."""
        given = x
        weights = self._weights(x, valid, distances)
        x = x + self._perceptron(x, self.hidden * 3 // 4, "mlp_0")
        x = x + self._gated(x, weights[:, 0])
        x = x + self._attend(x, weights, "attend_0")
        x = x + self._convolve(x, valid, "conv_0")
        x = x + self._perceptron(x, self.hidden, "mlp_1")
        x = Bypass(name="bypass_middle")(given, x)
        x = x + self._attend(x, weights, "attend_1")
        x = x + self._convolve(x, valid, "conv_1")
        x = x + self._perceptron(x, self.hidden * 5 // 4, "mlp_2")
        x = BiasNorm(name="norm")(x)
        return Bypass(name="bypass")(given, x)

    def _weights(self, x, valid, distances) -> Float[Array, "B H N N"]:
        heads, count = self.heads, x.shape[1]
        sizes = np.cumsum([heads * self.query] * 2 + [heads * self.place])
        both = nn.Dense(int(sizes[-1]), name="weights")(x)
        q, k, p = (
            part.reshape(*x.shape[:2], heads, -1) for part in jnp.split(both, sizes[:2], axis=-1)
        )
        places = nn.Dense(heads * self.place, use_bias=False, name="places")(distances)
        places = places.reshape(-1, heads, self.place)
        by_distance = jnp.einsum("bnhd,mhd->bhnm", p, places)
        # Row n wants distances -n … N - 1 - n, which lie at N - 1 - n onwards.
        which = np.arange(count)[None] - np.arange(count)[:, None] + count - 1
        which = jnp.broadcast_to(
            jnp.asarray(which)[None, None], (*x.shape[:1], heads, count, count)
        )
        bias = jnp.take_along_axis(by_distance, which, axis=3)
        return attention.weights(q, k, bias=bias, valid=valid)

    def _attend(self, x, weights, name):
        v = nn.Dense(self.heads * self.value, name=f"{name}_in")(x)
        v = v.reshape(*x.shape[:2], self.heads, self.value)
        mixed = jnp.einsum("bhnm,bmhd->bnhd", weights, v).reshape(*x.shape[:2], -1)
        return nn.Dense(x.shape[-1], name=f"{name}_out")(mixed)

    def _gated(self, x, weights):
        width = 3 * x.shape[-1] // 4
        s, y, z = jnp.split(nn.Dense(3 * width, name="gated_in")(x), 3, axis=-1)
        mixed = jnp.einsum("bnm,bmd->bnd", weights, y * jnp.tanh(s))
        return nn.Dense(x.shape[-1], name="gated_out")(mixed * z)

    def _perceptron(self, x, hidden, name):
        y = swoosh_l(nn.Dense(hidden, name=f"{name}_in")(x))
        return nn.Dense(x.shape[-1], name=f"{name}_out")(y)

    def _convolve(self, x, valid, name):
        width, side = x.shape[-1], self.kernel // 2
        y, gate = jnp.split(nn.Dense(2 * width, name=f"{name}_in")(x), 2, axis=-1)
        y = y * jax.nn.sigmoid(gate)
        if valid is not None:
            y = jnp.where(valid[..., None], y, 0)
        y = nn.Conv(
            width,
            (self.kernel,),
            padding=((side, side),),
            feature_group_count=width,
            name=f"{name}_taps",
        )(y)
        return nn.Dense(width, name=f"{name}_out")(swoosh_r(y))


class Bypass(nn.Module):
    """Go part of the way from what came in to what came out, by a learned share per channel."""

    @nn.compact
    def __call__(self, old: Float[Array, "B N D"], new: Float[Array, "B N D"]) -> Array:
        """Return old + (new - old) share."""
        half = nn.initializers.constant(0.5)
        share = self.param("share", half, new.shape[-1:], jnp.float32)
        return old + (new - old) * share[None, None]


class Downsample(nn.Module):
    """Average each run of frames with learned weights; the last frame fills the last run up."""

    rate: int

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """Return ceil(N / rate) frames."""
        weights = nn.softmax(self.param("bias", nn.initializers.zeros, (self.rate,), jnp.float32))
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % self.rate), (0, 0)), mode="edge")
        runs = x.reshape(x.shape[0], -1, self.rate, x.shape[-1])
        return jnp.einsum("bnrd,r->bnd", runs, weights)


def _resized(x: Array, width: int) -> Array:
    pad = [(0, 0)] * (x.ndim - 1) + [(0, max(0, width - x.shape[-1]))]
    return jnp.pad(x[..., :width], pad)


@functools.lru_cache(64)
def _encoded_distances(count: int, size: int) -> np.ndarray:
    """Return the code of each distance from 1 - count to count - 1: [2 count - 1, size]."""
    distance = np.arange(1 - count, count, dtype=np.float32)[:, None]
    scale = math.sqrt(size)
    near = np.sign(distance) * scale * (np.log(np.abs(distance) + scale) - math.log(scale))
    angle = np.arctan(2 * math.pi * near / size) * np.arange(1, 1 + size // 2)
    code = np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(len(distance), -1)
    code[:, -1] = 1.0
    return code.astype(np.float32)


def _distances(count: int, size: int) -> Array:
    return jnp.asarray(_encoded_distances(count, size))
