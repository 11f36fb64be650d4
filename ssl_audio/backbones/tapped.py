"""Post-norm block that can show what its MLP adds: the target of data2vec 2.0 and EAT."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.backbones.stack import Mlp, PreNorm, drop_path
from ssl_audio.letters import Array, Float


class Tapped(PreNorm):
    """norm(x + mixer(x)), then norm(x + mlp(x)). One layer.

    Attributes:
      tap: report, as the stream after each block, the MLP's output before it is added. A teacher's
        layers are read so; the output of the whole stack then means nothing.
    """

    tap: bool = False

    def start(self, x: Float[Array, "B N D"]):
        """Return what the layers carry: the residual stream; and the MLP's output, if tapped."""
        return (x, jnp.zeros_like(x)) if self.tap else x

    def stream(self, carry, rate=0.0, key=None) -> Float[Array, "B N D"]:
        """Return what is reported of the carry."""
        del rate, key
        return carry[1] if self.tap else carry

    @nn.compact
    def __call__(self, carry, index, valid, rates, *, dtype, train: bool):
        """Apply the layer to the stream x [B, N, D]; `rates` [1] is its drop-path rate."""
        x = carry[0] if self.tap else carry

        def added(y, name):
            key = self.make_rng("drop_path") if rates is not None else None
            y = drop_path(y, 0.0 if rates is None else rates[0], key)
            return self.norm.copy(name=f"norm_{name}")(x + y)

        y = self.mixer(x.astype(dtype), index, valid, train=train)
        x = added(y.astype(x.dtype), "mixer")
        y = Mlp(self.mlp, name="mlp")(x.astype(dtype)).astype(x.dtype)
        x = nn.with_logical_constraint(added(y, "mlp"), ("batch", "tokens", "width"))
        return (x, y) if self.tap else x
