"""From one vector of a clip back to its spectrogram."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Spec


class VectorToSpectrogram(nn.Module):
    """A linear layer to a coarse map, then twice: each place four times, a 3 x 3 convolution, ReLU.

    Attributes:
      channels: of the map and of the convolutions; the last convolution gives one.
    """

    channels: tuple[int, ...] = (32, 16)

    @nn.compact
    def __call__(self, x: Float[Array, "B D"], frames: int, bins: int) -> Spec:
        """Return a spectrogram of so many frames and bins."""
        scale = 2 ** len(self.channels)
        rows, columns = -(-frames // scale), -(-bins // scale)
        y = nn.relu(nn.Dense(rows * columns * self.channels[0], name="map")(x))
        y = y.reshape(len(x), rows, columns, self.channels[0])
        for number, width in enumerate(self.channels):
            y = jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2)
            y = nn.relu(nn.Conv(width, (3, 3), name=f"conv_{number}")(y))
        return nn.Conv(1, (3, 3), name="out")(y)[:, :frames, :bins, 0]
