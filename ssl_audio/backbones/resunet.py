"""A residual U-Net over time and frequency that hears a condition: ResUNet30.

Kong et al. 2021 (arXiv:2109.05418) section 3; with conditions, Kong et al. 2023 (arXiv:2305.07447).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.layers.dense import XAVIER
from ssl_audio.slots import Norm


class Block(nn.Module):
    """conv(lrelu(norm(x) + b)) twice, added to the input; b is a linear map of the condition for each norm.

    Attributes:
      channels: of the output.
      kernel: taps over time and frequency.
      norm: template.
      slope: of the leaky rectifier below 0.
    """

    channels: int
    kernel: tuple[int, int]
    norm: Norm
    slope: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T F A"], condition: Float[Array, "B C"]
    ) -> Float[Array, "B T F D"]:
        """Return the output."""
        y = x
        for i in (0, 1):
            y = biased(self, f"{i}", y, condition)
            y = nn.Conv(
                self.channels, self.kernel, use_bias=False, kernel_init=XAVIER, name=f"conv_{i}"
            )(y)
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1, 1), kernel_init=XAVIER, name="shortcut")(x)
        return x + y


class Up(nn.Module):
    """To more times and frequencies, joined with what the way down had there, and a `Block` of both.

    Attributes:
      channels, kernel, norm, slope: of the block.
      factor: how many times more times and frequencies.
    """

    channels: int
    kernel: tuple[int, int]
    norm: Norm
    slope: float
    factor: tuple[int, int]

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T F A"],
        other: Float[Array, "B U G D"],
        condition: Float[Array, "B C"],
    ) -> Float[Array, "B U G D"]:
        """Return the output."""
        x = biased(self, "0", x, condition)
        shape = (*self.factor, x.shape[-1], self.channels)
        kernel = self.param("kernel", XAVIER, shape, jnp.float32)
        # Kernel and stride are equal: each place becomes a tile of its own.
        x = jnp.einsum("btfa,hwac->bthfwc", x, kernel)
        batch, times, high, bins, wide, channels = x.shape
        x = x.reshape(batch, times * high, bins * wide, channels)
        block = Block(self.channels, self.kernel, self.norm, self.slope, name="block")
        return block(jnp.concatenate([x, other], -1), condition)


class Resunet(nn.Module):
    """Magnitudes → maps of the same size, as a condition asks.

    Attributes:
      maps: at the end, for each time and frequency.
      channels: on the way down; the last step halves the frequencies only.
      kernel, norm, slope: of all blocks.
    """

    maps: int = 3
    channels: tuple[int, ...] = (32, 64, 128, 256, 384, 384)
    kernel: tuple[int, int] = (3, 3)
    norm: Norm = None
    slope: float = 0.01

    def __post_init__(self):
        super().__post_init__()
        if len(self.channels) < 2 or self.norm is None:
            raise ValueError(
                f"Resunet: channels {self.channels}, norm {self.norm}; wanted two widths or more, and a norm."
            )

    def setup(self):
        """Declare the layers."""
        same = self.kernel, self.norm, self.slope
        self.bins_norm = self.norm.copy()
        self.before = nn.Conv(self.channels[0], (1, 1), kernel_init=XAVIER)
        self.down = [Block(width, *same) for width in self.channels]
        self.middle = Block(self.channels[-1], *same)
        self.up = [
            Up(width, *same, factor)
            for width, factor in zip(self.channels[::-1], self.steps[::-1], strict=True)
        ]
        self.after = nn.Conv(self.maps, (1, 1), kernel_init=XAVIER)

    @property
    def steps(self) -> tuple[tuple[int, int], ...]:
        """Return by how much each step of the way down divides times and frequencies."""
        return ((2, 2),) * (len(self.channels) - 1) + ((1, 2),)

    @property
    def times(self) -> int:
        """Return what the number of frames is brought to a multiple of."""
        return 2 ** (len(self.channels) - 1)

    def __call__(
        self, x: Float[Array, "B T F A"], condition: Float[Array, "B C"]
    ) -> Float[Array, "B T F K"]:
        """Return maps; of the highest frequency zeros.

        Args:
          x: magnitudes; F - 1 is a multiple of 2 to the number of steps.
          condition: what is asked for.
        """
        count = x.shape[1]
        x, kept = self.before(self.normalised(x)), []
        for block, step in zip(self.down, self.steps, strict=True):
            x = block(x, condition)
            kept.append(x)
            x = nn.avg_pool(x, step, step)
        x = self.middle(x, condition)
        for block, other in zip(self.up, reversed(kept), strict=True):
            x = block(x, other, condition)
        return jnp.pad(self.after(x), ((0, 0), (0, 0), (0, 1), (0, 0)))[:, :count]

    def normalised(self, x: Float[Array, "B T F A"], whole: bool = False) -> Array:
        """Return normalised frequencies, at a size that all steps divide, or at their own (`whole`)."""
        y = jnp.swapaxes(self.bins_norm(jnp.swapaxes(x, 2, 3)), 2, 3)
        if whole:
            return y
        return jnp.pad(y, ((0, 0), (0, -y.shape[1] % self.times), (0, 0), (0, 0)))[:, :, :-1]

    def first(self, x: Float[Array, "B T F A"], condition: Float[Array, "B C"]) -> Array:
        """Return what the first step of the way down hands on."""
        x = self.down[0](self.before(self.normalised(x)), condition)
        return nn.avg_pool(x, self.steps[0], self.steps[0])


def biased(module: Any, name: str, x: Float[Array, "B T F A"], condition: Array) -> Array:
    """Return lrelu(norm(x) + a linear map of the condition); called inside a compact module."""
    y = module.norm.copy(name=f"norm_{name}")(x)
    bias = nn.Dense(x.shape[-1], kernel_init=XAVIER, name=f"film_{name}")(condition)
    return jax.nn.leaky_relu(y + bias[:, None, None], module.slope)
