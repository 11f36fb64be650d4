"""The parts of GPT-2 (Radford et al. 2019) that other encoders do not have; its config subtree is `gpt2`."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.layers.dense import INIT


class Causal(nn.Module):
    """Softmax attention of each token to itself and those before it, scale head_dim^-0.5.

    Padding must lie at the end, where no other token sees it.

    Attributes:
      heads: H.
    """

    heads: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        index: Int[Array, "B N"] | None = None,
        valid: Bool[Array, "B N"] | None = None,
        *,
        train: bool = False,
    ) -> Float[Array, "B N D"]:
        """Mix tokens; only their order in the sequence matters."""
        del index, valid, train
        width, count = x.shape[-1], x.shape[1]
        qkv = nn.Dense(3 * width, dtype=x.dtype, kernel_init=INIT, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, self.heads, -1), 2, 0)
        scores = jnp.einsum("bnhd,bmhd->bhnm", q * q.shape[-1] ** -0.5, k).astype(jnp.float32)
        scores = jnp.where(np.tri(count, dtype=bool)[None, None], scores, -jnp.inf)
        mixed = jnp.einsum("bhnm,bmhd->bnhd", nn.softmax(scores).astype(x.dtype), v)
        out = nn.Dense(width, dtype=x.dtype, kernel_init=INIT, name="out")
        return out(mixed.reshape(x.shape))


class TanhMlp(nn.Module):
    """Two-layer perceptron whose GELU is approximated by a tanh.

    Attributes:
      ratio: of the hidden width to D.
    """

    ratio: float = 4.0

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Map every token by itself."""
        hidden = round(self.ratio * x.shape[-1])
        x, width = nn.Dense(hidden, dtype=x.dtype, kernel_init=INIT, name="up")(x), x.shape[-1]
        x = nn.gelu(x, approximate=True)
        return nn.Dense(width, dtype=x.dtype, kernel_init=INIT, name="down")(x)
