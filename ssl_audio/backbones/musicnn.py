"""musicnn (Pons et al. 2018, arXiv:1711.02520): convolutions as high as timbres and as long as rhythms."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.backbones.cnn import as_image, as_tokens
from ssl_audio.layers.norms import BatchNorm
from ssl_audio.slots import Norm
from ssl_audio.structs import Encoded, Tokens


class Musicnn(nn.Module):
    """One token per frame: what several shapes of convolution find, then three convolutions over time.

    Behind `tokens/bins.py`. Convolutions are followed by a ReLU and a norm. Of the first ones the maximum
    over the mel bins is taken; the others have residual connections. A token is all of it side by side.

    Attributes:
      timbral: mel bins that each convolution covers, 7 frames long.
      temporal: frames that each convolution covers, one mel bin high.
      timbral_channels, temporal_channels: of each of them.
      channels: of each convolution over time, 7 frames long.
      depth: how many of those.
      norm: template; there is one more, of the tokens that come in.
    """

    timbral: tuple[int, ...] = (38, 67)
    temporal: tuple[int, ...] = (128, 64, 32)
    timbral_channels: int = 204
    temporal_channels: int = 51
    channels: int = 64
    depth: int = 3
    norm: Norm = BatchNorm()

    @property
    def width(self) -> int:
        """Features per token that comes out."""
        first = len(self.timbral) * self.timbral_channels
        return first + len(self.temporal) * self.temporal_channels + self.depth * self.channels

    @property
    def joined(self) -> int:
        """Number of token columns that come in for each that goes out."""
        return 1

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool = False, layers: bool = False) -> Encoded:
        """Encode tokens of the whole grid; `layers` are those of each part, of different sizes."""
        del train
        x = self.norm.copy(name="input_norm")(as_image(tokens))
        found = [
            jnp.max(self._active(f"timbral{i}", x, self.timbral_channels, bins, 7), axis=1)
            for i, bins in enumerate(self.timbral)
        ]
        found += [
            jnp.max(self._active(f"temporal{i}", x, self.temporal_channels, 1, frames), axis=1)
            for i, frames in enumerate(self.temporal)
        ]
        x = jnp.concatenate(found, axis=-1)
        parts = [x]
        for i in range(self.depth):
            y = nn.relu(nn.Conv(self.channels, (7,), name=f"over_time{i}")(x))
            y = self.norm.copy(name=f"over_time{i}_norm")(y)
            x = y + x if i else y
            parts.append(x)
        x = jnp.concatenate(parts, axis=-1)
        return Encoded(tokens=as_tokens(x[:, None]), layers=tuple(parts) if layers else None)

    def _active(
        self, name: str, x: Float[Array, "B H W D"], width: int, bins: int, frames: int
    ) -> Float[Array, "B h W E"]:
        """Return a convolution that keeps the number of frames, its ReLU and its norm."""
        around = ((0, 0), ((frames - 1) // 2, frames // 2))
        x = nn.relu(nn.Conv(width, (bins, frames), padding=around, name=name)(x))
        return self.norm.copy(name=f"{name}_norm")(x)
