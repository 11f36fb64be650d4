"""The entry of recordings with annotated events that are asked for in words (FineLAP, arXiv:2604.01155)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ssl_audio.data.entries import Arrays, Shape
from ssl_audio.data.event_entries import Events
from ssl_audio.data.source import Example
from ssl_audio.data.text import Text


@dataclass(frozen=True)
class Phrases(Events):
    """`audio`, `length`, `heard` as of `Events`, and phrases of which some are heard.

    `phrases` int32 [P, W] and `phrases_length` int32 [P] are the words of P different classes: first those
    that are heard in the clip, then others drawn at random. `active` float32 [T, P] is 1 in the frames whose
    centre lies in an event of the class. Of clips without events nothing is known: `heard` is 0 in them.

    Attributes:
      phrases: P, up to the number of classes.
      text: how words become numbers.
      templates: with "{}" for the name of a class; one is drawn for each phrase.
    """

    phrases: int = field(kw_only=True)
    text: Text = field(kw_only=True)
    templates: tuple[str, ...] = ("{}",)

    def __post_init__(self):
        super().__post_init__()
        if not self.names or not 1 <= self.phrases <= self.classes:
            raise ValueError(
                f"names, phrases: got {len(self.names)} names and phrases={self.phrases}; wanted the "
                f"names of the {self.classes} classes, and 1 to {self.classes} phrases of a clip."
            )
        if not self.templates or any("{}" not in t for t in self.templates):
            raise ValueError(f"templates: each needs a {{}}, got {self.templates}.")
        if self.weak:
            raise ValueError("weak: captions say what is in a clip; leave it False.")

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        found = dict(super().spec())
        del found["events"]
        whole = np.dtype(np.int32)
        shape = (self.phrases, self.text.length)
        return found | {
            "phrases": (shape, whole),
            "phrases_length": (shape[:1], whole),
            "active": ((self.frames, self.phrases), np.dtype(np.float32)),
        }

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        arrays = dict(super().draw({**example, "events": example.get("events") or ()}, rng))
        if example.get("events") is None:
            arrays["heard"] = np.zeros_like(arrays["heard"])
        active = arrays.pop("events") * arrays["heard"][:, None]
        order = rng.permutation(self.classes)
        there = active.any(0)[order]
        chosen = np.concatenate([order[there], order[~there]])[: self.phrases]
        said = [self.templates[int(rng.integers(len(self.templates)))] for _ in chosen]
        plain = [self.names[n].replace("_", " ") for n in chosen]
        ids, lengths = self.text.encode(
            [t.replace("{}", n) for t, n in zip(said, plain, strict=True)]
        )
        return {**arrays, "phrases": ids, "phrases_length": lengths, "active": active[:, chosen]}

    def mix(self, first: Arrays, second: Arrays, share: float) -> Arrays:
        """Raise ValueError: two clips are asked for different phrases."""
        raise ValueError("mixup: phrases cannot be mixed; leave mixup 0.")

    def check_mix(self) -> None:  # noqa: D102
        self.mix({}, {}, 1.0)

    def share(self, first: np.ndarray, last: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Return 1 where the centre of a frame lies in an event, else 0."""
        return ((first <= frames + 0.5) & (frames + 0.5 < last)).astype(np.float64)
