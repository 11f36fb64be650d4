"""Tell clips apart with a slow teacher, and decorrelate every layer of the encoder.

DeLoRes-M (Ghosh et al. 2022, IEEE JSTSP 16(6), doi 10.1109/JSTSP.2022.3202093): MoCo (arXiv:1911.05722) and
Barlow Twins (arXiv:2103.03230) together.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.heads.readout import mean_of_layer
from ssl_audio.objectives import statistics
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.two_views import TaughtViews, correlation, queue_nce, redundancy
from ssl_audio.slots import Projector
from ssl_audio.structs import Encoded, Loss


@dataclasses.dataclass(frozen=True)
class DecorrelateLayers(TaughtViews):
    """Contrast a student's view with a teacher's other one, and decorrelate their layers.

    Each layer's tokens are averaged, projected, and correlated between student and teacher; the
    projectors get gradients of both sides, the teacher gets none.

    Attributes:
      shallow: mean of a layer's tokens → the values that are correlated; each layer has one of its own.
      layers: numbers of the layers.
      diagonal, cross: weights of the sums of (1 - c)^2 over a correlation matrix's diagonal, of c^2 off it.
    """

    shallow: Projector
    layers: tuple[int, ...] = (0, 1, 2)
    diagonal: float = 5e-5 / 32
    cross: float = 5e-5 / 32

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, a teacher that equals the student, and a queue."""
        key, *keys = jax.random.split(key, 1 + len(self.layers))
        params, extra, encoded, _ = self.start(key, batch)
        there = 0 if encoded.layers is None else len(encoded.layers)
        if not all(0 <= number < there for number in self.layers):
            raise ValueError(
                f"objective.layers: got {self.layers}, but {type(self.encoder).__name__} returns {there} "
                "layers: name some of them, counted from 0, or take an encoder that has them."
            )
        shallow = {
            _name(number): self.shallow.init(key, mean_of_layer(encoded, number))["params"]
            for key, number in zip(keys, self.layers, strict=True)
        }
        return params | {"shallow": shallow}, extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the contrastive loss plus the weighted sums of every layer.

        Batch normalisation of a layer's projector sees the student's view, then the teacher's.
        """
        view_key, *keys = jax.random.split(key, 3)
        first, second, extra = self.pair(extra, batch, view_key)
        q, own, vector, after = self.projected(params, first, keys[0] if train else None)
        teacher = statistics.held_as(extra["teacher"], params)
        k, other, _, teacher = self.projected(teacher, second, keys[1] if train else None)
        k, other = jax.lax.stop_gradient((k, other))
        contrast, hit = queue_nce(q, k, extra["queue"], self.temperature)
        total, shallow, agreement = jnp.mean(contrast), dict(params["shallow"]), []
        for number in self.layers:
            x, y, shallow[_name(number)] = self._shallow(
                params["shallow"][_name(number)], own, other, number, train
            )
            matrix = correlation(x, y)
            diagonal, cross = redundancy(matrix)
            total = total + self.diagonal * diagonal + self.cross * cross
            agreement.append(jnp.trace(matrix) / len(matrix))
        if train:
            extra = extra | {"teacher": statistics.released(teacher)}
            extra["queue"] = self.enqueued(extra["queue"], k)
            after["shallow"] = shallow
        weight = float(len(q))
        metrics = {
            "contrast": (jnp.sum(contrast), weight),
            "accuracy": (jnp.sum(hit), weight),
            "agreement": (weight * jnp.mean(jnp.stack(agreement)), weight),
            "spread": (weight * losses.spread(vector), weight),
        }
        return Loss(total, metrics, extra, statistics.renewed(params, after))

    def _shallow(
        self, params: Params, own: Encoded, other: Encoded, number: int, train: bool
    ) -> tuple[Float[Array, "B D"], Float[Array, "B D"], Params]:
        """Return both sides' projections of a layer, and the projector with renewed statistics."""
        x: Any = mean_of_layer(own, number)
        y: Any = mean_of_layer(other, number)
        x, params = statistics.applied(self.shallow, params, x, renew=train)
        y, params = statistics.applied(self.shallow, params, y, renew=train)
        return x, y, params


def _name(number: int) -> str:
    return f"layer_{number}"
