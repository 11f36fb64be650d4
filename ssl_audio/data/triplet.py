"""Triplets of clips as an entry of a batch: beside the anchor's sound, a positive's and some negatives'.

From columns of a table (preferences of listeners), or from labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ssl_audio.data.beside_files import every
from ssl_audio.data.decode import decode
from ssl_audio.data.entries import Arrays, Audio, Entry, Shape
from ssl_audio.data.source import Example

BY = ("columns", "labels")
TRIES = 200  # clips drawn until one has, or has not, the anchor's label


@dataclass(frozen=True)
class Triplet(Entry):
    """`audio_positive` [S], `length_positive`, `audio_negative` [J, S] and `length_negative` [J].

    Beside the entry `Audio` of the anchor. The names of negatives are those that `objectives/contrastive.py`
    takes for further examples that nobody belongs to.

    Attributes:
      audio: how each of the clips is cut and filled.
      by: "columns": `positive` and `negative` of the source's table, files (several separated by ";") of
        which one is drawn; "labels": a clip that shares a label with the anchor, clips that share none.
      negatives: J, drawn with replacement.
      root: what the files are relative to; "": the folder of the source.
    """

    audio: Audio
    by: str = "columns"
    negatives: int = 1
    root: str = ""

    def __post_init__(self):
        if self.by not in BY:
            raise ValueError(f"by: got {self.by!r}, wanted one of {BY}")
        if self.negatives < 1:
            raise ValueError(f"negatives: wanted at least 1, got {self.negatives}")

    @property
    def columns(self) -> tuple[str, ...]:  # noqa: D102
        return (*super().columns, *(("positive", "negative") if self.by == "columns" else ()))

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        one = self.audio.spec()
        several = {k: ((self.negatives, *shape), kind) for k, (shape, kind) in one.items()}
        found = {f"{name}_positive": value for name, value in one.items()}
        return found | {f"{name}_negative": value for name, value in several.items()}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        clip = self._from_columns if self.by == "columns" else self._from_labels
        positive = self.audio.draw(clip(example, True, rng), rng)
        others = [self.audio.draw(clip(example, False, rng), rng) for _ in range(self.negatives)]
        found = {f"{name}_positive": value for name, value in positive.items()}
        return found | {
            f"{name}_negative": np.stack([o[name] for o in others]) for name in positive
        }

    def _from_columns(self, example: Example, same: bool, rng: np.random.Generator) -> Example:
        files = every(example, "positive" if same else "negative", self.root)
        path = files[int(rng.integers(len(files)))]
        return {
            **example,
            "audio": decode(path, example["rate"], channels=example.get("channels", "average")),
        }

    def _from_labels(self, example: Example, same: bool, rng: np.random.Generator) -> Example:
        del rng  # `more` has it
        own = _labels(example)
        for _ in range(TRIES):
            other = example["more"]()
            if other["id"] != example["id"] and bool(own & _labels(other)) == same:
                return {**other, "more": example["more"]}
        wanted = "another clip with its label" if same else "a clip without its label"
        raise ValueError(f"clip {example['id']}: {wanted} was not among {TRIES} drawn clips")


def _labels(example: Example) -> set[int]:
    label = example.get("label")
    if label is None:
        raise ValueError(f"clip {example['id']}: no label; triplets by labels need one")
    return set(label) if isinstance(label, tuple) else {label}
