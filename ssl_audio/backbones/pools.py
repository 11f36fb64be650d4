"""From tokens to one vector per clip or sentence: the last part of a tower."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.backbones.attention import INIT
from ssl_audio.backbones.heads import mean_tokens
from ssl_audio.letters import Array, Float
from ssl_audio.structs import Encoded


class Mean(nn.Module):
    """The mean of the valid tokens."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        return mean_tokens(encoded)


class First(nn.Module):
    """tanh of a dense layer on the first token: the pooler of BERT and RoBERTa."""

    @nn.compact
    def __call__(self, encoded: Encoded) -> Float[Array, "B D"]:
        """Return one vector each."""
        x = encoded.tokens.x[:, 0]
        return jnp.tanh(nn.Dense(x.shape[-1], kernel_init=INIT, name="dense")(x))


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
