"""The encoder of BYOL-A (AudioNTT2020; Niizumi et al. 2021, arXiv:2103.06695), behind `tokens/bins.py`."""

import flax.linen as nn

from ssl_audio.arrays import Array, Float
from ssl_audio.backbones.cnn import as_image, as_tokens
from ssl_audio.layers.dense import Linear
from ssl_audio.layers.norms import BatchNorm
from ssl_audio.layers.pooling import max_pooled
from ssl_audio.slots import Norm
from ssl_audio.structs import Encoded, Tokens

# PyTorch's default for convolutions: uniform in ±1 / sqrt(fan in).
CONV = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class AudioNtt(nn.Module):
    """Blocks of a 3 x 3 convolution and a 2 x 2 maximum, then two dense layers on each frame.

    A clip's embedding is the maximum plus the mean over time: `pools.TimeMaxMean`.

    Attributes:
      width: D of the tokens that come out, one for each frame of the last map.
      channels: of each block.
      blocks: how many.
      dropout: share of the values between the dense layers that training sets to 0.
      norm: template.
    """

    width: int = 2048
    channels: int = 64
    blocks: int = 3
    dropout: float = 0.3
    norm: Norm = BatchNorm()

    @property
    def joined(self) -> int:
        """Number of token columns that come in for each that goes out."""
        return 2**self.blocks

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode tokens of the whole grid; `layers` are the frames of each block's map, of different sizes.

        A frame holds all channels of the lowest mel bin first.
        """
        x = as_image(tokens)
        frames = []
        for block in range(self.blocks):
            name = f"block{block}"
            x = nn.Conv(self.channels, (3, 3), kernel_init=CONV, name=f"{name}_conv")(x)
            x = nn.relu(self.norm.copy(name=f"{name}_norm")(x))
            x = max_pooled(x, (2, 2))
            frames.append(_frames(x))
        x = nn.relu(Linear(self.width, name="dense0")(frames[-1]))
        drop = nn.Dropout(self.dropout, rng_collection="drop_path", name="drop")
        x = drop(x, deterministic=not train)
        x = nn.relu(Linear(self.width, name="dense1")(x))
        return Encoded(tokens=as_tokens(x[:, None]), layers=tuple(frames) if layers else None)


def _frames(x: Float[Array, "B H W D"]) -> Float[Array, "B W E"]:
    """Return the columns of a map, E = H * D."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
