"""Convolutions over mel bins and frames, then a recurrent layer over frames; behind `tokens/bins.py`."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.backbones.cnn import as_image, as_tokens
from ssl_audio.layers.gru import Gru
from ssl_audio.layers.norms import BatchNorm
from ssl_audio.layers.pooling import max_pooled
from ssl_audio.slots import Norm
from ssl_audio.structs import Encoded, Tokens


class Crnn(nn.Module):
    """Convolutions whose maxima are over frequency only, and a gated recurrent unit in each direction.

    Attributes:
      channels: of each convolution.
      pools: mel bins of which each convolution's maximum is taken.
      kernel: side of the convolutions.
      hidden: width of each direction.
      dropout: share of the values that training sets to 0 after each convolution.
      norm: template.
    """

    channels: tuple[int, ...] = (128, 128, 128)
    pools: tuple[int, ...] = (5, 4, 2)
    kernel: int = 5
    hidden: int = 64
    dropout: float = 0.0
    norm: Norm = BatchNorm()

    def __post_init__(self):
        super().__post_init__()
        if len(self.channels) != len(self.pools):
            raise ValueError(
                f"channels {self.channels}, pools {self.pools}: wanted one of each for every convolution."
            )

    @property
    def width(self) -> int:
        """Features per token that comes out: one for each frame."""
        return 2 * self.hidden

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode tokens of the whole grid; `layers` is not kept, for the parts differ in size."""
        del layers
        x = as_image(tokens)
        for number, (width, rows) in enumerate(zip(self.channels, self.pools, strict=True)):
            name = f"conv{number}"
            x = nn.Conv(width, (self.kernel, self.kernel), use_bias=False, name=name)(x)
            x = nn.relu(self.norm.copy(name=f"{name}_norm")(x))
            x = max_pooled(x, (rows, 1))
            drop = nn.Dropout(self.dropout, rng_collection="drop_path", name=f"{name}_drop")
            x = drop(x, deterministic=not train)
        frames = x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
        both = [Gru(self.hidden, name="ahead"), Gru(self.hidden, reverse=True, name="back")]
        x = jnp.concatenate([gru(frames) for gru in both], axis=-1)
        return Encoded(tokens=as_tokens(x[:, None]))
