"""A layer of a language model that attends to a condition (Vaswani et al. 2017, arXiv:1706.03762)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.layers.attention import Cache, attend, empty_cache
from ssl_audio.layers.norms import LayerNorm


class Conditioned(nn.Module):
    """x + causal attention, + attention to a condition, + perceptron with GELU, each of the norm; no biases.

    AudioGen's and MusicGen's layer (Copet et al. 2023, arXiv:2306.05284).

    Attributes:
      width: D.
      heads: H.
      hidden: width inside the perceptron.
      eps: of the norms.
    """

    width: int
    heads: int
    hidden: int
    eps: float = 1e-5

    def __post_init__(self):
        super().__post_init__()
        if self.width % self.heads:
            raise ValueError(
                f"Conditioned: {self.heads} heads do not divide the width {self.width}."
            )

    def setup(self):
        """Declare the layers."""
        self.norm_self, self.norm_cross, self.norm_mlp = (LayerNorm(self.eps) for _ in range(3))
        self.qkv, self.out = self._dense(3 * self.width), self._dense(self.width)
        self.q, self.kv = self._dense(self.width), self._dense(2 * self.width)
        self.cross_out = self._dense(self.width)
        self.up, self.down = self._dense(self.hidden), self._dense(self.width)

    def __call__(
        self,
        x: Float[Array, "B N D"],
        condition: tuple[Array, Array],
        valid: Bool[Array, "B M"] | None,
        memory: Cache | None = None,
    ) -> tuple[Float[Array, "B N D"], Cache | None]:
        """Return the stream after the layer, and the memory of these tokens, too, if one was given.

        Args:
          x: the stream.
          condition: keys and values [B, M, H, W] that `keys` made of it.
          valid: False on padding of the condition; where all is padding, nothing is attended to.
          memory: of the tokens before x.
        """
        q, k, v = self._heads(self.qkv(self.norm_self(x)), 3)
        start = 0
        if memory is not None:
            start, memory = memory.length, memory.write(k, v)
            k, v = memory.k, memory.v
        scale = q.shape[-1] ** -0.5
        y = attend(q * scale, k, v, causal=True, start=start)
        x = x + self.out(y.reshape(x.shape))
        (q,) = self._heads(self.q(self.norm_cross(x)), 1)
        y = attend(q * scale, *condition, valid=valid)
        x = x + self.cross_out(y.reshape(x.shape))
        return x + self.down(nn.gelu(self.up(self.norm_mlp(x)), approximate=False)), memory

    def keys(self, condition: Float[Array, "B M D"]) -> tuple[Array, Array]:
        """Return keys and values [B, M, H, W] of a condition, for all calls."""
        k, v = self._heads(self.kv(condition), 2)
        return k, v

    def start(self, batch: int, length: int) -> Cache:
        """Return the memory of no token, for up to `length`."""
        return empty_cache(batch, length, self.heads, self.width // self.heads, jnp.float32)

    def _dense(self, width: int) -> Any:
        normal = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        return nn.Dense(width, use_bias=False, kernel_init=normal)

    def _heads(self, x: Array, parts: int) -> Any:
        return jnp.moveaxis(x.reshape(*x.shape[:2], parts, self.heads, -1), 2, 0)
