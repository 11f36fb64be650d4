"""The entry of recordings with annotated events: a clip, and in which of its frames each class is heard."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ssl_audio.data.entries import Arrays, Audio, Shape
from ssl_audio.data.source import Example


@dataclass(frozen=True)
class Events(Audio):
    """`audio` and `length`, `events` float32 [T, C] and `heard` float32 [T].

    `events` is how much of each frame a class is heard in, 0 to 1; `heard` is 1 for frames whose centre is
    sound, 0 for those of the padding. Frames are those of the model, so that it can be compared with them
    one by one: see `Encoder.frame_grid`. Where the clip is cut, and how fast it is played, the events go
    along. Mixtures (mixup) have the events of both, as much as of their sound.

    With `weak`, clips whose `label` says what is somewhere in them, and clips of which nothing is known, go
    along too: `heard` is 0 in all of their frames. Then there are also `tags` float32 [C], which classes
    are in a clip, and `tagged` float32 [], 0 where nobody has said. What is cut off a clip with a label
    keeps its label: let crops be as long as these clips.

    Attributes:
      frames: T.
      hop: samples from one frame to the next; each reaches half of it to both sides of its centre.
      centre: of the first frame, samples.
      classes: C.
      names: of the classes, in the order of their numbers; none: those of the sources.
    """

    frames: int = field(kw_only=True)
    hop: int = field(kw_only=True)
    centre: float = field(kw_only=True)
    classes: int = field(kw_only=True)
    names: tuple[str, ...] = ()
    weak: bool = False

    def __post_init__(self):
        super().__post_init__()
        for name in ("frames", "hop", "classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        if self.names and len(self.names) != self.classes:
            raise ValueError(f"names: wanted one per class, {self.classes}; got {len(self.names)}")
        if self.fill != "zeros":
            raise ValueError(
                f"fill: got {self.fill!r}; short recordings with events are padded: 'zeros'."
            )

    @property
    def of_several(self) -> bool:  # noqa: D102
        return False

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        single = np.dtype(np.float32)
        more = {
            "events": ((self.frames, self.classes), single),
            "heard": ((self.frames,), single),
        }
        if self.weak:
            more |= {"tags": ((self.classes,), single), "tagged": ((), single)}
        return {**super().spec(), **more}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        arrays, start, speed = self.cut(example, rng)
        events = example.get("events")
        if events is None and not self.weak:
            raise ValueError(
                f"clip {example['id']}: nothing says which events it has; wanted a source of recordings "
                "with events: annotated:Recordings, or scenes; or weak=True, for labels of whole clips."
            )
        centres = self.centre + self.hop * np.arange(self.frames)
        heard = (centres < arrays["length"]).astype(np.float32)
        shares = self._shares(events or (), example, start, speed)
        if not self.weak:
            return {**arrays, "events": shares, "heard": heard}
        if events is not None:
            tags, tagged = np.max(shares * heard[:, None], axis=0) > 0, True
        else:
            heard = np.zeros_like(heard)
            tags, tagged = self._tags(example)
        weak = {"tags": tags.astype(np.float32), "tagged": np.array(tagged, np.float32)}
        return {**arrays, "events": shares, "heard": heard, **weak}

    def mix(self, first: Arrays, second: Arrays, share: float) -> Arrays:  # noqa: D102
        # Both begin with their clips, so their frames are the same; the first says where the sound ends.
        events = share * first["events"] + (1 - share) * second["events"]
        mixed = super().mix(first, second, share)
        heard = first["heard"]
        if self.weak:
            # Of a mixture is known what is known of both.
            heard = heard * np.max(second["heard"])
            tags = share * first["tags"] + (1 - share) * second["tags"]
            mixed = {**mixed, "tags": tags, "tagged": first["tagged"] * second["tagged"]}
            mixed["tags"] = mixed["tags"].astype(np.float32)
        events = (events * heard[:, None]).astype(np.float32)
        return {**mixed, "events": events, "heard": heard.astype(np.float32)}

    def _tags(self, example: Example) -> tuple[np.ndarray, bool]:
        """Return which classes the label of a clip names [C], and whether it has one."""
        label = example.get("label")
        tags = np.zeros(self.classes, bool)
        if label is None:
            return tags, False
        numbers = list(label) if isinstance(label, tuple) else [label]
        if numbers and not 0 <= min(numbers) <= max(numbers) < self.classes:
            raise ValueError(
                f"clip {example['id']}: its label is {label}, with classes={self.classes}"
            )
        tags[numbers] = True
        return tags, True

    def _shares(self, events, example: Example, start: int, speed: float) -> np.ndarray:
        """Return [T, C] of events [(start, end, class)], s in the example, none of a class over another."""
        found = np.zeros((self.frames, self.classes), np.float64)
        if len(events):
            some = np.asarray(events, np.float64)
            number = some[:, 2].astype(int)
            if number.min() < 0 or number.max() >= self.classes:
                raise ValueError(
                    f"clip {example['id']}: an event is of class {number.max()}, with classes={self.classes}"
                )
            first = self.centre - self.hop / 2
            # In frames from the first one's begin.
            spans = (some[:, :2] * example["rate"] / speed - start - first) / self.hop
            near = (spans[:, 1] > 0) & (spans[:, 0] < self.frames)
            frames = np.arange(self.frames)[:, None]
            share = self.share(spans[near, 0], spans[near, 1], frames)
            np.add.at(found.T, number[near], share.T)
        return np.minimum(found, 1).astype(np.float32)

    def share(self, first: np.ndarray, last: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Return how much of each frame [T, 1], lies from `first` to `last` [E], in frames."""
        return np.maximum(np.minimum(last, frames + 1) - np.maximum(first, frames), 0)
