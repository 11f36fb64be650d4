"""The part of GPT-2 (Radford et al. 2019) that other encoders do not have: its perceptron."""

import flax.linen as nn

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.dense import INIT


class TanhMlp(nn.Module):
    """Two-layer perceptron whose GELU is approximated by a tanh.

    Attributes:
      ratio: of the hidden width to D.
    """

    ratio: float = 4.0

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Map every token by itself."""
        hidden = round(self.ratio * x.shape[-1])
        x, width = nn.Dense(hidden, dtype=x.dtype, kernel_init=INIT, name="up")(x), x.shape[-1]
        x = nn.gelu(x, approximate=True)
        return nn.Dense(width, dtype=x.dtype, kernel_init=INIT, name="down")(x)
