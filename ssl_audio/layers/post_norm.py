"""The block of the original Transformer: norms after the sums, which stay on the residual stream."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.layers.blocks import PreNorm, drop_path, mixed, perceptron


class PostNorm(PreNorm):
    """norm(alpha x + mixer(x)), then norm(alpha x + mlp(x)). One layer.

    Wants `Stack.first_norm`, and no `Stack.final_norm`.

    Attributes:
      alpha: weight of the residual; DeepNorm (Wang et al. 2022, arXiv:2203.00555): (2 depth)^(1/4),
        with (8 depth)^(-1/4) as gain of values, outputs and perceptrons.
      tap: as of `PreNorm`: what the perceptron gives, the target of data2vec 2.0.
    """

    alpha: float = 1.0

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
