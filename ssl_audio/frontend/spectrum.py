"""Waveform to magnitude and phase and back: what a network that separates sounds works on."""

import dataclasses

import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Wave
from ssl_audio.distributed.sharding import by_rows
from ssl_audio.frontend.fbank import hann

LEAST = 1e-10  # of a power, and of a divisor


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """A centred short-time Fourier transform with mirrored ends, and its inverse.

    Attributes:
      rate: sampling rate, Hz.
      size: of the transform and of its periodic Hann window, samples.
      hop: samples between frames.
    """

    rate: int = 32_000
    size: int = 2048
    hop: int = 320

    def __post_init__(self):
        if self.rate < 1 or not 0 < self.hop <= self.size // 2 or self.size % 2:
            raise ValueError(
                f"Spectrum: rate {self.rate}, size {self.size}, hop {self.hop}; wanted an even size, and a "
                "hop of half of it at most."
            )

    @property
    def bins(self) -> int:
        """Return the number of frequencies, F."""
        return self.size // 2 + 1

    def __call__(self, audio: Wave) -> tuple[Array, Array, Array]:
        """Return magnitude, cosine and sine of the phase, [B, T, F] each; T is 1 + S // hop."""
        half = self.size // 2
        if audio.shape[1] <= half:
            raise ValueError(
                f"Spectrum: {audio.shape[1]} samples; wanted more than {half}, half of the window."
            )
        padded = jnp.pad(audio, ((0, 0), (half, half)), mode="reflect")
        start = jnp.arange(1 + audio.shape[1] // self.hop) * self.hop
        cut = padded[:, start[:, None] + jnp.arange(self.size)[None]]
        found = by_rows(jnp.fft.rfft, cut * self._window[None, None])
        power = found.real**2 + found.imag**2
        magnitude = jnp.sqrt(jnp.maximum(power, LEAST))
        return magnitude, found.real / magnitude, found.imag / magnitude

    def inverse(
        self,
        magnitude: Float[Array, "B T F"],
        cos: Float[Array, "B T F"],
        sin: Float[Array, "B T F"],
        samples: int,
    ) -> Wave:
        """Return the waveform whose windows are nearest to these."""
        frames = by_rows(jnp.fft.irfft, magnitude * (cos + 1j * sin)) * self._window[None, None]
        count, length = frames.shape[1], self.size + (frames.shape[1] - 1) * self.hop
        place = (jnp.arange(count) * self.hop)[:, None] + jnp.arange(self.size)[None]
        sound = jnp.zeros((len(frames), length), frames.dtype).at[:, place].add(frames)
        square = jnp.broadcast_to((self._window**2)[None], place.shape)
        weight = jnp.zeros(length, frames.dtype).at[place].add(square)
        sound = sound / jnp.maximum(weight, 1e-11)[None]
        half = self.size // 2
        sound = sound[:, half : half + samples]
        return jnp.pad(sound, ((0, 0), (0, samples - sound.shape[1])))

    @property
    def _window(self) -> Array:
        return jnp.asarray(hann(self.size + 1)[: self.size], jnp.float32)
