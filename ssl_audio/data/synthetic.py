"""Synthetic sounds, computed when they are read: tests and the demo need no download.

Half of the classes have a counterpart reversed in time (rising, falling), with the same mean spectrum:
to separate them a model must use how a sound changes.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ssl_audio.data.source import Example, SourceInfo


@dataclass(frozen=True)
class Synthetic:
    """`size` clips of `seconds` at `rate` Hz; a clip depends on its number and `seed` alone.

    Pitch, tempo, level, onset, length and background noise are random. The classes take turns, and
    each of the folds 1 to 5 holds all of them.
    """

    size: int = 1200  # before `folds`
    seconds: float = 2.0
    rate: int = 16_000  # Hz
    seed: int = 0
    folds: tuple[int, ...] = ()  # keep these folds only

    def __post_init__(self):
        if self.size < 1 or self.seconds <= 0 or self.rate < 8000 or self.seed < 0:
            raise ValueError(
                "Synthetic: wanted size >= 1, seconds > 0, rate >= 8000 and seed >= 0, got "
                f"size={self.size}, seconds={self.seconds}, rate={self.rate}, seed={self.seed}"
            )
        if not len(self._numbers):
            raise ValueError(f"Synthetic.folds: no clip of {self.size} is in {self.folds}")

    @property
    def info(self) -> SourceInfo:
        """Return the names of the classes."""
        return SourceInfo("synthetic", tuple(SOUNDS), licence="CC0 1.0")

    def __len__(self) -> int:
        return len(self._numbers)

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio."""
        number = self._numbers[i]
        return {
            "rate": self.rate,
            "id": f"synthetic-{self.seed}-{number:06d}",
            "label": number % len(SOUNDS),
            "fold": _fold(number),
        }

    def __getitem__(self, i: int) -> Example:
        number = self._numbers[i]
        rng = np.random.default_rng((self.seed, number))
        sound = list(SOUNDS.values())[number % len(SOUNDS)]
        samples = max(1, round(self.seconds * self.rate))
        length = max(1, int(samples * rng.uniform(0.6, 1.0)))
        wave = sound(rng, np.arange(length) / self.rate, self.rate)
        wave = wave * np.minimum(1.0, np.minimum(np.arange(1, length + 1), length) / 80)
        audio = noise(rng, samples, self.rate, slope=rng.uniform(0.0, 1.0))
        audio *= 10 ** (rng.uniform(-40.0, -10.0) / 20)  # dB below the sound
        start = int(rng.integers(samples - length + 1))
        audio[start : start + length] += wave / (np.sqrt(np.mean(wave**2)) + 1e-9)
        audio *= 10 ** (rng.uniform(-12.0, 0.0) / 20) / np.abs(audio).max()
        return {"audio": audio.astype(np.float32), **self.meta(i)}

    @functools.cached_property
    def _numbers(self) -> list[int]:
        return [n for n in range(self.size) if not self.folds or _fold(n) in self.folds]


def _fold(number: int) -> int:
    return number // len(SOUNDS) % 5 + 1


# Every sound takes (rng, t, rate): seconds t [S] from its own onset, and the sampling rate in Hz.


def _tone(frequency: np.ndarray, rate: int, partials: int = 1) -> np.ndarray:
    """Return a tone of varying frequency [S] (Hz) with `partials` overtones falling by 1/n."""
    phase = 2 * np.pi * np.cumsum(frequency) / rate
    phase = np.mod(phase, 2 * np.pi).astype(np.float32)
    partials = min(partials, max(1, int(0.45 * rate / frequency.max())))
    return np.sum([np.sin(phase * n) / n for n in range(1, partials + 1)], axis=0)


def noise(
    rng: np.random.Generator, length: int, rate: int, slope: float = 0.0, band=None
) -> np.ndarray:
    """Return noise [S] of unit power: amplitude as frequency^-slope, or in a band (Hz)."""
    size = 1 << max(1, (length - 1).bit_length())
    frequency = np.fft.rfftfreq(size, 1 / rate)
    shape = np.maximum(frequency, 20.0) ** -slope
    if band is not None:
        shape = np.exp(-0.5 * ((frequency - np.mean(band)) / (band[1] - band[0])) ** 2)
    spectrum = rng.standard_normal((2, len(frequency)), np.float32)
    wave = np.fft.irfft((spectrum[0] + 1j * spectrum[1]) * shape, size)[:length]
    return wave / (np.sqrt(np.mean(wave**2)) + 1e-9)


