"""ReMixMatch (Berthelot et al. 2020, arXiv:1911.09785), as arXiv:2102.08183 has it for sound."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.mixing import Clips, joined, mixed_match
from ssl_audio.objectives.semi_supervised import Metrics, PseudoLabels, accuracy, labels

FLIPS = 4  # of a spectrogram: none, time, frequency, both


@dataclasses.dataclass(frozen=True)
class ReMixMatch(PseudoLabels):
    """Fit mixtures as MixMatch does, of one weak and several strong views, and tell how a view was flipped.

    What the model says of the weak view is aligned with how frequent the classes are among the labels, and
    sharpened; it is the label of all views. Passes: the weak view, mixtures that clips with labels prevail
    in, the others, the first strong view by itself, and flipped.

    Attributes:
      strong: view of the clips with labels too.
      head: a copy of it with other parameters and four classes, "flips", tells how a view was flipped.
      views: strong ones of each clip without a label.
      temperature: see `losses.sharpened`.
      mixup: alpha; 0: nothing is mixed.
      history: batches that the frequencies of classes are of: of labels and of what the model says.
      weight: of the mixtures that clips without labels prevail in.
      strong_weight: of the first strong view by itself.
      flip_weight: of telling how it was flipped.
    """

    couples_examples = True

    views: int = 2
    temperature: float = 0.5
    mixup: float = 0.75
    history: int = 128
    weight: float = 1.5
    strong_weight: float = 0.5
    flip_weight: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if self.views < 1 or self.history < 1:
            raise ValueError(f"views {self.views}, history {self.history}: wanted at least 1.")
        if not hasattr(self.head, "classes"):
            raise ValueError(
                f"head: {type(self.head).__name__} has no classes, wanted one that has."
            )

    @property
    def heads(self) -> Mapping[str, Any]:
        """Heads by the name of their parameters."""
        return {"head": self.head, "flips": self.head.clone(classes=FLIPS)}

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and no frequencies yet."""
        first, second = jax.random.split(key)
        params, extra = super().init(first, batch)
        encoded = self.encode(params, extra, batch)
        flips: Any = self.heads["flips"].init(second, encoded)
        seen = jnp.zeros((self.history, self.head.classes), jnp.float32)
        rings = {"labels": seen, "guesses": seen.copy(), "batches": jnp.zeros((), jnp.int32)}
        return params | {"flips": flips["params"]}, extra | rings

    def learned(  # noqa: D102
        self, params: Params, extra: Extra, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], Metrics, Extra, Params]:
        first, weak_key, mix_key, flip_key, *keys = jax.random.split(key, 8 + self.views)
        x, label = self.clips(batch, view=self.strong, key=first), labels(batch)
        weak = self.clips(batch, "unlabelled_", self.weak, weak_key)
        strong = [self.clips(batch, "unlabelled_", self.strong, key) for key in keys[4:]]
        logits, params = self.guessed(params, weak)
        share = jax.nn.softmax(logits)
        extra = remembered(extra, jnp.mean(label, 0), jnp.mean(share, 0))
        share = losses.aligned(share, mean(extra, "labels"), mean(extra, "guesses"))
        guess = losses.sharpened(share, self.temperature)
        u, guesses = joined((weak, guess), *[(view, guess) for view in strong])
        x, label, u, guesses = mixed_match(mix_key, self.mixup, x, label, u, guesses)
        turned, how = flipped(flip_key, strong[0], batch["unlabelled_audio"].shape[1])
        logits, params = self.scored(params, x, keys[0])
        others, params = self.scored(params, u, keys[1])
        alone, params = self.scored(params, strong[0], keys[2])
        turns, params = self.scored(params, turned, keys[3], head="flips")
        parts = {
            "labelled": losses.softmax_cross_entropy(logits, label),
            "unlabelled": losses.softmax_cross_entropy(others, guesses),
            "strong": losses.softmax_cross_entropy(alone, guess),
            "flips": losses.softmax_cross_entropy(turns, how),
        }
        parts = {name: jnp.mean(value) for name, value in parts.items()}
        total = parts["labelled"] + self.weight * parts["unlabelled"]
        total += self.strong_weight * parts["strong"] + self.flip_weight * parts["flips"]
        metrics = accuracy(logits, label) | {name: (value, 1.0) for name, value in parts.items()}
        return total, metrics, extra, params


def remembered(extra: Extra, label: Float[Array, " C"], guess: Float[Array, " C"]) -> Extra:
    """Return `extra` with the mean label and guess of one more batch, in the place of the oldest."""
    row = extra["batches"] % len(extra["labels"])
    rings = {
        name: extra[name].at[row].set(new) for name, new in (("labels", label), ("guesses", guess))
    }
    return {**extra, **rings, "batches": extra["batches"] + 1}


def mean(extra: Extra, name: str) -> Float[Array, " C"]:
    """Return the mean over the batches that are remembered, of "labels" or "guesses"."""
    return jnp.sum(extra[name], 0) / jnp.minimum(extra["batches"], len(extra[name]))


def flipped(key: Array, clips: Clips, samples: int) -> tuple[Clips, Float[Array, "B flips"]]:
    """Return each clip flipped in one of four ways, all equally likely, and in which.

    Args:
      key: of the choice.
      clips: their features.
      samples: in the audio; a clip that is flipped in time has its padding in front, and counts as whole.
    """
    which = jax.random.randint(key, (len(clips.length),), 0, FLIPS)
    time, frequency = which % 2 == 1, which >= 2
    spec = jnp.where(time[:, None, None], clips.spec[:, ::-1], clips.spec)
    spec = jnp.where(frequency[:, None, None], spec[:, :, ::-1], spec)
    length = jnp.where(time, samples, clips.length)
    return Clips(spec, length), jax.nn.one_hot(which, FLIPS)
