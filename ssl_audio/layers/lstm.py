"""Long short-term memory (Hochreiter & Schmidhuber 1997), with the gates of PyTorch and cuDNN."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.dense import uniform

State = tuple[Float[Array, "B H"], Float[Array, "B H"]]


class Lstm(nn.Module):
    """A recurrent layer over tokens, from the first on; its gates stand in the order i, f, g, o.

    Attributes:
      hidden: H.
    """

    hidden: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], state: State | None = None
    ) -> tuple[Float[Array, "B N H"], State]:
        """Return the output after each token, and the state after the last one.

        Args:
          x: tokens.
          state: output and cell after the tokens before; None: zeros.
        """
        size = self.hidden
        init = uniform(size**-0.5)
        gates = nn.Dense(4 * size, kernel_init=init, bias_init=init, name="input")(x)
        kernel = self.param("kernel", init, (size, 4 * size), jnp.float32)
        bias = self.param("bias", init, (4 * size,), jnp.float32)

        def step(state, given):
            out, cell = state
            i, f, g, o = jnp.split(given + (out @ kernel + bias[None]), 4, -1)
            cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
            out = nn.sigmoid(o) * jnp.tanh(cell)
            return (out, cell), out

        if state is None:
            zero = jnp.zeros((x.shape[0], size), gates.dtype)
            state = zero, zero
        state, outputs = jax.lax.scan(step, state, jnp.swapaxes(gates, 0, 1))
        return jnp.swapaxes(outputs, 0, 1), state
