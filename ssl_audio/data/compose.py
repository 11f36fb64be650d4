"""Clips made of two events, and captions that say how: what teaches a model about time (TeminAL).

Called by `pipeline.py`. Each composer gives {"": example} or, with `reversal`, also {"_reversed":
the same events the other way round}; examples have `audio`, `text` and `id`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ssl_audio.data.captions import listed
from ssl_audio.data.source import Example

RELATIONS = ("before", "after", "while")

More = Callable[[], Example]
_TRIES = 20
_QUIET = -25.0  # dB of full scale


@dataclass(frozen=True)
class Several:
    """One event, or two with "and": joined or at the same time (TeminAL A, arXiv:2408.09269).

    Attributes:
      rate: Hz.
      single: probability of one event only.
      overlay: probability that two are at the same time.
      gap: longest silence between joined events, s.
    """

    rate: int = 16_000
    single: float = 0.5
    overlay: float = 0.5
    gap: float = 0.1

    reversal = False

    def __call__(
        self, example: Example, more: More, rng: np.random.Generator
    ) -> Mapping[str, Example]:
        """Return one clip and its caption."""
        if rng.random() < self.single:
            return {"": {**example, "text": named(example)}}
        other = another(example, more)
        first, second = example["audio"], other["audio"]
        if rng.random() < self.overlay:
            audio = overlaid(first, second)
        else:
            audio = joined(first, second, round(self.rate * rng.uniform(0, self.gap)))
        return {"": {**example, "audio": audio, "text": f"{named(example)} and {named(other)}"}}


@dataclass(frozen=True)
class Ordered:
    """Two events one after the other, and the reversal of both sound and words (TeminAL B).

    "u before v" (or "v after u") comes with "v before u". Of "while", the two at once, the reversal is
    "u before v", one after the other: our choice, for the paper does not say.

    Attributes:
      rate: Hz.
      relations: words to draw from.
      gap: longest silence between joined events, s.
    """

    rate: int = 16_000
    relations: tuple[str, ...] = ("before", "after")
    gap: float = 0.1

    reversal = True

    def __post_init__(self):
        if not self.relations or not set(self.relations) <= set(RELATIONS):
            raise ValueError(f"relations: got {self.relations}, wanted some of {RELATIONS}.")

    def __call__(
        self, example: Example, more: More, rng: np.random.Generator
    ) -> Mapping[str, Example]:
        """Return a clip and its reversal with their captions."""
        other = another(example, more)
        relation = self.relations[int(rng.integers(len(self.relations)))]
        silence = round(self.rate * rng.uniform(0, self.gap))
        u, v = named(example), named(other)
        ahead = joined(example["audio"], other["audio"], silence)
        back = joined(other["audio"], example["audio"], silence)
        if relation == RELATIONS[2]:
            pairs = [(overlaid(example["audio"], other["audio"]), f"{u} while {v}")]
            pairs += [(ahead, f"{u} before {v}")]
        elif relation == RELATIONS[1]:
            pairs = [(ahead, f"{v} after {u}"), (back, f"{u} after {v}")]
        else:
            pairs = [(ahead, f"{u} before {v}"), (back, f"{v} before {u}")]
        return {
            suffix: {**example, "audio": audio, "text": text}
            for suffix, (audio, text) in zip(("", "_reversed"), pairs, strict=True)
        }


@dataclass(frozen=True)
class Mixed:
    """Two clips at once, their captions one after the other (AudioGen, arXiv:2209.15352, its released code).

    Both get a peak of 1 and then one loudness; the second, some whole dB louder or softer, begins in
    the first half of the first and ends with it at the latest. The sum gets a random loudness, and a peak
    below 1.

    Attributes:
      rate: Hz.
      share: probability of a mixture.
      snr: least and most (not reached) dB by which the first is louder than the second.
      level: least and most root mean square of the sum, dB of full scale.
    """

    rate: int = 16_000
    share: float = 0.5
    snr: tuple[int, int] = (-5, 5)
    level: tuple[float, float] = (-35.0, -15.0)

    reversal = False

    def __post_init__(self):
        if not 0 <= self.share <= 1:
            raise ValueError(f"share: wanted 0 to 1, got {self.share:g}.")
        if self.snr[0] >= self.snr[1] or self.level[0] > self.level[1]:
            raise ValueError(f"snr, level: wanted (least, most), got {self.snr}, {self.level}.")

    def __call__(
        self, example: Example, more: More, rng: np.random.Generator
    ) -> Mapping[str, Example]:
        """Return one clip, as it is or mixed with another."""
        if rng.random() >= self.share:
            return {"": example}
        other = more()
        audio = self.mixture(example["audio"], other["audio"], rng)
        found = {**example, "audio": audio, "text": f"{_said(example, rng)} {_said(other, rng)}"}
        if example.get("names"):
            found["names"] = (*example["names"], *other.get("names", ()))
        return {"": found}

    def mixture(
        self, first: np.ndarray, second: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return the sum of two sounds [S], as long as the first."""
        start = int(rng.integers(len(first) // 2 + 1))
        softer = int(rng.integers(*self.snr))
        mixed = _loud(first, _QUIET).copy()
        part = _loud(second, _QUIET - softer)[: len(first) - start]
        mixed[start : start + len(part)] += part
        mixed = _loud(mixed, float(rng.uniform(*self.level)))
        peak = float(np.max(np.abs(mixed), initial=0.0))
        return mixed * np.float32(0.99 / peak) if peak > 1 else mixed


def joined(first: np.ndarray, second: np.ndarray, silence: int) -> np.ndarray:
    """Return one sound [S] after the other, with so many samples of silence between."""
    return np.concatenate([first, np.zeros(silence, np.float32), second])


def overlaid(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return two sounds [S] at the same time, both as loud as the louder one, at half amplitude."""
    power = [float(np.sqrt(np.mean(sound**2))) + 1e-9 for sound in (first, second)]
    mixed = np.zeros(max(len(first), len(second)), np.float32)
    for sound, own in zip((first, second), power, strict=True):
        mixed[: len(sound)] += sound * min(max(power) / own, 10.0)
    return mixed / 2


def named(example: Example) -> str:
    """Return an event in words: the names of its labels, or its caption.

    Raises:
      ValueError: it has neither.
    """
    if names := example.get("names"):
        return listed(names)
    if isinstance(text := example.get("text"), str):
        return text
    raise ValueError(f"clip {example['id']} has neither a label nor one caption to be named by.")


def another(example: Example, more: More) -> Example:
    """Return a clip with another name.

    Raises:
      ValueError: all that were drawn have the same.
    """
    for _ in range(_TRIES):
        other = more()
        if named(other) != named(example):
            return other
    raise ValueError(f"compose: {_TRIES} clips drawn are all named {named(example)!r}.")


def _said(example: Example, rng: np.random.Generator) -> str:
    """Return one of a clip's captions, or the names of its labels."""
    text = example.get("text")
    if isinstance(text, (list, tuple)) and text:
        return text[int(rng.integers(len(text)))]
    return text if isinstance(text, str) and text else named(example)


def _loud(sound: np.ndarray, level: float) -> np.ndarray:
    """Return a sound with a root mean square of so many dB of full scale; silence as it is."""
    peak = float(np.max(np.abs(sound), initial=0.0))
    if not peak:
        return sound
    scaled = sound / np.float32(peak)  # first, for squares of faint sound are nothing
    power = float(np.sqrt(np.mean(np.square(scaled, dtype=np.float64))))
    return (scaled * np.float32(10 ** (level / 20) / power)).astype(np.float32)
