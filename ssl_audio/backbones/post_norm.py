"""The block of the original Transformer: norms after the sums, which stay on the residual stream."""

import flax.linen as nn

from ssl_audio.backbones.stack import PreNorm, drop_path, mixed, perceptron


class PostNorm(PreNorm):
    """norm(alpha x + mixer(x)), then norm(alpha x + mlp(x)). One layer.

    Wants `Stack.first_norm`, and no `Stack.final_norm`.

    Attributes:
      alpha: weight of the residual; DeepNorm (Wang et al. 2022, arXiv:2203.00555): (2 depth)^(1/4),
        with (8 depth)^(-1/4) as gain of values, outputs and perceptrons.
    """

    alpha: float = 1.0

    @nn.compact
    def __call__(self, x, index, valid, rates, *, dtype, train: bool, pair_bias=None):
        """Apply the layer to the stream x [B, N, D]; `rates` [1] is its drop-path rate."""

        def added(y, name):
            key = self.make_rng("drop_path") if rates is not None else None
            y = drop_path(y.astype(x.dtype), 0.0 if rates is None else rates[0], key)
            return self.norm.copy(name=f"norm_{name}")(self.alpha * x + y)

        x = added(mixed(self.mixer, x.astype(dtype), index, valid, train, pair_bias), "mixer")
        if self.mlp:
            x = added(perceptron(self.mlp)(x.astype(dtype)), "mlp")
        return nn.with_logical_constraint(x, ("batch", "tokens", "width"))
