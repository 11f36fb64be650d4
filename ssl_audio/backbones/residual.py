"""Residual networks of basic blocks (He et al. 2016, arXiv:1512.03385) over mel bins and frames.

`WRN28` and `RESNET18` hold what differs: dict(kind="residual", **WRN28). Behind `tokens/bins.py`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from ssl_audio.arrays import Array, Float
from ssl_audio.backbones.cnn import as_image, as_tokens
from ssl_audio.layers.norms import BatchNorm
from ssl_audio.layers.pooling import max_pooled
from ssl_audio.slots import Norm
from ssl_audio.structs import Encoded, Tokens

# Kaiming's normal initialiser by fan out, as published.
KAIMING = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

# "Wide-ResNet-28" of SSLH (Cances et al. 2022, arXiv:2102.08183) at width 1; times 2: its WRN-28-2. Not the
# pre-activation network of Zagoruyko and Komodakis: basic blocks, and a stem with a pooling.
WRN28: Mapping[str, Any] = MappingProxyType(
    dict(channels=(16, 32, 64), depths=(4, 4, 4), kernel=3, stride=1)
)
# As in torchvision, with one channel of input.
RESNET18: Mapping[str, Any] = MappingProxyType(
    dict(channels=(64, 128, 256, 512), depths=(2, 2, 2, 2), kernel=7, stride=2)
)


class Residual(nn.Module):
    """A convolution, a 3 x 3 maximum of every second place, and stages of residual blocks.

    Attributes:
      channels: width of each stage; the first is the stem's too, the last that of the tokens that come out.
      depths: blocks in each stage. The first block of every stage but the first halves the map.
      kernel, stride: of the first convolution.
      times: all widths are multiplied by it.
      norm: template.
    """

    channels: tuple[int, ...] = (16, 32, 64)
    depths: tuple[int, ...] = (4, 4, 4)
    kernel: int = 3
    stride: int = 1
    times: int = 1
    norm: Norm = BatchNorm()

    def __post_init__(self):
        super().__post_init__()
        if len(self.channels) != len(self.depths) or not self.channels:
            raise ValueError(
                f"channels {self.channels}, depths {self.depths}: wanted one of each for every stage."
            )
        if self.times < 1:
            raise ValueError(f"times {self.times}: wanted at least 1.")

    @property
    def width(self) -> int:
        """Features per token that comes out."""
        return self.times * self.channels[-1]

    @property
    def joined(self) -> int:
        """Number of token columns that come in for each that goes out."""
        return self.stride * 2 ** len(self.channels)

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode tokens of the whole grid; `layers` are the maps after each stage, of different sizes."""
        del train
        x = as_image(tokens)
        first = self.times * self.channels[0]
        x = convolved(x, first, self.kernel, self.stride, "stem")
        x = nn.relu(self.norm.copy(name="stem_norm")(x))
        x = max_pooled(x, (3, 3), (2, 2), around=1)
        maps = []
        for stage, (width, depth) in enumerate(zip(self.channels, self.depths, strict=True)):
            for number in range(depth):
                stride = 2 if stage and not number else 1
                name = f"stage{stage}_block{number}"
                x = BasicBlock(self.times * width, stride, self.norm, name=name)(x)
            maps.append(x)
        found = tuple(as_tokens(x).x for x in maps) if layers else None
        return Encoded(tokens=as_tokens(x), layers=found)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes.

    Attributes:
      width: of what comes out.
      stride: of the first convolution and of the shortcut.
      norm: template.
    """

    width: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: Float[Array, "B H W D"]) -> Float[Array, "B h w E"]:
        """Return the block's output."""
        short = x
        if self.stride > 1 or x.shape[-1] != self.width:
            short = convolved(x, self.width, 1, self.stride, "shortcut")
            short = self.norm.copy(name="shortcut_norm")(short)
        x = convolved(x, self.width, 3, self.stride, "conv0")
        x = nn.relu(self.norm.copy(name="norm0")(x))
        x = convolved(x, self.width, 3, 1, "conv1")
        return nn.relu(self.norm.copy(name="norm1")(x) + short)


def convolved(
    x: Float[Array, "B H W D"], width: int, kernel: int, stride: int, name: str
) -> Float[Array, "B h w E"]:
    """Convolve without a bias, zeros around: half a kernel on every side, whatever the stride."""
    around = (kernel // 2, kernel // 2)
    return nn.Conv(
        width,
        (kernel, kernel),
        (stride, stride),
        padding=(around, around),
        use_bias=False,
        kernel_init=KAIMING,
        name=name,
    )(x)
