"""Deep Co-Training (Qiao et al. 2018, arXiv:1803.05984): two models agree, and are fooled by different things."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.mixing import Clips, joined, mixup
from ssl_audio.objectives.semi_supervised import Metrics, SemiSupervised, accuracy, labels
from ssl_audio.objectives.teacher import Ramp

SECOND = "second"  # the other model's parameters
LABELLED = ("", f"{SECOND}_")  # begin the entries of the clips with labels of each model


@dataclasses.dataclass(frozen=True)
class DeepCoTraining(SemiSupervised):
    """Fit labels with two models of one form; each resists what is made to deceive the other.

    Each has clips with labels of its own: "audio" and "second_audio", from two pipelines of other seeds.
    Passes of each model: its clips with labels, those without, and both as they deceive the other model.
    "logits" and "encode" are those of the first.

    Attributes:
      weak: view of all clips. Published without.
      epsilon: each feature of a deceptive clip is so far from its own, in the direction that raises the
        model's loss (Goodfellow et al. 2015, arXiv:1412.6572); statistics are the running ones there.
      agree: weight of the Jensen-Shannon divergence on clips without labels, by the step.
      differ: weight of each model's cross-entropy, on deceptive clips, with what the other says of
        the clips that they were made of.
      mixup: alpha of mixing clips without labels with each other; 0: no mixup. Published with 1.
    """

    epsilon: float = 0.02
    agree: Ramp = Ramp(0.0, 1.0, 32_000, "exponential")
    differ: Ramp = Ramp(0.0, 0.5, 32_000, "exponential")
    mixup: float = 0.0

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters of both models, and the weights at the first step."""
        one, other = jax.random.split(key)
        params, extra = super().init(one, batch)
        params[SECOND] = super().init(other, batch)[0]
        return params, extra | self._weights(0)

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Return `extra` with the weights at the next step."""
        del params
        return extra | self._weights(step + 1)

    def learned(  # noqa: D102
        self, params: Params, extra: Extra, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], Metrics, Extra, Params]:
        view_key, mix_key, order_key, *keys = jax.random.split(key, 7)
        views = jax.random.split(view_key, 3)
        x = [self.clips(batch, of, self.weak, views[i]) for i, of in enumerate(LABELLED)]
        label = [labels(batch, of) for of in LABELLED]
        u = self.clips(batch, "unlabelled_", self.weak, views[2])
        order = jax.random.permutation(order_key, len(u.length))
        (u,) = mixup(mix_key, self.mixup, u, jax.tree.map(lambda v: v[order], u))
        models, clean, false = [params, params[SECOND]], [], []
        for i in range(2):
            key_x, key_u = jax.random.split(keys[i])
            on_x, models[i] = self.scored(models[i], x[i], key_x)
            on_u, models[i] = self.scored(models[i], u, key_u)
            guess = jax.nn.one_hot(jnp.argmax(on_u, -1), on_u.shape[-1])
            clean.append((on_x, on_u))
            false.append(self.deceptive(models[i], (x[i], u), (label[i], guess)))
        deceived = []
        for i in range(2):
            own = jax.random.split(keys[2 + i])
            for j in range(2):
                logits, models[i] = self.scored(models[i], false[1 - i][j], own[j])
                deceived.append((clean[1 - i][j], logits))
        fit = [jnp.mean(losses.softmax_cross_entropy(clean[i][0], label[i])) for i in range(2)]
        value = fit[0] + fit[1]
        agree = jnp.mean(losses.jensen_shannon(clean[0][1], clean[1][1]))
        differ = differing(deceived)
        metrics = {
            **accuracy(clean[0][0], label[0]),
            "labelled": (value, 1.0),
            "agree": (agree, 1.0),
            "differ": (differ, 1.0),
            "agree_weight": (extra["agree"], 1.0),
        }
        total = value + extra["agree"] * agree + extra["differ"] * differ
        return total, metrics, extra, models[0] | {SECOND: models[1]}

    def deceptive(
        self, params: Params, clips: Sequence[Clips], label: Sequence[Array]
    ) -> list[Clips]:
        """Return clips moved so that a model's loss rises, in evaluation and without a gradient."""
        still, all_ = jax.lax.stop_gradient((params, joined(*clips)))

        def loss(spec):
            logits, _ = self.scored(still, all_._replace(spec=spec))
            return jnp.sum(losses.softmax_cross_entropy(logits, joined(*label)))

        moved = all_.spec + self.epsilon * jnp.sign(jax.grad(loss)(all_.spec))
        moved = jnp.split(jax.lax.stop_gradient(moved), [len(label[0])])
        return [clips[i]._replace(spec=moved[i]) for i in range(2)]

    def _weights(self, step):
        return {"agree": self.agree(step), "differ": self.differ(step)}


def differing(pairs: Sequence[tuple[Array, Array]]) -> Float[Array, ""]:
    """Return the cross-entropy of pairs of batches, of what one model says and the deceived other.

    Summed over both models, and a mean over the clips of one of them, as arXiv:2102.08183 has it.

    Args:
      pairs: (logits [B, C] of a model, logits of the other on clips that deceive it), of clips with
        labels and without, for each model.
    """
    clips = sum(len(wanted) for wanted, _ in pairs) / 2
    return jnp.sum(jnp.concatenate([losses.teaching(*pair) for pair in pairs])) / clips
