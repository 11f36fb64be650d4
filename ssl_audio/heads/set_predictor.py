"""From a context to what is predicted elsewhere, set by set: the predictors of joint-embedding methods."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.layers.dense import INIT
from ssl_audio.slots import Backbone, Positions
from ssl_audio.structs import Encoded


class SetPredictor(nn.Module):
    """Predict each set of targets from the context and a learned token at each target of that set.

    Attributes:
      trunk: a stack with neither positions nor special tokens of its own; its width is the predictor's.
      positions: template of an absolute position embedding.
    """

    trunk: Backbone
    positions: Positions

    @nn.compact
    def __call__(
        self,
        encoded: Encoded,
        context: Bool[Array, "B N"],
        targets: Bool[Array, "B S N"],
        values: int,
        *,
        train: bool = False,
    ) -> Float[Array, "B S N G"]:
        """Return predictions, G = `values` each; those that are no targets of their set mean nothing.

        Args:
          encoded: of all tokens, of which those of the context count.
          context: which these are.
          targets: of each set.
          values: G.
          train: as of the trunk.
        """
        tokens, width = encoded.tokens, self.trunk.width
        batch, sets, count = targets.shape
        x = nn.Dense(width, kernel_init=INIT, name="embed")(tokens.x)
        mask = self.param("mask_token", INIT, (width,), jnp.float32)
        x = jnp.where(context[..., None], x, mask[None, None])
        whole = dataclasses.replace(tokens, x=x, valid=None)
        x = x + self.positions(whole, 0)[0]
        every = dataclasses.replace(
            whole,
            x=jnp.repeat(x, sets, axis=0),
            index=jnp.repeat(whole.index, sets, axis=0),
            valid=(context[:, None] | targets).reshape(batch * sets, count),
        )
        out = self.trunk(every, train=train).tokens.x
        out = nn.Dense(values, kernel_init=INIT, name="predict")(out)
        return out.reshape(batch, sets, count, values)
