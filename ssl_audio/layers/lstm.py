"""Long short-term memory (Hochreiter & Schmidhuber 1997), with the gates of PyTorch and cuDNN."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.layers.dense import uniform

State = tuple[Float[Array, "B H"], Float[Array, "B H"]]


class Lstm(nn.Module):
    """A recurrent layer over tokens, from the first on; its gates stand in the order i, f, g, o.

    Attributes:
      hidden: H.
      reverse: from the last token on.
    """

    hidden: int
    reverse: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        state: State | None = None,
        valid: Bool[Array, "B N"] | None = None,
    ) -> tuple[Float[Array, "B N H"], State]:
        """Return the output after each token, and the state after the last one.

        Args:
          x: tokens.
          state: output and cell after the tokens before; None: zeros.
          valid: where it is False the state stays as it is; None: all are.
        """
        size = self.hidden
        init = uniform(size**-0.5)
        gates = nn.Dense(4 * size, kernel_init=init, bias_init=init, name="input")(x)
        kernel = self.param("kernel", init, (size, 4 * size), jnp.float32)
        bias = self.param("bias", init, (4 * size,), jnp.float32)

        def after(state, given):
            out, cell = state
            i, f, g, o = jnp.split(given + (out @ kernel + bias[None]), 4, -1)
            cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
            return nn.sigmoid(o) * jnp.tanh(cell), cell

        def step(state, given):
            state = after(state, given)
            return state, state[0]

        def step_where(state, given):
            there = given[1][:, None]
            out, cell = after(state, given[0])
            state = jnp.where(there, out, state[0]), jnp.where(there, cell, state[1])
            return state, state[0]

        zero = jnp.zeros((x.shape[0], size), gates.dtype)
        first: State = (zero, zero) if state is None else state
        in_turn = jnp.swapaxes(gates, 0, 1)
        if valid is None:
            last, outputs = jax.lax.scan(step, first, in_turn, reverse=self.reverse)
        else:
            given = in_turn, jnp.swapaxes(valid, 0, 1)
            last, outputs = jax.lax.scan(step_where, first, given, reverse=self.reverse)
        return jnp.swapaxes(outputs, 0, 1), last
