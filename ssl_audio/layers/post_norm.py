"""The block of the original Transformer: norms after the sums, which stay on the residual stream."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.blocks import PreNorm, drop_path, mixed, perceptron


class PostNorm(PreNorm):
    """norm(alpha x + mixer(x)), then norm(alpha x + mlp(x)). One layer.

    Wants `Stack.first_norm`, and no `Stack.final_norm`.

    Attributes:
      alpha: weight of the residual; DeepNorm (Wang et al. 2022, arXiv:2203.00555): (2 depth)^(1/4),
        with (8 depth)^(-1/4) as gain of values, outputs and perceptrons.
      tap: report, as the stream after each block, what the perceptron gives before it is added, which is
        the target of data2vec 2.0. It is for reading a teacher's layers: the stack's own output then
        means nothing.
    """

    alpha: float = 1.0
    tap: bool = False

    def start(self, x: Float[Array, "B N D"]):
        """Return what the layers carry: the residual stream; and the perceptron's output, if tapped."""
        return (x, jnp.zeros_like(x)) if self.tap else x

    def stream(self, carry, rate=0.0, key=None) -> Float[Array, "B N D"]:
        """Return what is reported of the carry."""
        del rate, key
        return carry[1] if self.tap else carry

    @nn.compact
    def __call__(self, carry, index, valid, rates, *, dtype, train: bool, pair_bias=None):
        """Apply the layer to the stream x [B, N, D]; `rates` [1] is its drop-path rate."""
        x = carry[0] if self.tap else carry

        def added(y, name):
            key = self.make_rng("drop_path") if rates is not None else None
            y = drop_path(y.astype(x.dtype), 0.0 if rates is None else rates[0], key)
            return self.norm.copy(name=f"norm_{name}")(self.alpha * x + y)

        x = added(mixed(self.mixer, x.astype(dtype), index, valid, train, pair_bias), "mixer")
        y = jnp.zeros_like(x)
        if self.mlp:
            y = perceptron(self.mlp)(x.astype(dtype))
            x = added(y, "mlp")
        x = nn.with_logical_constraint(x, ("batch", "tokens", "width"))
        return (x, y.astype(x.dtype)) if self.tap else x
