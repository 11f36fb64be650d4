"""Mean Teacher (Tarvainen and Valpola 2017, arXiv:1703.01780): agree with the average of one's own past."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives import statistics
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.mixing import Clips, joined, mixup
from ssl_audio.objectives.semi_supervised import Metrics, PseudoLabels, accuracy, labels
from ssl_audio.objectives.teacher import Ramp, follow


@dataclasses.dataclass(frozen=True)
class MeanTeacher(PseudoLabels):
    """Fit the labels, and on all clips the distributions of a teacher: a moving average of the parameters.

    Passes: the teacher's, then the model's, each of all clips in one batch, those with labels first.
    "logits" are the teacher's, which scores are of; "encode" is the model's.

    Attributes:
      pseudo_label_bn: "train": the teacher normalises with its batch's statistics and has running ones of
        its own, as published; "eval": with running ones that are averages of the model's.
      weak: view of the model's clips; the teacher has them as they are.
      noise: signal-to-noise ratio of Gaussian noise on the teacher's features, dB; None: there is none. The
        first experiments had 15, without a view.
      decay: of the average; less in the first steps: the first makes the teacher equal to the model.
      weight: of the squared difference of distributions, by the step.
      mixup: alpha of mixing clips with labels and clips without with each other, labels and the teacher's
        distributions too, which wants equally many of both; 0: no mixup. Published with 0.75. The
        teacher's distributions of clips with labels stay as they are.
    """

    needs = ("teacher",)

    noise: float | None = None
    decay: float = 0.999
    weight: Ramp = Ramp(0.0, 1.0, 10_000, "exponential")
    mixup: float = 0.0

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, a teacher that equals them, and the weight at the first step."""
        params, extra = super().init(key, batch)
        # A copy: the state of a run is donated, and no buffer may be donated twice.
        teacher = jax.tree.map(jnp.copy, params)
        return params, extra | {"teacher": teacher, "weight": self.weight(0)}

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Return `extra` with the teacher moved towards the model, and the weight at the next step."""
        old = extra["teacher"]
        teacher = follow(old, params, decay(step, self.decay))
        if self.pseudo_label_bn == "train":
            teacher = statistics.kept(old, teacher)
        return extra | {"teacher": teacher, "weight": self.weight(step + 1)}

    def logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B C"]:
        """Return the teacher's class logits.

        Raises:
          ValueError: what was loaded has no teacher, as what earlier versions exported or kept as the best.
        """
        if not extra.keys() >= {*self.needs}:
            raise ValueError(
                "MeanTeacher: got parameters without the teacher's, whose the logits are, as earlier "
                "versions exported them and kept the best; wanted a step of the run, or a folder exported "
                "from it now."
            )
        return super().logits(extra["teacher"], extra, batch)

    def learned(  # noqa: D102
        self, params: Params, extra: Extra, batch: Batch, key: Array
    ) -> tuple[Float[Array, ""], Metrics, Extra, Params]:
        keys = jax.random.split(key, 6)
        clean = joined(self.clips(batch), self.clips(batch, "unlabelled_"))
        teacher = statistics.held_as(extra["teacher"], params)
        logits, teacher = self.guessed(teacher, self._noisy(clean, keys[0]))
        x, label = self.clips(batch, view=self.weak, key=keys[1]), labels(batch)
        u, size = self.clips(batch, "unlabelled_", self.weak, keys[2]), len(label)
        of_x, of_u = jnp.split(jax.nn.softmax(logits), [size])
        if self.mixup:
            both = mixup(keys[3], self.mixup, x, u, label, of_u)
            u, of_u = mixup(keys[4], self.mixup, u, x, of_u, label)
            x, label = both
        logits, params = self.scored(params, joined(x, u), keys[5])
        value = jnp.mean(losses.softmax_cross_entropy(logits[:size], label))
        other = jnp.mean((jax.nn.softmax(logits) - joined(of_x, of_u)) ** 2)
        metrics = {
            **accuracy(logits[:size], label),
            "labelled": (value, 1.0),
            "disagreement": (other, 1.0),
            "weight": (extra["weight"], 1.0),
        }
        extra = extra | {"teacher": statistics.released(teacher)}
        return value + extra["weight"] * other, metrics, extra, params

    def _noisy(self, clips: Clips, key: Array) -> Clips:
        if self.noise is None:
            return clips
        level = jnp.sqrt(jnp.mean(clips.spec**2, (1, 2), keepdims=True)) * 10 ** (-self.noise / 20)
        noise = jax.random.normal(key, clips.spec.shape, clips.spec.dtype)
        return clips._replace(spec=clips.spec + level * noise)


def decay(step: Any, most: float) -> Float[Array, ""]:
    """Return min(1 - 1 / (step + 1), most), the decay at an update, counted from 0."""
    return jnp.minimum(1 - 1 / (jnp.asarray(step, jnp.float32) + 1), most)
