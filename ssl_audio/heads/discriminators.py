"""Tell recorded sound from a codec's: what its decoder is trained against.

Multi-scale complex spectra (Défossez et al. 2022, arXiv:2210.13438, section 3.4), whole or cut in bands, and
samples a period apart, as DAC has both (Kumar et al. 2023, arXiv:2306.06546, section 3.4).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float, Wave
from ssl_audio.distributed.sharding import by_rows
from ssl_audio.layers.seanet import weights
from ssl_audio.slots import Head

Said = list[tuple[Array, list[Array]]]  # of each part: scores, and what came before them


class _Conv(nn.Module):
    """A convolution over time and frequency whose channels' weights have lengths of their own."""

    channels: int
    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)

    norm = "weight"
    bias = True

    @nn.compact
    def __call__(self, x: Float[Array, "B T F A"]) -> Float[Array, "B U G C"]:
        """Return the output; zeros on all sides keep the size, or divide it by the stride."""
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
      edges: where the lines of each transform are cut, as shares of them; each band has convolutions of its
        own, and scores are of all bands side by side.
    """

    windows: tuple[int, ...] = (2048, 1024, 512, 256, 128)
    channels: int = 32
    dilations: tuple[int, ...] = (1, 2, 4)
    slope: float = 0.3
    edges: tuple[float, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if list(self.edges) != sorted({e for e in self.edges if 0 < e < 1}):
            raise ValueError(f"Spectra: edges {self.edges}; wanted rising shares between 0 and 1.")

    @nn.compact
    def __call__(self, sound: Wave) -> Said:
        """Return, of each transform, scores [B, T, G] (higher: recorded) and what came before them."""
        found = []
        for window in self.windows:
            whole, inner, outer = _parts(sound, window), [], []
            cuts = [int(edge * whole.shape[2]) for edge in self.edges]
            for band, x in enumerate(jnp.split(whole, cuts, axis=2)):
                place = f"{window}_{band}" if self.edges else f"{window}"
                sizes = [((3, 9), (1, 1), (1, 1))]
                sizes += [((3, 9), (1, 2), (d, 1)) for d in self.dilations]
                sizes += [((3, 3), (1, 1), (1, 1))]
                for i, (size, stride, dilation) in enumerate(sizes):
                    conv = _Conv(self.channels, size, stride, dilation, name=f"conv_{place}_{i}")
                    x = jax.nn.leaky_relu(conv(x), self.slope)
                    inner.append(x)
                outer.append(x)
            x = jnp.concatenate(outer, 2)
            scores = _Conv(1, (3, 3), name=f"last_{window}")(x)[..., 0]
            found.append((scores, inner))
        return found


class Periods(nn.Module):
    """A small network on the samples of each of several periods (Kong et al. 2020, arXiv:2010.05646).

    Convolutions run over samples that lie one period apart, and see no others.

    Attributes:
      periods: samples.
      channels: of the convolutions; all but the last of them have a stride of 3.
      slope: of the leaky rectifiers below 0.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    slope: float = 0.1

    @nn.compact
    def __call__(self, sound: Wave) -> Said:
        """Return, of each period, scores [B, T, P] (higher: recorded) and what came before them."""
        found = []
        for period in self.periods:
            x = jnp.pad(sound, ((0, 0), (0, -sound.shape[1] % period)), mode="reflect")
            x, inner = x.reshape(len(x), -1, period, 1), []
            for i, channels in enumerate(self.channels):
                stride = 1 if i == len(self.channels) - 1 else 3
                conv = _Conv(channels, (5, 1), (stride, 1), name=f"conv_{period}_{i}")
                x = jax.nn.leaky_relu(conv(x), self.slope)
                inner.append(x)
            scores = _Conv(1, (3, 1), name=f"last_{period}")(x)[..., 0]
            found.append((scores, inner))
        return found


class Several(nn.Module):
    """Discriminators side by side, of clips whose mean is 0 and whose peak is 0.8.

    Attributes:
      parts: the discriminators.
    """

    parts: tuple[Head, ...] = ()

    @nn.compact
    def __call__(self, sound: Wave) -> Said:
        """Return what all parts say."""
        sound = sound - jnp.mean(sound, 1, keepdims=True)
        # The gradient of `jnp.max` is not always finite: see findings/jax_max_gradient.sh.
        loudest = jnp.argmax(jnp.abs(sound), 1, keepdims=True)
        sound = 0.8 * sound / (jnp.abs(jnp.take_along_axis(sound, loudest, 1)) + 1e-9)
        made = [part.copy(name=f"part_{i}") for i, part in enumerate(self.parts)]
        return [said for part in made for said in part(sound)]


def _parts(sound: Wave, window: int) -> Float[Array, "B T F A"]:
    """Return the real and imaginary parts of a transform of unit energy."""
    hop, taper = window // 4, np.hanning(window + 1)[:window].astype(np.float32)
    short = max(0, window - sound.shape[1])
    sound = jnp.pad(sound, ((0, 0), (0, short)))
    start = jnp.arange(1 + (sound.shape[1] - window) // hop) * hop
    cut = sound[:, start[:, None] + jnp.arange(window)[None]] * jnp.asarray(taper)[None, None]
    bands = by_rows(jnp.fft.rfft, cut) / np.sqrt(np.sum(taper**2))
    return jnp.stack([bands.real, bands.imag], -1)
