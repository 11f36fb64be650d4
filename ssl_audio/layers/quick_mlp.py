"""The part of CLIP (Radford et al. 2021, arXiv:2103.00020) that others do not have: its perceptron."""

import flax.linen as nn

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.dense import INIT


class QuickMlp(nn.Module):
    """Two-layer perceptron with x sigmoid(1.702 x) for a GELU.

    Attributes:
      ratio: of the hidden width to D.
    """

    ratio: float = 4.0

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        """Map every token by itself."""
        hidden = round(self.ratio * x.shape[-1])
        x, width = nn.Dense(hidden, dtype=x.dtype, kernel_init=INIT, name="up")(x), x.shape[-1]
        x = x * nn.sigmoid(1.702 * x)
        return nn.Dense(width, dtype=x.dtype, kernel_init=INIT, name="down")(x)
