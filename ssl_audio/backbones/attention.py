"""Multi-head self-attention: one of the two mixers a residual block can hold (the other: mamba.py)."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.letters import Array, Bool, Float, Int

# Timm truncates at two, a hundred standard deviations away: in effect not at all.
INIT = nn.initializers.normal(0.02)


class Attention(nn.Module):
    """Softmax attention over all tokens, as in ViT: fused qkv, scale head_dim^-0.5.

    Attributes:
      heads: H.
      bias: of qkv.
    """

    heads: int
    bias: bool = True

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        index: Int[Array, "B N"] | None = None,
        valid: Bool[Array, "B N"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B N D"]:
        """Mix tokens; those not `valid` are not attended to. `index` is not used."""
        del index, train
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"width {width} is not divisible by {self.heads} attention heads.")
        qkv = nn.Dense(3 * width, use_bias=self.bias, dtype=x.dtype, kernel_init=INIT, name="qkv")(
            x
        )
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, self.heads, -1), 2, 0)
        scores = jnp.einsum("bnhd,bmhd->bhnm", q * q.shape[-1] ** -0.5, k)
        scores = scores.astype(jnp.float32)
        if valid is not None:
            scores = jnp.where(valid[:, None, None, :], scores, -jnp.inf)
        weights = nn.softmax(scores).astype(x.dtype)
        mixed = jnp.einsum("bhnm,bmhd->bnhd", weights, v).reshape(x.shape)
        return nn.Dense(width, dtype=x.dtype, kernel_init=INIT, name="out")(mixed)
