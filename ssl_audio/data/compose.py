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
