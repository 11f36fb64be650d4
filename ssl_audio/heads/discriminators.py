"""Tell recorded sound from a codec's: what its decoder is trained against.

Multi-scale complex spectra (Défossez et al. 2022, arXiv:2210.13438, section 3.4).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float, Wave
from ssl_audio.distributed.sharding import by_rows
from ssl_audio.layers.seanet import weights


class _Conv(nn.Module):
    """A convolution over time and frequency whose channels' weights have lengths of their own."""

    channels: int
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    norm = "weight"
    bias = True

    @nn.compact
    def __call__(self, x: Float[Array, "B T F A"]) -> Float[Array, "B T G C"]:
        """Return the output; zeros on all sides keep the size."""
        shape = *self.size, x.shape[-1], self.channels
        kernel, bias = weights(self, shape, int(np.prod(shape[:3])), (0, 1, 2))
        ends = [(k - 1) * d // 2 for k, d in zip(self.size, self.dilation, strict=True)]
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            self.stride,
            [(end, end) for end in ends],
            rhs_dilation=self.dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return x + bias[None, None, None]


class Spectra(nn.Module):
    """A small network on the real and imaginary parts of each of several short-time Fourier transforms.

    Attributes:
      windows: of the transforms, samples; a quarter of each lies between frames.
      channels: of all convolutions but the last.
      dilations: over time, of the convolutions that halve the frequencies.
      slope: of the leaky rectifiers below 0.
    """

    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)
    channels: int = 32
    dilations: tuple[int, ...] = (1, 2, 4)
    slope: float = 0.3

    @nn.compact
    def __call__(self, sound: Wave) -> list[tuple[Array, list[Array]]]:
        """Return, of each transform, scores [B, T, G] (above 0: recorded) and what came before them."""
        found = []
        for window in self.windows:
            x, inner = _parts(sound, window), []
            sizes = [((3, 9), (1, 1), (1, 1))]
            sizes += [((3, 9), (1, 2), (d, 1)) for d in self.dilations] + [((3, 3), (1, 1), (1, 1))]
            for i, (size, stride, dilation) in enumerate(sizes):
                conv = _Conv(self.channels, size, stride, dilation, name=f"conv_{window}_{i}")
                x = jax.nn.leaky_relu(conv(x), self.slope)
                inner.append(x)
            scores = _Conv(1, (3, 3), name=f"last_{window}")(x)[..., 0]
            found.append((scores, inner))
        return found


def _parts(sound: Wave, window: int) -> Float[Array, "B T F A"]:
    """Return the real and imaginary parts of a transform of unit energy."""
    hop, taper = window // 4, np.hanning(window + 1)[:window].astype(np.float32)
    short = max(0, window - sound.shape[1])
    sound = jnp.pad(sound, ((0, 0), (0, short)))
    start = jnp.arange(1 + (sound.shape[1] - window) // hop) * hop
    cut = sound[:, start[:, None] + jnp.arange(window)[None]] * jnp.asarray(taper)[None, None]
    bands = by_rows(jnp.fft.rfft, cut) / np.sqrt(np.sum(taper**2))
    return jnp.stack([bands.real, bands.imag], -1)
