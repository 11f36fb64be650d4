"""Attention that knows how far apart two tokens are: a bias by distance, which a token may gate.

Bucketed distances after T5 (Raffel et al. 2020, arXiv:1910.10683); gate after WavLM (Chen et al. 2022,
arXiv:2110.13900, section 3.2) and BEATs (Chen et al. 2023, arXiv:2212.09058).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.layers.attention import BLOCK, attend, known
from ssl_audio.layers.dense import xavier

GATES = ("none", "query", "input")


def bucket(distance: np.ndarray, buckets: int, most: int) -> np.ndarray:
    """Return the bucket of each signed distance (key minus query).

    Half of the buckets are for each sign; half of those hold one distance each, the others grow with
    the logarithm up to `most`, and the last one holds all that is farther.
    """
    side = buckets // 2
    exact = side // 2
    size = np.abs(distance)
    # In float32, as the published models were trained: it decides ties at the edges of buckets.
    ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(math.log(most / exact))
    far = np.minimum(exact + (ratio * np.float32(side - exact)).astype(np.int64), side - 1)
    return np.where(distance > 0, side, 0) + np.where(size < exact, size, far)


class RelativeBias(nn.Module):
    """A learned bias per head and distance bucket: `Stack.pair_bias`.

    Attributes:
      heads: H of the attention.
      buckets: number of buckets for both signs; a multiple of 4.
      distance: from here on all distances share a bucket.
    """

    heads: int
    buckets: int = 320
    distance: int = 800

    def __post_init__(self):
        super().__post_init__()
        if self.buckets < 4 or self.distance <= self.buckets // 4:
            raise ValueError(
                f"RelativeBias: {self.buckets} buckets up to distance {self.distance}; wanted at "
                "least 4, and a distance above a fourth of them."
            )

    @nn.compact
    def __call__(self, count: int) -> Float[Array, "H N N"]:
        """Return the bias of each pair of so many tokens, queries first."""
        init = nn.initializers.normal(0.02)
        table = self.param("table", init, (self.buckets, self.heads), jnp.float32)
        place = np.arange(count)
        which = bucket(place[None] - place[:, None], self.buckets, self.distance)
        return jnp.moveaxis(jnp.take(table, which, axis=0), 2, 0)


class BiasedAttention(nn.Module):
    """Softmax attention with a bias on pairs of tokens, scale head_dim^-0.5.

    Attributes:
      heads: H.
      gate: what each token multiplies its bias by: "none": 1; "query": a function of its query
        (BEATs); "input": of its value before the query's projection (WavLM).
      gain: of a Xavier-normal start of values and outputs (queries and keys have 1); None: all start
        from a normal of deviation 0.02.
      implementation, block: see `attention.attend`.
    """

    heads: int
    gate: str = "none"
    gain: float | None = None
    implementation: str = "auto"
    block: int = BLOCK

    def __post_init__(self):
        super().__post_init__()
        known(self.implementation)
        if self.gate not in GATES:
            raise ValueError(f"gate '{self.gate}': wanted one of {', '.join(GATES)}.")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        index: Int[Array, "B N"] | None = None,
        valid: Bool[Array, "B N"] | None = None,
        *,
        train: bool = False,
        pair_bias: Float[Array, "H N N"],
    ) -> Float[Array, "B N D"]:
        """Mix tokens; those not `valid` are not attended to. `index` is not used."""
        del index, train
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"width {width} is not divisible by {self.heads} attention heads.")
        qkv = nn.Dense(3 * width, dtype=x.dtype, kernel_init=self._start, name="qkv")(x)
        split = (*x.shape[:2], 3, self.heads, width // self.heads)
        q, k, v = jnp.moveaxis(qkv.reshape(split), 2, 0)
        gate = None
        if self.gate != "none":
            gate = self._gate(q if self.gate == "query" else x.reshape(q.shape))
        mixed = attend(
            *(q * q.shape[-1] ** -0.5, k, v),
            bias=pair_bias,
            gate=gate,
            valid=valid,
            implementation=self.implementation,
            block=self.block,
        ).reshape(x.shape)
        return nn.Dense(width, dtype=x.dtype, kernel_init=xavier(self.gain), name="out")(mixed)

    def _gate(self, x: Float[Array, "B N H d"]) -> Float[Array, "B H N"]:
        """Return a (b s - 1) + 2, where a and b are sigmoids and s is learned, per head."""
        two = nn.Dense(8, name="gate")(x.astype(jnp.float32)).reshape(*x.shape[:3], 2, 4)
        a, b = jnp.moveaxis(jax.nn.sigmoid(jnp.sum(two, axis=-1)), 3, 0)
        scale = self.param("gate_scale", nn.initializers.ones, (self.heads,), jnp.float32)
        return jnp.moveaxis(a * (b * scale[None, None] - 1) + 2, 2, 1)

    def _start(self, key, shape, dtype):
        """Start queries, keys and values each as a D x D matrix."""
        one = (shape[0], shape[1] // 3)
        gains = (1.0, 1.0, self.gain) if self.gain is not None else (None,) * 3
        keys = jax.random.split(key, 3)
        parts = [xavier(g)(k, one, dtype) for g, k in zip(gains, keys, strict=True)]
        return jnp.concatenate(parts, axis=1)