def _pitch(rng: np.random.Generator, low: float = 200.0, high: float = 900.0) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _glide(rng: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    octaves = rng.uniform(0.8, 2.0)
    course = np.linspace(0.0, octaves, len(t)) ** rng.uniform(0.7, 1.4)
    return _tone(_pitch(rng) * 2.0**course, rate, int(rng.integers(1, 4)))


def _vowel(rng: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    """Glide the first two formants from a close front vowel to an open one."""
    course = np.linspace(0.0, 1.0, len(t))
    pitch = _pitch(rng, 90, 220) * (1 + 0.02 * np.sin(2 * np.pi * rng.uniform(4, 6) * t))
    phase = np.mod(2 * np.pi * np.cumsum(pitch) / rate, 2 * np.pi).astype(np.float32)
    size = rng.uniform(0.85, 1.2)  # of the vocal tract
    pitch, course = pitch.astype(np.float32), course.astype(np.float32)
    first, second = size * (300 + 500 * course), size * (2300 - 1100 * course)
    wave = np.zeros(len(t), np.float32)
    for n in range(1, min(20, int(0.45 * rate / pitch.max()))):
        centre = n * pitch
        wave += np.sin(phase * n) * (
            np.exp(-np.abs(centre - first) / 120) + 0.7 * np.exp(-np.abs(centre - second) / 180)
        )
    return wave


def _swell(rng: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    centre, width = _pitch(rng, 500, 3000), rng.uniform(200, 1500)
    hiss = noise(rng, len(t), rate, band=(centre - width / 2, centre + width / 2))
    return hiss * np.linspace(0.0, 1.0, len(t)) ** rng.uniform(1.5, 4)


def _knocks(rng: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    """Strike a damped body evenly, a few times a second."""
    into = np.mod(t, 1 / rng.uniform(4, 12)).astype(np.float32)
    body = np.sin(2 * np.pi * _pitch(rng, 150, 1200) * into)
    return np.exp(-into * rng.uniform(40, 90)) * (body + 0.3 * noise(rng, len(t), rate))


def _rain(rng: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    """Scatter drops of a few milliseconds, of any loudness."""
    drops = np.zeros(len(t), np.float32)
    drops[rng.integers(len(t), size=max(3, int(rng.uniform(25, 90) * t[-1])))] = 1.0
    drops *= rng.exponential(size=len(t))
    ring = np.exp(-np.arange(0, 0.006, 1 / rate) * rng.uniform(400, 1200))
    wash = noise(rng, len(t), rate, band=(2000, _pitch(rng, 4000, 7000)))
    return np.convolve(drops, ring)[: len(t)] * wash


def _siren(rng: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    sway = np.sin(2 * np.pi * (rng.uniform(1.0, 3.0) * t + rng.random()))
    return _tone(_pitch(rng) * 2.0 ** (0.4 * sway), rate, int(rng.integers(5, 9)))


def _tremolo(rng: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    beat = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(4.0, 12.0) * t)
    return _tone(np.full(len(t), _pitch(rng)), rate, int(rng.integers(1, 6))) * beat


def _pluck(rng: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    pitch = _pitch(rng, 150, 700)
    into = np.mod(t, rng.uniform(0.3, 0.7)).astype(np.float32)
    parts = range(1, min(10, int(0.45 * rate / pitch)))
    damping = rng.uniform(2.0, 4.0)
    wave = [np.sin(2 * np.pi * pitch * n * into) * np.exp(-damping * n * into) for n in parts]
    return np.sum(wave, axis=0)


def _bell(rng: np.random.Generator, t: np.ndarray, rate: int) -> np.ndarray:
    pitch, ratio = _pitch(rng, 500, 1200), rng.uniform(1.3, 1.8)
    fade = np.exp(-t * rng.uniform(2.0, 5.0))
    sway = rng.uniform(3.0, 7.0) * fade * np.sin(2 * np.pi * pitch * ratio * t)
    return np.sin(2 * np.pi * pitch * t + sway) * fade


def _backwards(sound: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda rng, t, rate: sound(rng, t, rate)[::-1]


SOUNDS: dict[str, Callable[..., np.ndarray]] = {
    "rising glide": _glide,
    "falling glide": _backwards(_glide),
    "opening vowel": _vowel,
    "closing vowel": _backwards(_vowel),
    "swelling noise": _swell,
    "fading noise": _backwards(_swell),
    "knocks": _knocks,
    "rain": _rain,
    "siren": _siren,
    "tremolo": _tremolo,
    "pluck": _pluck,
    "bell": _bell,
}
