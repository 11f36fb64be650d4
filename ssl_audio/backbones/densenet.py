"""DenseNet (Huang et al. 2017, arXiv:1608.06993) over mel bins and frames, behind `tokens/bins.py`.

The defaults are DenseNet-121 as in torchvision, with one channel of input.
"""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.backbones.cnn import as_image, as_tokens, halved
from ssl_audio.backbones.residual import convolved
from ssl_audio.layers.norms import BatchNorm
from ssl_audio.layers.pooling import max_pooled
from ssl_audio.slots import Norm
from ssl_audio.structs import Encoded, Tokens


class Densenet(nn.Module):
    """A convolution, a maximum, and dense blocks; between blocks half the channels and the mean of 2 x 2.

    In a dense block every layer reads the block's input and what all layers before it gave.

    Attributes:
      depths: layers in each block.
      growth: channels that a layer adds.
      stem: channels of the first convolution, 7 x 7.
      bottleneck: a layer's inner width, in multiples of `growth`.
      norm: template.
    """

    depths: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    stem: int = 64
    bottleneck: int = 4
    norm: Norm = BatchNorm()

    def __post_init__(self):
        super().__post_init__()
        if not self.depths or min(self.depths) < 1:
            raise ValueError(f"depths {self.depths}: wanted one layer or more in each block.")

    @property
    def width(self) -> int:
        """Features per token that comes out."""
        width = self.stem
        for depth in self.depths[:-1]:
            width = (width + depth * self.growth) // 2
        return width + self.depths[-1] * self.growth

    @property
    def joined(self) -> int:
        """Number of token columns that come in for each that goes out."""
        return 4 * 2 ** (len(self.depths) - 1)

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode tokens of the whole grid; `layers` are the maps after each block, of different sizes."""
        del train
        x = convolved(as_image(tokens), self.stem, 7, 2, "stem")
        x = max_pooled(self._active("stem_norm", x), (3, 3), (2, 2), around=1)
        maps = []
        for block, depth in enumerate(self.depths):
            if block:
                at = f"transition{block - 1}"
                x = convolved(self._active(f"{at}_norm", x), x.shape[-1] // 2, 1, 1, at)
                x = halved(x)
            for number in range(depth):
                at = f"block{block}_layer{number}"
                inner = self.bottleneck * self.growth
                new = convolved(self._active(f"{at}_norm0", x), inner, 1, 1, f"{at}_conv0")
                new = convolved(self._active(f"{at}_norm1", new), self.growth, 3, 1, f"{at}_conv1")
                x = jnp.concatenate([x, new], axis=-1)
            maps.append(x)
        maps[-1] = self._active("norm_last", x)
        found = tuple(as_tokens(x).x for x in maps) if layers else None
        return Encoded(tokens=as_tokens(maps[-1]), layers=found)

    def _active(self, name, x):
        return nn.relu(self.norm.copy(name=name)(x))
