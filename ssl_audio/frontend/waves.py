"""Augmentation of waveforms: frozen dataclasses, `(audio, length, key) -> audio`, one draw per clip.

Called by objectives when training, inside `jit`, before the frontend. What changes speed or pitch alone is
in `data/altered.py`, for it is done on the host.
"""

import abc
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float, Int, PRNGKeyArray, Wave
from ssl_audio.frontend.base import before

LOWEST = 20.0  # Hz, where the slope of a coloured noise begins


@dataclasses.dataclass(frozen=True)
class RollGain:
    """Roll each clip by a random number of its samples, and change its level.

    Huang et al. 2022, Audio-MAE (arXiv:2207.06405).

    Attributes:
      beta: the factor on the level is 0.5 plus a draw from Beta(beta, beta).
    """

    beta: float = 10.0

    def __post_init__(self):
        if self.beta <= 0:
            raise ValueError(f"RollGain: beta is {self.beta}; it must be above 0.")

    def __call__(self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray) -> Wave:
        """Return a copy; what leaves at the end of the valid samples comes in at their beginning."""
        shift_key, level_key = jax.random.split(key)
        batch, samples = audio.shape
        whole = jnp.maximum(length, 1)
        shift = jax.random.randint(shift_key, (batch,), 0, whole)
        place = jnp.arange(samples)[None]
        source = jnp.where(
            before(length, samples), (place + shift[:, None]) % whole[:, None], place
        )
        level = 0.5 + jax.random.beta(level_key, self.beta, self.beta, (batch, 1))
        return level * jnp.take_along_axis(audio, source, axis=1)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Add other clips of the batch to a clip, softer than it is.

    Rauch et al. 2025, Bird-MAE (arXiv:2504.12880).

    Attributes:
      share: of the clips that something is added to.
      most: up to so many others are added, each number equally likely.
      low, high: how many dB softer each is, uniform.
    """

    share: float = 0.3
    most: int = 3
    low: float = 5.0
    high: float = 25.0

    def __post_init__(self):
        if not 0 <= self.share <= 1 or self.most < 1 or self.low > self.high:
            raise ValueError(
                f"Mixture: share={self.share}, most={self.most}, low={self.low}, high={self.high}; "
                "wanted a share from 0 to 1, at least one other, and low <= high."
            )

    def __call__(self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray) -> Wave:
        """Return the mixtures; samples from `length` on stay as they are."""
        batch, samples = audio.shape
        share_key, count_key, other_key, level_key = jax.random.split(key, 4)
        mixed = jax.random.bernoulli(share_key, self.share, (batch,))
        count = jnp.where(mixed, jax.random.randint(count_key, (batch,), 1, self.most + 1), 0)
        inside = before(length, samples)
        signal = jnp.where(inside, audio, 0)
        power = jnp.sum(signal**2, 1) / jnp.maximum(length, 1)
        total = audio
        for number in range(self.most):
            shift = jax.random.randint(
                jax.random.fold_in(other_key, number), (batch,), 1, max(batch, 2)
            )
            other = (jnp.arange(batch) + shift) % batch
            softer = jax.random.uniform(
                jax.random.fold_in(level_key, number), (batch,), minval=self.low, maxval=self.high
            )
            gain = jnp.sqrt(power / jnp.maximum(power[other], 1e-10)) * 10 ** (-softer / 20)
            gain = jnp.where(number < count, gain, 0)
            total = total + jnp.where(inside, gain[:, None] * signal[other], 0)
        return total


@dataclasses.dataclass(frozen=True)
class Polarity:
    """Turn clips upside down: multiply them by -1.

    Attributes:
      chance: share of the clips that are turned.
    """

    chance: float = 0.5

    def __post_init__(self):
        _check_chance(self)

    def __call__(self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray) -> Wave:
        """Return the clips, some with the other sign."""
        del length
        turned = jax.random.bernoulli(key, self.chance, (len(audio), 1))
        return jnp.where(turned, -audio, audio)


@dataclasses.dataclass(frozen=True)
class Gain:
    """Make clips louder or softer by a number of dB, uniform.

    Attributes:
      low, high: dB.
      chance: share of the clips that are changed.
    """

    low: float = -12.0
    high: float = 12.0
    chance: float = 1.0

    def __post_init__(self):
        _check_chance(self)
        _check_range(self, "low, high", (self.low, self.high))

    def __call__(self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray) -> Wave:
        """Return the clips; samples may leave [-1, 1]."""
        del length
        acts, level = jax.random.split(key)
        shape = (len(audio), 1)
        decibels = jax.random.uniform(level, shape, minval=self.low, maxval=self.high)
        decibels = jnp.where(jax.random.bernoulli(acts, self.chance, shape), decibels, 0)
        return audio * 10 ** (decibels / 20)


@dataclasses.dataclass(frozen=True)
class Noise:
    """Add Gaussian noise at a signal-to-noise ratio, uniform in dB; white, or coloured by a slope.

    Signal and noise are measured by their mean square over the valid samples, so silence stays silent.

    Attributes:
      low, high: signal-to-noise ratio, dB.
      slope: how the noise's power changes with frequency, dB per octave, uniform between two numbers;
        0: white, -3: pink, -6: brown. Equal numbers that are 0 need no Fourier transform.
      rate: sampling rate, Hz; below 20 Hz a coloured noise is as strong as at 20 Hz.
      chance: share of the clips that noise is added to.
    """

    low: float = 5.0
    high: float = 40.0
    slope: tuple[float, float] = (0.0, 0.0)
    rate: int = 16_000
    chance: float = 1.0

    def __post_init__(self):
        _check_chance(self)
        _check_range(self, "low, high", (self.low, self.high))
        _check_range(self, "slope", self.slope)

    def __call__(self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray) -> Wave:
        """Return the noisy clips; samples from `length` on stay as they are."""
        batch, samples = audio.shape
        acts, level, slope, draw = jax.random.split(key, 4)
        inside = before(length, samples)
        noise = jax.random.normal(draw, audio.shape, audio.dtype)
        if tuple(self.slope) != (0.0, 0.0):
            tilt = jax.random.uniform(slope, (batch, 1), minval=self.slope[0], maxval=self.slope[1])
            octaves = jnp.log2(jnp.maximum(_lines(samples, self.rate), LOWEST) / LOWEST)
            noise = _filtered(noise, 10 ** (tilt * octaves[None] / 20))
        signal, power = (
            jnp.sum(jnp.where(inside, x, 0) ** 2, 1, keepdims=True) for x in (audio, noise)
        )
        ratio = jax.random.uniform(level, (batch, 1), minval=self.low, maxval=self.high)
        gain = jnp.sqrt(signal / jnp.maximum(power, 1e-10)) * 10 ** (-ratio / 20)
        gain = jnp.where(jax.random.bernoulli(acts, self.chance, (batch, 1)), gain, 0)
        return audio + jnp.where(inside, gain * noise, 0)


@dataclasses.dataclass(frozen=True)
class Band(abc.ABC):
    """A filter of random edges whose gain is that of a Butterworth filter, for `Filters`.

    Edges are uniform on the mel scale; the slope outside them is a whole multiple of 6 dB per octave.

    Attributes:
      low, high: the cut-off frequency, of two-sided filters the centre, Hz.
      slope: from and up to so many dB per octave.
      chance: share of the clips that are filtered.
    """

    low: float
    high: float
    slope: tuple[int, int] = (12, 24)
    chance: float = 1.0

    def __post_init__(self):
        _check_chance(self)
        _check_range(self, "low, high", (self.low, self.high), least=1.0)
        _check_range(self, "slope", self.slope, least=6.0)
        if any(value % 6 for value in self.slope):
            name = type(self).__name__
            raise ValueError(f"{name}: slope is {self.slope}; wanted multiples of 6 dB per octave.")

    def gain(
        self, frequency: Float[Array, " F"], batch: int, key: PRNGKeyArray
    ) -> Float[Array, "B F"]:
        """Return what each clip's frequencies are multiplied by; 1 where a clip is left alone."""
        acts, edge, slope, width = jax.random.split(key, 4)
        edges = (_mel(self.low), _mel(self.high))
        drawn = jax.random.uniform(edge, (batch, 1), minval=edges[0], maxval=edges[1])
        order = jax.random.randint(slope, (batch, 1), self.slope[0] // 6, self.slope[1] // 6 + 1)
        ratio = self.ratio(frequency[None], 700 * jnp.expm1(drawn / 1127), width)
        gain = jax.lax.rsqrt(1 + jnp.minimum(ratio, 1e4) ** (2 * order))
        return jnp.where(jax.random.bernoulli(acts, self.chance, (batch, 1)), gain, 1)

    @abc.abstractmethod
    def ratio(
        self, frequency: Float[Array, "1 F"], edge: Float[Array, "B 1"], key: PRNGKeyArray
    ) -> Float[Array, "B F"]:
        """Return a frequency over the cut-off as seen from the band that passes: 1 at the edge."""


@dataclasses.dataclass(frozen=True)
class HighPass(Band):
    """Weaken what lies below the cut-off; see `Band`."""

    low: float = 20.0
    high: float = 2400.0

    def ratio(self, frequency, edge, key):  # noqa: D102
        del key
        return edge / jnp.maximum(frequency, 1e-3)


@dataclasses.dataclass(frozen=True)
class LowPass(Band):
    """Weaken what lies above the cut-off; see `Band`."""

    low: float = 150.0
    high: float = 7500.0

    def ratio(self, frequency, edge, key):  # noqa: D102
        del key
        return frequency / edge


@dataclasses.dataclass(frozen=True)
class BandPass(Band):
    """Weaken what lies outside a band; see `Band`.

    Attributes:
      width: of the band, as a share of its centre, uniform between two numbers; below 2.
    """

    low: float = 200.0
    high: float = 4000.0
    width: tuple[float, float] = (0.5, 1.99)

    def __post_init__(self):
        super().__post_init__()
        _check_range(self, "width", self.width, least=0.01, most=1.999)

    def ratio(self, frequency, edge, key):  # noqa: D102
        share = jax.random.uniform(key, edge.shape, minval=self.width[0], maxval=self.width[1])
        # Both edges, whose geometric mean is the middle of a Butterworth filter.
        product, width = edge**2 * (1 - share**2 / 4), edge * share
        frequency = jnp.maximum(frequency, 1e-3)
        return jnp.abs(frequency**2 - product) / (frequency * width)


@dataclasses.dataclass(frozen=True)
class BandStop(BandPass):
    """Weaken what lies inside a band; see `BandPass`."""

    def ratio(self, frequency, edge, key):  # noqa: D102
        return 1 / jnp.maximum(super().ratio(frequency, edge, key), 1e-4)


@dataclasses.dataclass(frozen=True)
class Filters:
    """Filter clips without a shift of phase, all filters in one pair of Fourier transforms.

    Attributes:
      members: the filters.
      rate: sampling rate, Hz.
    """

    members: tuple[Band, ...]
    rate: int = 16_000

    def __post_init__(self):
        if not self.members or self.rate <= 0:
            raise ValueError(
                f"Filters: {len(self.members)} members, rate={self.rate}; wanted at least one, and a "
                "rate above 0."
            )

    def __call__(self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray) -> Wave:
        """Return the filtered clips; samples from `length` on become 0."""
        batch, samples = audio.shape
        gain = jnp.ones((batch, 1))
        for member, own in zip(self.members, jax.random.split(key, len(self.members)), strict=True):
            gain = gain * member.gain(_lines(samples, self.rate), batch, own)
        inside = before(length, samples)
        return jnp.where(inside, _filtered(jnp.where(inside, audio, 0), gain), 0)


def _lines(samples: int, rate: int) -> Float[Array, " F"]:
    """Return the frequencies that `_filtered` takes gains of, Hz."""
    return jnp.asarray(np.fft.rfftfreq(_size(samples), 1 / rate), jnp.float32)


def _filtered(audio: Wave, gain: Float[Array, "B F"]) -> Wave:
    """Multiply the spectrum of each clip; silence put behind it keeps its end from reaching its beginning."""
    samples = audio.shape[1]
    spectrum = jnp.fft.rfft(audio, _size(samples)) * gain
    return jnp.fft.irfft(spectrum, _size(samples))[:, :samples].astype(audio.dtype)


def _size(samples: int) -> int:
    """Return a number of samples whose transform is fast: even, of small factors, at least 1024 more."""
    size = samples + 1024
    while True:
        size += size % 2
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 2


def _mel(frequency: float) -> float:
    return 1127 * math.log1p(frequency / 700)


def _check_chance(augment: Any) -> None:
    if not 0 <= augment.chance <= 1:
        name = type(augment).__name__
        raise ValueError(f"{name}: chance is {augment.chance:g}; wanted 0 to 1.")


def _check_range(
    augment: Any, name: str, pair: tuple, least: float = -math.inf, most: float = math.inf
) -> None:
    if len(pair) != 2 or not least <= pair[0] <= pair[1] <= most:
        allowed = f"{least:g} <= low <= high" if least > -math.inf else "low <= high"
        allowed += f" <= {most:g}" if most < math.inf else ""
        raise ValueError(f"{type(augment).__name__}: {name}: got {pair}, wanted {allowed}.")
