"""EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946, without squeeze-and-excitation and with ReLU6).

By default Lite0 as published, for pictures of 224 x 224; behind `pixels:Pixels`, with `pools:Mean`.
"""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.backbones.cnn import as_image, as_tokens
from ssl_audio.backbones.residual import KAIMING
from ssl_audio.layers.norms import FrozenBatchNorm
from ssl_audio.slots import Norm
from ssl_audio.structs import Encoded, Tokens

# (blocks, kernel, stride of the first, expansion, channels) of each stage.
STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip


class Efficientnet(nn.Module):
    """A strided stem, stages of inverted residual blocks, a 1 x 1 convolution.

    Attributes:
      stages: see `STAGES`.
      stem: channels of the first convolution.
      head: channels of the tokens that come out.
      norm: template. `FrozenBatchNorm` is that of a published checkpoint.
    """

    stages: tuple[tuple[int, int, int, int, int], ...] = STAGES
    stem: int = 32
    head: int = 1280
    norm: Norm = FrozenBatchNorm(1e-3)

    @property
    def width(self) -> int:
        """Features per token that comes out."""
        return self.head

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode tokens of the whole grid; `layers` are the maps after each stage, of different sizes."""
        del train
        x = _relu6(self._norm("stem_norm", _convolved(as_image(tokens), self.stem, 3, 2, "stem")))
        maps = []
        for stage, (count, kernel, stride, expand, width) in enumerate(self.stages):
            for number in range(count):
                x = self._block(
                    x, width, kernel, 1 if number else stride, expand, f"stage{stage}_{number}"
                )
            maps.append(x)
        x = _relu6(self._norm("head_norm", _convolved(x, self.head, 1, 1, "head")))
        found = tuple(as_tokens(x).x for x in maps) if layers else None
        return Encoded(tokens=as_tokens(x), layers=found)

    def _block(
        self, x: Array, width: int, kernel: int, stride: int, expand: int, name: str
    ) -> Float[Array, "B h w E"]:
        given, inner = x, expand * x.shape[-1]
        if expand > 1:
            x = _relu6(self._norm(f"{name}_norm0", _convolved(x, inner, 1, 1, f"{name}_expand")))
        x = _convolved(x, inner, kernel, stride, f"{name}_depthwise", groups=inner)
        x = _relu6(self._norm(f"{name}_norm1", x))
        x = self._norm(f"{name}_norm2", _convolved(x, width, 1, 1, f"{name}_project"))
        return x + given if stride == 1 and given.shape == x.shape else x

    def _norm(self, name: str, x: Array) -> Array:
        return self.norm.copy(name=name)(x)


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)


def _convolved(
    x: Array, width: int, kernel: int, stride: int, name: str, groups: int = 1
) -> Float[Array, "B h w E"]:
    """Convolve without a bias; zeros around as TensorFlow's "SAME": the odd one below and at the right."""
    return nn.Conv(
        width,
        (kernel, kernel),
        (stride, stride),
        padding="SAME",
        use_bias=False,
        feature_group_count=groups,
        kernel_init=KAIMING,
        name=name,
    )(x)
