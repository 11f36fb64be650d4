"""FixMatch (Sohn et al. 2020, arXiv:2001.07685) and UDA (Xie et al. 2020, arXiv:1904.12848).

A clip that the model is sure about as it is must be the same class when it is changed strongly.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.mixing import Clips, mixup
from ssl_audio.objectives.semi_supervised import Metrics, PseudoLabels, accuracy, labels


@dataclasses.dataclass(frozen=True)
class FixMatch(PseudoLabels):
    """Fit the labels of weak views, and on strong views what the model is sure of about the weak ones.

    Passes: weak views without labels, those with labels, strong ones.

    Attributes:
      threshold: least probability of a class that is taken for the label.
      weight: of the clips without labels; the mean is over all of them, whether a label was taken or not.
      mixup: alpha of mixing those with labels and the strong views with each other, which wants equally
        many of both; 0: no mixup. Published with 0.75.
      mix_labels: labels are mixed as well; otherwise they stay those of the clips that prevail.
    """

    threshold: float = 0.95
    weight: float = 1.0
    mixup: float = 0.0
    mix_labels: bool = False

    def learned(  # noqa: D102
        self, params: Params, extra: Extra, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], Metrics, Extra, Params]:
        keys = jax.random.split(key, 7)
        x, label = self.clips(batch, view=self.weak, key=keys[0]), labels(batch)
        weak = self.clips(batch, "unlabelled_", self.weak, keys[1])
        strong = self.clips(batch, "unlabelled_", self.strong, keys[2])
        logits, params = self.guessed(params, weak)
        guess, mask = self.target(logits), losses.confident(jax.nn.softmax(logits), self.threshold)
        if self.mixup:
            partner = self.partner(weak, strong)
            x_mixed, label_mixed = mixup(keys[3], self.mixup, x, partner, label, guess)
            strong, guess_mixed = mixup(keys[4], self.mixup, strong, x, guess, label)
            x = x_mixed
            if self.mix_labels:
                label, guess = label_mixed, guess_mixed
        logits, params = self.scored(params, x, keys[5])
        others, params = self.scored(params, strong, keys[6])
        value = jnp.mean(losses.softmax_cross_entropy(logits, label))
        other = jnp.mean(mask * losses.softmax_cross_entropy(others, guess))
        count = float(len(mask))
        metrics = {
            **accuracy(logits, label),
            "labelled": (value, 1.0),
            "unlabelled": (other, 1.0),
            "confident": (jnp.sum(mask), count),
        }
        return value + self.weight * other, metrics, extra, params

    def target(self, logits: Float[Array, "B C"]) -> Float[Array, "B C"]:
        """Return the labels that are taken from logits: the likeliest class."""
        return jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1])

    def partner(self, weak: Clips, strong: Clips) -> Clips:
        """Return which views those with labels are mixed with."""
        del weak
        return strong


@dataclasses.dataclass(frozen=True)
class Uda(FixMatch):
    """Fit the labels, and on strong views the sharpened distribution that the model has of the clips.

    Published without a weak view, and with mixed labels where there is mixup.

    Attributes:
      threshold: see `FixMatch`; of the distribution before it is sharpened.
      mix_labels: see `FixMatch`.
      temperature: of the sharpened distribution.
    """

    threshold: float = 0.8
    mix_labels: bool = True
    temperature: float = 0.5

    def target(self, logits: Float[Array, "B C"]) -> Float[Array, "B C"]:
        """Return the labels that are taken from logits: their sharpened distribution."""
        return jax.nn.softmax(logits / self.temperature)

    def partner(self, weak: Clips, strong: Clips) -> Clips:
        """Return which views those with labels are mixed with."""
        del strong
        return weak
