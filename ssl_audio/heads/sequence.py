"""From an encoded sequence back to it, item after item: the decoder of a sequence autoencoder."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.attention import weights
from ssl_audio.layers.lstm import Lstm
from ssl_audio.structs import Encoded


class SequenceDecoder(nn.Module):
    """Long short-term memory that begins in a state made of the encoder's special token.

    Sutskever et al. 2014 (arXiv:1409.3215); attention: Luong et al. 2015 (arXiv:1508.04025), "general"
    scores, over what the encoder says of each item.

    Attributes:
      hidden: H.
      attention: whether it looks at the encoder's tokens; False: the special token is all it knows.
    """

    hidden: int = 128
    attention: bool = True

    @nn.compact
    def __call__(self, encoded: Encoded, x: Float[Array, "B N D"]) -> Float[Array, "B N H"]:
        """Return a vector for each place, of the items before it.

        Args:
          encoded: of the sequence.
          x: the vector of the item before each place.

        Raises:
          ValueError: the encoder has no special token.
        """
        if encoded.special is None:
            raise ValueError("SequenceDecoder: the encoder has no special token: take 'recurrent'.")
        vector = encoded.special.reshape(len(x), -1)
        start = [jnp.tanh(nn.Dense(self.hidden, name=name)(vector)) for name in ("output", "cell")]
        out, _ = Lstm(self.hidden, name="lstm")(x, (start[0], start[1]))
        if not self.attention:
            return out
        memory = encoded.tokens.x
        keys = nn.Dense(self.hidden, use_bias=False, name="score")(memory)
        seen = weights(out[:, :, None], keys[:, :, None], valid=encoded.tokens.valid)[:, 0]
        context = jnp.einsum("bnm,bmd->bnd", seen, memory)
        both = jnp.concatenate([context, out], axis=-1)
        return jnp.tanh(nn.Dense(self.hidden, use_bias=False, name="mix")(both))
