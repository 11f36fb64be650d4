"""MixMatch (Berthelot et al. 2019, arXiv:1905.02249) with cross-entropy, as arXiv:2102.08183 has it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.mixing import joined, mixed_match
from ssl_audio.objectives.semi_supervised import Metrics, PseudoLabels, accuracy, labels
from ssl_audio.objectives.teacher import Ramp


@dataclasses.dataclass(frozen=True)
class MixMatch(PseudoLabels):
    """Fit mixtures of clips with labels and of clips whose label is what the model says of several views.

    Passes: each weak view without labels, mixtures that clips with labels prevail in, the others.

    Attributes:
      views: weak ones of each clip without a label.
      temperature: the mean of their distributions is sharpened by it.
      mixup: alpha; 0: nothing is mixed.
      weight: of the clips without labels, by the step. The original has the squared error here.
    """

    couples_examples = True

    views: int = 2
    temperature: float = 0.5
    mixup: float = 0.75
    weight: Ramp = Ramp(0.0, 1.0, 16_000)

    def __post_init__(self):
        super().__post_init__()
        if self.views < 1:
            raise ValueError(f"views: got {self.views}, wanted at least 1.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and the weight at the first step."""
        params, extra = super().init(key, batch)
        return params, extra | {"weight": self.weight(0)}

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Return `extra` with the weight at the next step."""
        del params
        return extra | {"weight": self.weight(step + 1)}

    def learned(  # noqa: D102
        self, params: Params, extra: Extra, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], Metrics, Extra, Params]:
        first, mix_key, *keys = jax.random.split(key, 4 + self.views)
        x, label = self.clips(batch, view=self.weak, key=first), labels(batch)
        views = [self.clips(batch, "unlabelled_", self.weak, key) for key in keys[2:]]
        shares = []
        for view in views:
            logits, params = self.guessed(params, view)
            shares.append(jax.nn.softmax(logits))
        guess = losses.sharpened(sum(shares[1:], shares[0]) / self.views, self.temperature)
        u, guess = joined(*[(view, guess) for view in views])
        x, label, u, guess = mixed_match(mix_key, self.mixup, x, label, u, guess)
        logits, params = self.scored(params, x, keys[0])
        others, params = self.scored(params, u, keys[1])
        value = jnp.mean(losses.softmax_cross_entropy(logits, label))
        other = jnp.mean(losses.softmax_cross_entropy(others, guess))
        metrics = {
            **accuracy(logits, label),
            "labelled": (value, 1.0),
            "unlabelled": (other, 1.0),
            "weight": (extra["weight"], 1.0),
        }
        return value + extra["weight"] * other, metrics, extra, params
