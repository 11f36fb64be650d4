"""From tokens to one vector per clip or sentence: the last part of a tower."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.heads.readout import mean_tokens, over_frequency, special_tokens
from ssl_audio.layers.dense import INIT, XAVIER
from ssl_audio.layers.norms import BatchNorm
from ssl_audio.layers.pooling import greatest
from ssl_audio.slots import Norm, Pool
from ssl_audio.structs import Encoded


class Mean(nn.Module):
    """The mean of the valid tokens."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        return mean_tokens(encoded)


class MeanOfAll(nn.Module):
    """The mean of the special tokens and the valid ones, each counting alike."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each.

        Raises:
          ValueError: the encoder has no special tokens.
        """
        special, tokens = encoded.special, encoded.tokens
        if special is None:
            raise ValueError("pools:MeanOfAll: this encoder has no special tokens; use pools:Mean.")
        total, count = jnp.sum(special, axis=1), tokens.x.shape[1]
        weight = jnp.ones((total.shape[0], count)) if tokens.valid is None else tokens.valid
        weight = weight.astype(tokens.x.dtype)[..., None]
        return (total + jnp.sum(weight * tokens.x, 1)) / (special.shape[1] + jnp.sum(weight, 1))


class BertPooler(nn.Module):
    """tanh of a dense layer on the first token: the pooler of BERT and RoBERTa."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        x = encoded.tokens.x[:, 0]
        return jnp.tanh(nn.Dense(x.shape[-1], kernel_init=INIT, name="dense")(x))


class ClsToken(nn.Module):
    """The first token as it is: BERT's [CLS] without the pooler."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        return encoded.tokens.x[:, 0]


class Special(nn.Module):
    """The mean of the encoder's special tokens: of one, the class token of ViT and CLIP."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        return special_tokens(encoded)


class Last(nn.Module):
    """The last token that is not padding: in a causal encoder, the one that attends to all others."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each; padding lies at the end."""
        tokens = encoded.tokens
        if tokens.valid is None:
            return tokens.x[:, -1]
        last = jnp.maximum(jnp.sum(tokens.valid, axis=1) - 1, 0)
        return jnp.take_along_axis(tokens.x, last[:, None, None], axis=1)[:, 0]


class MaxMean(nn.Module):
    """ReLU of a dense layer on the maximum plus the mean over time of the mean over frequency.

    The embedding of PANNs (Kong et al. 2020, arXiv:1912.10211, Cnn14). Padding counts. The published
    dropout of one half before and after the layer is left out.

    Attributes:
      width: D'.
    """

    width: int

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        x = over_frequency(encoded)
        x = greatest(x) + jnp.mean(x, axis=1)
        return nn.relu(nn.Dense(self.width, kernel_init=XAVIER, name="dense")(x))


class TimeMaxMean(nn.Module):
    """The maximum over time plus the mean over time (BYOL-A, arXiv:2103.06695); padding counts.

    Frequency rows are averaged first.
    """

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        x = over_frequency(encoded)
        return greatest(x) + jnp.mean(x, axis=1)


class MeanAndMax(nn.Module):
    """The mean and the maximum of all tokens, side by side, D' = 2 D (FSD50K, arXiv:2010.00475)."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each; padding counts in the maximum."""
        return jnp.concatenate([mean_tokens(encoded), greatest(encoded.tokens.x)], axis=-1)


class Penultimate(nn.Module):
    """A norm, a dense layer, its ReLU and a norm on another pool's vector (musicnn, arXiv:1711.02520).

    The published dropout of one half around the layer is left out.

    Attributes:
      pool: of this file.
      width: D'.
      norm: template.
    """

    pool: Pool
    width: int
    norm: Norm = BatchNorm()

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        x = self.norm.copy(name="norm0")(self.pool(encoded))
        x = nn.relu(nn.Dense(self.width, kernel_init=XAVIER, name="dense")(x))
        return self.norm.copy(name="norm1")(x)


class DenseGelu(nn.Module):
    """One layer with GELU on another pool's vector (VATT's shared Transformer, arXiv:2104.11178).

    Attributes:
      pool: of this file.
      width: D'.
    """

    pool: Pool
    width: int

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        x = nn.Dense(self.width, kernel_init=XAVIER, name="dense")(self.pool(encoded))
        return nn.gelu(x, approximate=False)


class Columns(nn.Module):
    """The mean of each frequency row over time, side by side: D' = rows * D."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        tokens = encoded.tokens
        x = tokens.x.reshape(tokens.x.shape[0], *tokens.grid, -1)
        return jnp.mean(x, axis=2).reshape(x.shape[0], -1)


class Flat(nn.Module):
    """All tokens side by side, padding as 0: it keeps their order, and wants clips of one length."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        tokens = encoded.tokens
        x = tokens.x if tokens.valid is None else tokens.x * tokens.valid[..., None]
        return x.reshape(x.shape[0], -1)
