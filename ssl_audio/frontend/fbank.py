"""Log-mel filterbank that agrees with Kaldi's, and the statistics that scale it.

Called by objectives and evaluators in `jit`. SpecAugment goes between `log_mel` and `normalise`.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Bool, Int, Spec, Wave
from ssl_audio.distributed.sharding import by_rows
from ssl_audio.frontend.base import before, check_sizes, framed

FLOOR = float(np.finfo(np.float32).eps)  # lowest energy before the logarithm: -15.94

# Statistics and clip lengths with which SSAST and SSAMBA were trained: Fbank(**STATS["esc50"]).
STATS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "audioset": dict(mean=-4.2677393, std=4.5689974, frames=1024),
        "esc50": dict(mean=-6.6268077, std=5.358466, frames=512),
        "speech_commands": dict(mean=-6.845978, std=5.5654526, frames=128),
        "urbansound8k": dict(mean=-5.138443946838379, std=4.229961395263672, frames=6144),
    }
)


@dataclasses.dataclass(frozen=True)
class Fbank:
    """Turn audio in [-1, 1] into normalised log-mel energies, as SSAST does (section 3.1).

    Attributes:
      rate: sampling rate, Hz.
      bins: mel bands, F.
      hop: samples between frames.
      window: samples in a frame; only whole frames are kept.
      low: lower edge of the lowest band, Hz.
      high: upper edge of the highest band, Hz; at or below 0 it counts from the Nyquist frequency.
      preemphasis: share of the preceding sample that is subtracted, within each frame.
      taper: power of the Hann window; 0.85 makes it Kaldi's "povey".
      scale: factor on the samples; Kaldi's recipes take 16-bit integers, 32768. It moves quiet bands
        away from the floor.
      remove_mean: subtract the mean of the clip's valid samples first. Each frame loses its own
        mean anyway, so this only changes how the samples are rounded.
      frames: T; shorter clips are padded at the end (before normalisation), longer ones cut.
        None: as many as the audio gives.
      padding: what they are padded with: "zero", or "lowest", the clip's own least log energy.
      mean: subtracted from the log energies.
      std: the log energies are divided by twice this.
    """

    rate: int = 16_000
    bins: int = 128
    hop: int = 160
    window: int = 400
    low: float = 20.0
    high: float = 0.0
    preemphasis: float = 0.97
    taper: float = 1.0
    scale: float = 1.0
    remove_mean: bool = True
    frames: int | None = None
    padding: str = "zero"
    mean: float = -4.2677393
    std: float = 4.5689974

    def __post_init__(self):
        check_sizes(self)
        for name in ("rate", "bins", "hop", "window", "std", "taper", "scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"Fbank: {name} is {getattr(self, name)}; it must be above 0.")
        if self.padding not in ("zero", "lowest"):
            raise ValueError(f"Fbank: padding '{self.padding}'; wanted zero or lowest.")
        if self.frames is not None and self.frames <= 0:
            raise ValueError(f"Fbank: frames is {self.frames}; it must be above 0, or None.")
        if not 0 <= self.low < self._top <= self.rate / 2:
            raise ValueError(
                f"Fbank: the bands go from {self.low} to {self._top} Hz; at {self.rate} Hz they "
                f"must lie between 0 and {self.rate / 2}."
            )

    def __call__(self, audio: Wave, length: Int[Array, "B"] | None = None) -> Spec:
        """Return normalised log-mel energies; see `log_mel`."""
        return self.normalise(self.log_mel(audio, length))

    def log_mel(self, audio: Wave, length: Int[Array, "B"] | None = None) -> Spec:
        """Return natural log energies, float32, before normalisation.

        Args:
          audio: samples in [-1, 1].
          length: valid samples of each clip; frames that reach beyond are 0. None: all are valid.

        Raises:
          ValueError: the batch is shorter than one window and `frames` is None.
        """
        frames = self.count(audio.shape[1])
        audio = audio.astype(jnp.float32) * self.scale
        if length is None:
            length = jnp.full(audio.shape[:1], audio.shape[1], jnp.int32)
        if self.remove_mean:
            inside = before(length, audio.shape[1])
            total = jnp.sum(jnp.where(inside, audio, 0), axis=1)
            audio = audio - (total / jnp.maximum(length, 1))[:, None]
        there = min(frames, self._whole(audio.shape[1]))
        spec = self._energies(framed(audio, there, self.window, self.hop))
        spec = jnp.pad(spec, ((0, 0), (0, frames - spec.shape[1]), (0, 0)))
        valid = self.valid(length, frames)[:, :, None]
        if self.padding == "zero":
            return jnp.where(valid, spec, 0)
        least = jnp.min(jnp.where(valid, spec, jnp.inf), axis=(1, 2), keepdims=True)
        return jnp.where(valid, spec, jnp.where(jnp.isfinite(least), least, 0))

    def normalise(self, spec: Spec) -> Spec:
        """Return (spec - mean) / (2 std): a standard deviation near one half."""
        return (spec - self.mean) / (2 * self.std)

    def decibels(self, spec: np.ndarray) -> np.ndarray:
        """Return normalised energies as dB."""
        return (10 / math.log(10)) * (spec * (2 * self.std) + self.mean)

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of each band, Hz."""
        return mel_centres(self.bins, self.low, self._top)

    def count(self, samples: int) -> int:
        """Return T for a batch that is `samples` long.

        Raises:
          ValueError: there is not one whole window and `frames` is None.
        """
        if self.frames is not None:
            return self.frames
        if samples < self.window:
            raise ValueError(
                f"Fbank: the audio has {samples} samples, less than one window of {self.window}; "
                "pad it, or set frames."
            )
        return self._whole(samples)

    def valid(self, length: Int[Array, "B"], frames: int) -> Bool[Array, "B T"]:
        """Return which of `frames` frames hold nothing but samples before `length`."""
        return before(1 + (length - self.window) // self.hop, frames)

    @property
    def centre(self) -> float:
        """Sample on which the first frame is centred."""
        return self.window / 2

    @property
    def _top(self) -> float:
        return self.high if self.high > 0 else self.rate / 2 + self.high

    def _whole(self, samples: int) -> int:
        return max(0, 1 + (samples - self.window) // self.hop)

    def _energies(self, x: Array) -> Spec:
        size = 2 ** math.ceil(math.log2(self.window))
        x = x - jnp.mean(x, axis=2, keepdims=True)
        previous = jnp.concatenate([x[:, :, :1], x[:, :, :-1]], axis=2)
        # Rounded before it is subtracted, as the reference does: a fused multiply-add would show in
        # the logarithm of quiet bands.
        previous = jax.lax.optimization_barrier(self.preemphasis * previous)
        x = (x - previous) * hann(self.window, self.taper)[None, None]
        bands = by_rows(lambda rows: jnp.fft.rfft(rows, size), x)
        # The Nyquist line has no weight in any band.
        power = jnp.square(bands.real[..., :-1]) + jnp.square(bands.imag[..., :-1])
        triangles = mel_triangles(self.bins, size, self.rate, self.low, self._top)
        # Reduced precision (TF32, bfloat16) would show in the logarithm of quiet bands.
        energies = jnp.matmul(power, triangles.T, precision=jax.lax.Precision.HIGHEST)
        return jnp.log(jnp.maximum(energies, FLOOR))


@functools.cache
def hann(size: int, power: float = 1.0) -> np.ndarray:
    """Return a power of the symmetric Hann window: 0 at both ends."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - 1))
    return (window**power).astype(np.float32)


@functools.cache
def mel_triangles(bins: int, size: int, rate: int, low: float, high: float) -> np.ndarray:
    """Return Kaldi's triangles [bins, size / 2]: straight in mel, not normalised by area.

    librosa has no equal: its HTK triangles have the same edges but are straight in Hz; they differ by
    0.0024 (128 bands at 16 kHz), 80 times what our parity tests allow. The lowest may be narrower than
    the distance of two FFT lines and stay empty. Published models were trained like this, in float32,
    so nothing is corrected here.
    """
    start, step = _mel(low), (_mel(high) - _mel(low)) / (bins + 1)
    edges = np.float32(start) + np.arange(bins + 2, dtype=np.float32)[:, None] * np.float32(step)
    lines = _mel(np.arange(size // 2, dtype=np.float32) * np.float32(rate / size))[None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (lines - left) / (centre - left), (right - lines) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def mel_centres(bins: int, low: float, high: float) -> np.ndarray:
    """Return where the triangles have their peaks, Hz, [bins]."""
    return 700 * np.expm1(np.linspace(_mel(low), _mel(high), bins + 2)[1:-1] / 1127)


def _mel(frequency):
    return 1127 * np.log(1 + frequency / 700)
