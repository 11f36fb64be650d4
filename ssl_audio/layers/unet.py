"""A picture → scores of each pixel's classes: a small U-Net (Ronneberger et al. 2015, arXiv:1505.04597)."""

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float


class UNet(nn.Module):
    """Convolutions while the picture is halved, and again while it grows, beside what there was at each size.

    Attributes:
      classes: C.
      channels: at each size, the picture's first.
    """

    classes: int
    channels: tuple[int, ...] = (16, 32, 64)

    @nn.compact
    def __call__(self, x: Float[Array, "B H W K"]) -> Float[Array, "B H W C"]:
        """Return logits.

        Raises:
          ValueError: a side that cannot be halved as often.
        """
        scale = 2 ** (len(self.channels) - 1)
        if x.shape[1] % scale or x.shape[2] % scale:
            raise ValueError(
                f"UNet: a picture of {x.shape[1]} x {x.shape[2]} pixels; wanted multiples of {scale}."
            )
        beside = []
        for number, width in enumerate(self.channels):
            x = nn.avg_pool(x, (2, 2), (2, 2)) if number else x
            x = _twice(x, width, f"down_{number}")
            beside.append(x)
        for number, width in reversed(list(enumerate(self.channels[:-1]))):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = _twice(jnp.concatenate([x, beside[number]], -1), width, f"up_{number}")
        return nn.Conv(self.classes, (1, 1), name="out")(x)


def _twice(x: Array, width: int, name: str) -> Array:
    for number in range(2):
        x = nn.relu(nn.Conv(width, (3, 3), name=f"{name}_{number}")(x))
    return x
