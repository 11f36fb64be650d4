"""Supervised learning as the comparison of semi-supervised methods has it: a view of each clip, or mixup."""

import dataclasses

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.mixing import Clips, mixup
from ssl_audio.objectives.semi_supervised import Metrics, SemiSupervised, accuracy, labels

VIEWS = ("none", "weak", "strong")


@dataclasses.dataclass(frozen=True)
class Supervised(SemiSupervised):
    """Fit the labels of the clips that have one; others in the batch are not looked at.

    Attributes:
      view: of the clips: "none", "weak" or "strong".
      mixup: alpha; the share is not folded; 0: no mixup. Published with 0.4 and without a view.
    """

    view: str = "weak"
    mixup: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.view not in VIEWS:
            raise ValueError(f"view: got '{self.view}', wanted one of {', '.join(VIEWS)}.")

    def learned(  # noqa: D102
        self, params: Params, extra: Extra, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], Metrics, Extra, Params]:
        view_key, order_key, mix_key, key = jax.random.split(key, 4)
        view = {"none": None, "weak": self.weak, "strong": self.strong}[self.view]
        x, label = self.clips(batch, view=view, key=view_key), labels(batch)
        if self.mixup:
            order = jax.random.permutation(order_key, len(label))
            other = Clips(x.spec[order], x.length[order])
            x, label = mixup(mix_key, self.mixup, x, other, label, label[order], folded=False)
        logits, params = self.scored(params, x, key)
        total = jnp.mean(losses.softmax_cross_entropy(logits, label))
        return total, accuracy(logits, label), extra, params
