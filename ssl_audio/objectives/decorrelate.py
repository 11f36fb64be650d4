"""Make two views of a clip agree in every value of a vector, and the values tell different things.

DeLoRes-S (Ghosh et al. 2022, arXiv:2203.13628): Barlow Twins (arXiv:2103.03230) on augmented log-mels.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives import statistics
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.two_views import TwoViews, correlation, redundancy
from ssl_audio.slots import Projector
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class Decorrelate(TwoViews):
    """Bring the correlation matrix of two views' projections close to the identity.

    Attributes:
      projector: the vector of a clip → the values that are correlated.
      diagonal: weight of the sum of (1 - c)^2 over the diagonal.
      cross: weight of the sum of c^2 over all else.
    """

    projector: Projector
    diagonal: float = 1.0
    cross: float = 0.0051

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and no earlier clips."""
        key, projector_key = jax.random.split(key)
        params, spec, _, vector = self.begin(key, batch)
        projector = self.projector.init(projector_key, vector)
        params["projector"] = projector["params"]
        return params, {"views": self.views.empty(spec)}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the weighted sum; batch normalisation sees the first view, then the second."""
        view_key, *keys = jax.random.split(key, 3)
        first, second, extra = self.pair(extra, batch, view_key)
        x, vector, after = self._project(params, first, keys[0] if train else None)
        y, _, after = self._project(after, second, keys[1] if train else None)
        total, terms = self.compared(x, y)
        weight = float(len(x))
        metrics = {name: (weight * value, weight) for name, value in terms.items()}
        metrics["spread"] = (weight * losses.spread(vector), weight)
        return Loss(total, metrics, extra, statistics.renewed(params, after))

    def compared(
        self, x: Float[Array, "B D"], y: Float[Array, "B D"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Return the loss of two views' projections; and the mean correlation of same and other values."""
        matrix = correlation(x, y)
        diagonal, cross = redundancy(matrix)
        width = len(matrix)
        terms = {
            "agreement": jnp.trace(matrix) / width,
            "redundancy": jnp.sqrt(cross / max(width * (width - 1), 1)),
        }
        return self.diagonal * diagonal + self.cross * cross, terms

    def _project(self, params, spec, key):
        """Return projections and vectors, and the parameters with renewed statistics."""
        _, vector, after = self.encoded(params, spec, key)
        x: Any
        x, after["projector"] = statistics.applied(
            self.projector, params["projector"], vector, renew=key is not None
        )
        return x, vector, after
