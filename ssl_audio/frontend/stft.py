"""Log-mel of a centred short-time Fourier transform, with Kaldi's triangles: the frontend of PaSST.

Called by objectives and evaluators in `jit`, as `Fbank` is.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Bool, Int, Spec, Wave
from ssl_audio.distributed.sharding import by_rows
from ssl_audio.frontend.base import before, check_sizes
from ssl_audio.frontend.fbank import hann, mel_centres, mel_triangles


@dataclasses.dataclass(frozen=True)
class Stft:
    """Turn audio in [-1, 1] into normalised log-mel energies (Koutini et al. 2022, arXiv:2110.05069).

    Frame t is centred on sample t * hop; the ends of the clip are mirrored. Audio from `length` on
    counts as silence.

    Attributes:
      rate: sampling rate, Hz.
      bins: mel bands, F.
      hop: samples between frames.
      taper: length of the Hann window, samples, both ends 0.
      size: of the transform; the window lies in its middle.
      low, high: edges of the lowest and of the highest band, Hz.
      preemphasis: share of the preceding sample that is subtracted; it takes one sample off.
      floor: added to the energies before the logarithm.
      frames: T; shorter clips are filled up with silence, longer ones cut. None: as many as there are.
      mean: subtracted from the log energies.
      std: the log energies are divided by twice this.
    """

    rate: int = 32_000
    bins: int = 128
    hop: int = 320
    taper: int = 800
    size: int = 1024
    low: float = 0.0
    high: float = 15_000.0
    preemphasis: float = 0.97
    floor: float = 1e-5
    frames: int | None = None
    mean: float = -4.5
    std: float = 2.5

    window: ClassVar[int] = 1  # what a clip must have for a first frame; more hops give more frames
    centre: ClassVar[float] = 0.0

    def __post_init__(self):
        check_sizes(self)
        for name in ("rate", "bins", "hop", "taper", "size", "floor", "std"):
            if getattr(self, name) <= 0:
                raise ValueError(f"Stft: {name} is {getattr(self, name)}; it must be above 0.")
        if self.taper > self.size:
            raise ValueError(f"Stft: taper {self.taper} is longer than size {self.size}.")
        if not 0 <= self.low < self.high <= self.rate / 2:
            raise ValueError(
                f"Stft: the bands go from {self.low} to {self.high} Hz; at {self.rate} Hz they must "
                f"lie between 0 and {self.rate / 2}."
            )

    def __call__(self, audio: Wave, length: Int[Array, "B"] | None = None) -> Spec:
        """Return normalised log-mel energies; see `log_mel`."""
        return self.normalise(self.log_mel(audio, length))

    def log_mel(self, audio: Wave, length: Int[Array, "B"] | None = None) -> Spec:
        """Return natural log energies, float32, before normalisation.

        Args:
          audio: samples in [-1, 1].
          length: valid samples of each clip. None: all are valid.
        """
        audio = audio.astype(jnp.float32)
        if length is not None:
            audio = jnp.where(before(length, audio.shape[1]), audio, 0)
        frames = self.count(audio.shape[1])
        audio = audio[:, 1:] - self.preemphasis * audio[:, :-1]
        there = min(frames, 1 + audio.shape[1] // self.hop)
        audio = jnp.pad(audio, ((0, 0), (self.size // 2, self.size // 2)), mode="reflect")
        start = jnp.arange(there) * self.hop
        cut = audio[:, start[:, None] + jnp.arange(self.size)[None]]
        side = (self.size - self.taper) // 2
        window = jnp.pad(hann(self.taper), (side, self.size - self.taper - side))
        bands = by_rows(jnp.fft.rfft, cut * window[None, None])
        # The Nyquist line has no weight in any band.
        power = jnp.square(bands.real[..., :-1]) + jnp.square(bands.imag[..., :-1])
        triangles = mel_triangles(self.bins, self.size, self.rate, self.low, self.high)
        energies = jnp.matmul(power, triangles.T, precision=jax.lax.Precision.HIGHEST)
        energies = jnp.pad(energies, ((0, 0), (0, frames - there), (0, 0)))
        return jnp.log(energies + self.floor)

    def normalise(self, spec: Spec) -> Spec:
        """Return (spec - mean) / (2 std)."""
        return (spec - self.mean) / (2 * self.std)

    def decibels(self, spec: np.ndarray) -> np.ndarray:
        """Return normalised energies as dB."""
        return (10 / math.log(10)) * (spec * (2 * self.std) + self.mean)

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of each band, Hz."""
        return mel_centres(self.bins, self.low, self.high)

    def count(self, samples: int) -> int:
        """Return T for a batch that is `samples` long."""
        return self.frames if self.frames is not None else 1 + (samples - 1) // self.hop

    def valid(self, length: Int[Array, "B"], frames: int) -> Bool[Array, "B T"]:
        """Return which of `frames` frames are centred on a sample before `length`."""
        return before(1 + (length - 1) // self.hop, frames)
