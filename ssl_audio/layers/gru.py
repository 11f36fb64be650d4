"""Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), with the gates of PyTorch and cuDNN."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.dense import uniform


class Gru(nn.Module):
    """A recurrent layer over tokens, from the first on.

    The reset gate acts on the product with the state, its bias included, and not on the state.

    Attributes:
      hidden: H.
      reverse: from the last token on.
    """

    hidden: int
    reverse: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N H"]:
        """Return the state after each token; it begins at zero."""
        size = self.hidden
        init = uniform(size**-0.5)
        gates = nn.Dense(3 * size, kernel_init=init, bias_init=init, name="input")(x)
        kernel = self.param("kernel", init, (size, 3 * size), jnp.float32)
        bias = self.param("bias", init, (3 * size,), jnp.float32)

        def step(state, given):
            own = state @ kernel + bias[None]
            reset, keep = jnp.split(nn.sigmoid(given[:, : 2 * size] + own[:, : 2 * size]), 2, -1)
            new = jnp.tanh(given[:, 2 * size :] + reset * own[:, 2 * size :])
            state = (1 - keep) * new + keep * state
            return state, state

        first = jnp.zeros((x.shape[0], size), gates.dtype)
        in_turn = jnp.swapaxes(gates, 0, 1)
        _, states = jax.lax.scan(step, first, in_turn, reverse=self.reverse)
        return jnp.swapaxes(states, 0, 1)
