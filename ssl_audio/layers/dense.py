"""Dense layers and how their parameters start."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float

# Timm truncates at two, a hundred standard deviations away: in effect not at all.
INIT = nn.initializers.normal(0.02)

XAVIER = nn.initializers.xavier_uniform()


def xavier(gain: float | None) -> Any:
    """Return a Xavier-normal initialiser times a gain; None: a normal one of deviation 0.02."""
    if gain is None:
        return INIT
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "normal")


def uniform(bound: float):
    """Return an initialiser uniform in ±bound."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """Dense layer with PyTorch's default initial range, ±1/sqrt(fan in), for kernel and bias.

    Attributes:
      out: O.
      bias: whether it has one.
    """

    out: int
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """Map the last axis to `out` values."""
        init = uniform(x.shape[-1] ** -0.5)
        return nn.Dense(
            self.out,
            use_bias=self.bias,
            dtype=x.dtype,
            kernel_init=init,
            bias_init=init,
            name="dense",
        )(x)
