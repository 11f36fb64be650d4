"""VGG-like networks whose maxima overlap or are of any shape (musicnn), behind `tokens/bins.py`."""

import math

import flax.linen as nn

from ssl_audio.backbones.cnn import as_image, as_tokens
from ssl_audio.layers.norms import BatchNorm
from ssl_audio.layers.pooling import max_pooled
from ssl_audio.slots import Norm
from ssl_audio.structs import Encoded, Tokens

# Of musicnn's VGG for MagnaTagATune (Pons and Serra 2019, arXiv:1909.06654), (mel bins, frames).
WINDOWS = ((1, 4), (2, 2), (2, 2), (2, 2), (4, 4))
STRIDES = ((2, 2), (2, 2), (2, 2), (2, 2), (4, 4))


class Vgg(nn.Module):
    """Blocks of a 3 x 3 convolution, a ReLU, a norm and the maximum of a window.

    Attributes:
      channels: width of each block; the last is the width of the tokens that come out.
      windows: of which each block takes the maximum, (mel bins, frames).
      strides: from one window to the next, (mel bins, frames). What fills no window is left out.
      norm: template; there is one more, of the tokens that come in.
      dropout: share of the values that training sets to 0 after each block.
    """

    channels: tuple[int, ...] = (128, 128, 128, 128, 128)
    windows: tuple[tuple[int, int], ...] = WINDOWS
    strides: tuple[tuple[int, int], ...] = STRIDES
    norm: Norm = BatchNorm()
    dropout: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if not len(self.channels) == len(self.windows) == len(self.strides):
            raise ValueError(
                f"channels {self.channels}, windows {self.windows}, strides {self.strides}: wanted one of "
                "each for every block."
            )

    @property
    def width(self) -> int:
        """Features per token that comes out."""
        return self.channels[-1]

    @property
    def joined(self) -> int:
        """Number of token columns that come in for each that goes out."""
        return math.prod(stride[1] for stride in self.strides)

    @property
    def beyond(self) -> int:
        """Number of token columns after its own that one which goes out hears."""
        heard = 1
        for window, stride in zip(self.windows[::-1], self.strides[::-1], strict=True):
            heard = (heard - 1) * stride[1] + window[1] + 1  # and one that the convolution looks at
        return heard - self.joined

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode tokens of the whole grid; `layers` are the maps after each block, of different sizes."""
        x = self.norm.copy(name="input_norm")(as_image(tokens))
        maps = []
        for block, width in enumerate(self.channels):
            x = nn.relu(nn.Conv(width, (3, 3), name=f"block{block}_conv")(x))
            x = self.norm.copy(name=f"block{block}_norm")(x)
            x = max_pooled(x, self.windows[block], self.strides[block])
            maps.append(x)
            drop = nn.Dropout(self.dropout, rng_collection="drop_path", name=f"block{block}_drop")
            x = drop(x, deterministic=not train)
        return Encoded(tokens=as_tokens(x), layers=tuple(maps) if layers else None)
