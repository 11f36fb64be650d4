"""Log-mel spectrogram that agrees with librosa's and torchaudio's: centred frames, power in dB.

Called by objectives in `jit`; its numbers are those that CLAP models were trained on.
"""

import dataclasses
import functools
import math
import warnings
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Bool, Float, Int, Spec, Wave
from ssl_audio.distributed.sharding import by_rows
from ssl_audio.frontend.base import before, check_sizes, framed

SCALES = ("slaney", "htk")


@dataclasses.dataclass(frozen=True)
class Mel:
    """Turn audio in [-1, 1] into 10 log10 of mel energies, frame t centred on sample t * hop.

    Attributes:
      rate: sampling rate, Hz.
      bins: mel bands, F.
      hop: samples between frames.
      window: samples in a frame, under a periodic Hann window; also the length of the FFT.
      low, high: edges of the bands, Hz; high at or below 0 counts from the Nyquist frequency.
      scale: "slaney" (straight below 1 kHz) or "htk".
      area: scale each band by 2 / its width in Hz.
      bank_rate: sampling rate that the bands are laid out for, Hz, whatever the audio's; 0: `rate`.
      floor: least energy.
      added: to each energy, before the logarithm.
      sixteen_bit: cut the samples to [-1, 1] and round them towards 0 to 16 bits first, as CLAP does.
      frames: T; shorter clips are padded at the end with silence's energy, longer ones cut. None: as
        many as the audio gives.
      cut: nothing is heard of longer audio after T hops, where it is mirrored, as by Whisper; False: the
        last window is filled from it.
      top_db: energies that lie further below the loudest one of a clip are raised to that; 0: none.
      per_clip: scale each clip to go from 0 to 1, before it is padded, with 0 (BAT, arXiv:2602.16305).
      mean: subtracted from the result, dB.
      std: the result is divided by this, dB.
    """

    rate: int = 48_000
    bins: int = 64
    hop: int = 480
    window: int = 1024
    low: float = 50.0
    high: float = 14_000.0
    scale: str = "slaney"
    area: bool = True
    bank_rate: int = 0
    floor: float = 1e-10
    added: float = 0.0
    sixteen_bit: bool = False
    frames: int | None = None
    cut: bool = False
    top_db: float = 0.0
    per_clip: bool = False
    mean: float = 0.0
    std: float = 1.0

    centre: ClassVar[float] = 0.0

    def __post_init__(self):
        check_sizes(self)
        for name in ("rate", "bins", "hop", "window", "std", "floor"):
            if getattr(self, name) <= 0:
                raise ValueError(f"Mel: {name} is {getattr(self, name)}; it must be above 0.")
        for name in ("added", "top_db"):
            if getattr(self, name) < 0:
                raise ValueError(f"Mel: {name} is {getattr(self, name)}; it must not be below 0.")
        if self.scale not in SCALES:
            raise ValueError(f"Mel: scale '{self.scale}'; wanted one of {', '.join(SCALES)}.")
        rate = self._bank_rate
        if not 0 <= self.low < self._top <= rate / 2:
            raise ValueError(
                f"Mel: the bands go from {self.low} to {self._top} Hz; at {rate} Hz they must "
                f"lie between 0 and {rate / 2}."
            )

    def __call__(self, audio: Wave, length: Int[Array, "B"] | None = None) -> Spec:
        """Return normalised log-mel energies; see `log_mel`."""
        return self.normalise(self.log_mel(audio, length))

    def log_mel(self, audio: Wave, length: Int[Array, "B"] | None = None) -> Spec:
        """Return energies in dB, or from 0 to 1, float32, before normalisation; see `power`."""
        power, frames = self.power(audio, length), self.count(audio.shape[1])
        edges = (self._bank_rate, self.low, self._top)
        bands = mel_bands(self.bins, self.window, *edges, self.scale, self.area)
        # Reduced precision (TF32, bfloat16) would show in the logarithm of quiet bands.
        highest = jax.lax.Precision.HIGHEST
        energies = jnp.matmul(power, bands.T, precision=highest)
        spec = 10 * jnp.log10(jnp.maximum(energies + self.added, self.floor))
        missing = ((0, 0), (0, frames - spec.shape[1]), (0, 0))
        if self.per_clip:
            return jnp.pad(self._scaled(spec, length), missing)
        silence = 10 * math.log10(max(self.added, self.floor))
        spec = jnp.pad(spec, missing, constant_values=silence)
        if self.top_db:
            spec = jnp.maximum(spec, jnp.max(spec, (1, 2), keepdims=True) - self.top_db)
        return spec

    def power(self, audio: Wave, length: Int[Array, "B"] | None = None) -> Float[Array, "B T K"]:
        """Return the power in the K = window / 2 + 1 lines of the FFT, of the frames that there are.

        The audio is mirrored at both ends; samples from `length` on are silence.

        Raises:
          ValueError: half a window does not fit the audio.
        """
        if audio.shape[1] <= self.window // 2:
            raise ValueError(
                f"Mel: the audio has {audio.shape[1]} samples; wanted more than {self.window // 2}."
            )
        frames = self.count(audio.shape[1])
        audio = audio.astype(jnp.float32)
        if length is not None:
            audio = jnp.where(before(length, audio.shape[1]), audio, 0)
        if self.cut:
            audio = audio[:, : max(frames * self.hop, self.window)]
        if self.sixteen_bit:
            audio = jnp.trunc(jnp.clip(audio, -1, 1) * 32767) / 32767
        half = self.window // 2
        audio = jnp.pad(audio, ((0, 0), (half, half)), mode="reflect")
        there = min(frames, 1 + (audio.shape[1] - self.window) // self.hop)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
        heard = framed(audio, there, self.window, self.hop)
        bands = by_rows(jnp.fft.rfft, heard * jnp.asarray(window, jnp.float32)[None, None])
        return jnp.square(bands.real) + jnp.square(bands.imag)

    def _scaled(self, spec: Spec, length: Int[Array, "B"] | None) -> Spec:
        """Return energies of the clip alone, from 0 to 1; 0 in the frames that are centred after its end."""
        there: Any = True
        if length is not None:
            there = before(1 + length // self.hop, spec.shape[1])[:, :, None]
        most = jnp.max(spec, (1, 2), keepdims=True, where=there, initial=-jnp.inf)
        if self.top_db:
            spec = jnp.maximum(spec, most - self.top_db)
        least = jnp.min(spec, (1, 2), keepdims=True, where=there, initial=jnp.inf)
        return jnp.where(there, (spec - least) / (most - least + 1e-8), 0)

    def normalise(self, spec: Spec) -> Spec:
        """Return (spec - mean) / std."""
        return (spec - self.mean) / self.std

    def decibels(self, spec: np.ndarray) -> np.ndarray:
        """Return normalised energies as dB; scaled per clip: below its loudest, as if of the full range."""
        spec = spec * self.std + self.mean
        return (spec - 1) * (self.top_db or 100.0) if self.per_clip else spec

    @property
    def frequencies(self) -> np.ndarray:
        """Centre of each band in the audio, Hz."""
        import librosa

        htk = self.scale == "htk"
        edges = librosa.mel_frequencies(self.bins + 2, fmin=self.low, fmax=self._top, htk=htk)
        return edges[1:-1] * (self.rate / self._bank_rate)

    def count(self, samples: int) -> int:
        """Return T for a batch that is `samples` long."""
        return 1 + samples // self.hop if self.frames is None else self.frames

    def valid(self, length: Int[Array, "B"], frames: int) -> Bool[Array, "B T"]:
        """Return which of `frames` frames are centred before the end of `length` samples."""
        return before(1 + (length - 1) // self.hop, frames)

    @property
    def _top(self) -> float:
        return self.high if self.high > 0 else self._bank_rate / 2 + self.high

    @property
    def _bank_rate(self) -> int:
        return self.bank_rate or self.rate


@functools.cache
def mel_bands(
    bins: int, size: int, rate: int, low: float, high: float, scale: str, area: bool
) -> np.ndarray:
    """Return librosa's triangular bands [bins, size / 2 + 1], straight in Hz, over the lines of an FFT.

    The one place where model code needs more than JAX: imported when the first bank is laid out.

    Raises:
      ImportError: librosa cannot be imported.
    """
    try:
        from librosa import filters
    except ImportError as error:
        raise ImportError(
            f"The front end 'mel' lays out its bands with librosa, but: {error}. Try "
            "`pip install librosa`. The front ends fbank, stft, mfcc and raw do without it."
        ) from error
    # In single precision librosa rounds before it scales by the width, and again after it. Rounded
    # once, at the end, the bits are those that models of this project were trained with.
    with warnings.catch_warnings():
        # Published models have bands that lie between two lines of the FFT.
        warnings.filterwarnings("ignore", "Empty filters")
        bands = filters.mel(
            sr=rate, n_fft=size, n_mels=bins, fmin=low, fmax=high, htk=scale == "htk",
            norm="slaney" if area else None, dtype=np.float64,
        )  # fmt: skip
    return bands.astype(np.float32)
