"""Clips whose speed or pitch alone is changed, on the host, and the entry that holds them; other changes too.

Each draw depends on the seed and the clip's place in the stream, so a run that goes on hears what it would
have heard. What an accelerator can do is in `frontend/waves.py`.
"""

import abc
import functools
import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssl_audio.data.entries import Arrays, Audio, Entry, Shape
from ssl_audio.data.source import Example

SECOND = "_second"  # ending of the names of a second view's arrays
_SHORTEST = 64  # samples; shorter sounds have no pitch, and stay as they are
_WINDOW = 2048  # samples of the transform, as in librosa
_GLOBAL = threading.Lock()  # of the generators that all threads of a process share


class Change(abc.ABC):
    """A random change of a waveform; subclasses are frozen dataclasses."""

    @abc.abstractmethod
    def __call__(self, audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        """Return other audio, float32 [S], of any length.

        Args:
          audio: float32 [S].
          rate: Hz.
          rng: the only source of randomness.
        """


@dataclass(frozen=True)
class Stretch(Change):
    """Play a sound faster at the same pitch and level, by librosa's phase vocoder.

    It costs some 100 ms for 10 s of sound.

    Attributes:
      low, high: how many times as fast, uniform.
      chance: share of the clips that are changed.
    """

    low: float = 0.7
    high: float = 1.3
    chance: float = 1.0

    def __post_init__(self):
        _check(self, least=0.1, most=10.0)

    def __call__(self, audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        del rate
        acts, speed = rng.random() < self.chance, rng.uniform(self.low, self.high)
        if not acts or len(audio) < _SHORTEST:
            return audio
        import librosa

        with np.errstate(invalid="ignore"):  # of librosa 1.0's buffers, not of the sound
            made = librosa.effects.time_stretch(audio, rate=speed, n_fft=_window(audio))
        return _levelled(made, audio)


@dataclass(frozen=True)
class Pitch(Change):
    """Move a sound up or down at the same speed and level, by librosa's phase vocoder and soxr.

    Attributes:
      low, high: semitones, uniform.
      chance: share of the clips that are changed.
    """

    low: float = -4.0
    high: float = 4.0
    chance: float = 1.0

    def __post_init__(self):
        _check(self, least=-24.0, most=24.0)

    def __call__(self, audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        acts, steps = rng.random() < self.chance, rng.uniform(self.low, self.high)
        if not acts or len(audio) < _SHORTEST:
            return audio
        import librosa

        with np.errstate(invalid="ignore"):  # as above
            made = librosa.effects.pitch_shift(
                audio, sr=rate, n_steps=steps, n_fft=_window(audio), res_type="soxr_hq"
            )
        return _levelled(made, audio)


@dataclass(frozen=True)
class Audiomentations(Change):
    """A transform of the library audiomentations, which must be installed (extra `audiomentations`).

    It draws from the generators of `random` and NumPy that all threads share. They are seeded anew for each
    clip, and put back, while no other thread is let in: results can be repeated, and threads wait.

    Attributes:
      transform: name of the class, as "TanhDistortion".
      options: its arguments; its own `p`, 0.5 if not given, is the share of the clips that are changed.
    """

    transform: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not self.transform.isidentifier() or self.transform.startswith("_"):
            raise ValueError(
                f"Audiomentations: transform is {self.transform!r}; wanted that of a transform."
            )

    def __call__(self, audio: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
        """Return other audio, float32 [S].

        Raises:
          ValueError: the transform returns anything but finite float32 samples of one channel.
        """
        seed = int(rng.integers(2**32))
        with _GLOBAL:
            before = random.getstate(), np.random.get_state()  # noqa: NPY002
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            try:
                # A copy: some transforms return, or write into, what they were given.
                made = self._built(np.array(audio, np.float32), sample_rate=rate)
            finally:
                random.setstate(before[0])
                np.random.set_state(before[1])  # noqa: NPY002
        fits = isinstance(made, np.ndarray) and made.dtype == np.float32 and made.ndim == 1
        if not fits or not len(made) or not np.isfinite(made).all():
            what = f"{getattr(made, 'dtype', type(made).__name__)} {np.shape(made)}"
            raise ValueError(
                f"audiomentations.{self.transform}: got {what} for {len(audio)} samples of sound; wanted "
                "finite float32 samples of one channel: leave this transform out, or change its options."
            )
        return made

    @functools.cached_property
    def _built(self) -> Any:
        try:
            import audiomentations
        except ImportError:
            raise ValueError(
                f"Audiomentations: {self.transform} needs the library: pip install "
                "'ssl_audio[audiomentations]'."
            ) from None
        found = getattr(audiomentations, self.transform, None)
        if not (
            isinstance(found, type) and issubclass(found, audiomentations.BaseWaveformTransform)
        ):
            raise ValueError(
                f"audiomentations {audiomentations.__version__}: no transform of waveforms "
                f"{self.transform!r}."
            )
        try:
            return found(**self.options)
        except (AssertionError, TypeError, ValueError) as error:
            raise ValueError(
                f"audiomentations.{self.transform}({self.options}): {error}"
            ) from error


@dataclass(frozen=True)
class Altered(Audio):
    """`audio` and `length` of changed clips; with two views also `audio_second` and `length_second`.

    The clip is cut first, so that both views are of the same sound, and costs do not depend on the length of
    the recording. What becomes longer is cut at its end, what becomes shorter is padded with zeros.

    Attributes:
      changes: one after the other, drawn anew for each view.
      views: 1 or 2.
    """

    changes: tuple[Change, ...] = ()
    views: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.views not in (1, 2):
            raise ValueError(f"views: wanted 1 or 2, got {self.views}")

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        spec = super().spec()
        second = {f"{name}{SECOND}": array for name, array in spec.items()}
        return {**spec, **(second if self.views == 2 else {})}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        cut = super().draw(example, rng)
        sound = cut["audio"][: int(cut["length"])]
        arrays: dict[str, Any] = {}
        for ending in ("", SECOND)[: self.views]:
            audio = sound
            for change in self.changes:
                audio = change(audio, int(example["rate"]), rng)
            audio = np.asarray(audio[: self.samples], np.float32)
            padded = np.pad(audio, (0, self.samples - len(audio)))
            arrays |= {f"audio{ending}": padded, f"length{ending}": np.int32(len(audio))}
        return arrays

    def mix(self, first: Arrays, second: Arrays, share: float) -> Arrays:  # noqa: D102
        if self.views == 2:
            return Entry.mix(self, first, second, share)  # refuses
        return super().mix(first, second, share)

    def check_mix(self) -> None:  # noqa: D102
        if self.views == 2:
            self.mix({}, {}, 1.0)


def _window(audio: np.ndarray) -> int:
    """Return the samples of the transform: fewer for sounds that are shorter."""
    return min(_WINDOW, 1 << (len(audio).bit_length() - 1))


def _levelled(made: np.ndarray, audio: np.ndarray) -> np.ndarray:
    """Return a sound [T] at the RMS of another [S]; silence stays.

    A phase vocoder (librosa 0.11 and 1.0) lets the bins of one partial get out of step, by what the first
    frames hold: noise comes out up to 4 dB softer, a tone after a faint pause anything up to 14 dB.
    """
    now, wanted = (np.sqrt(np.mean(np.square(x, dtype=np.float64))) for x in (made, audio))
    return made * np.float32(wanted / now) if now > 0 else made


def _check(change: Any, least: float, most: float) -> None:
    name = type(change).__name__
    if not least <= change.low <= change.high <= most:
        raise ValueError(
            f"{name}: low={change.low:g}, high={change.high:g}; wanted {least:g} <= low <= high <= {most:g}."
        )
    if not 0 <= change.chance <= 1:
        raise ValueError(f"{name}: chance is {change.chance:g}; wanted 0 to 1.")
