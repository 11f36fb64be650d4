"""Tell clips apart with a slow teacher, and clusters by which clips are in them.

SLICER (Seth et al. 2023, arXiv:2211.01519): MoCo (arXiv:1911.05722) in both directions, and the
cluster-level contrast of Li et al. 2021 (arXiv:2009.09687).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives import statistics
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.two_views import TaughtViews, queue_nce
from ssl_audio.slots import Projector
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class InstanceCluster(TaughtViews):
    """Contrast rows (clips) and columns (clusters) of what the student says of two views.

    Both directions of the contrast of clips are scored against the queue as it was before the batch, so
    that no clip is its own negative; the teacher's vectors of both views then enter it.

    Attributes:
      clusters: the vector of a clip → scores of K clusters, of which a softmax makes shares.
      cluster_temperature: divides the cosines of clusters.
    """

    clusters: Projector
    cluster_temperature: float = 1.0

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, a teacher that equals the student, and a queue."""
        key, cluster_key = jax.random.split(key)
        params, extra, _, vector = self.start(key, batch)
        clusters = self.clusters.init(cluster_key, vector)["params"]
        return params | {"clusters": clusters}, extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the contrasts of clips in both directions, plus that of clusters.

        Batch normalisation of student and of teacher sees the first view, then the second.
        """
        view_key, *keys = jax.random.split(key, 5)
        views = self.pair(extra, batch, view_key)
        extra, passes = views[2], keys if train else [None] * 4
        student, teacher = params, statistics.held_as(extra["teacher"], params)
        shares, q, k = [], [], []
        vector: Any = None
        for view, own, other in zip(views[:2], passes[:2], passes[2:], strict=True):
            unit, _, vector, student = self.projected(student, view, own)
            q.append(unit)
            scores: Any
            scores, student["clusters"] = statistics.applied(
                self.clusters, student["clusters"], vector, renew=train
            )
            shares.append(jax.nn.softmax(scores))
            unit, _, _, teacher = self.projected(teacher, view, other)
            k.append(jax.lax.stop_gradient(unit))
        ahead, hit = queue_nce(q[0], k[1], extra["queue"], self.temperature)
        back, _ = queue_nce(q[1], k[0], extra["queue"], self.temperature)
        clusters = cluster_contrast(shares[0], shares[1], self.cluster_temperature)
        if train:
            extra = extra | {"teacher": statistics.released(teacher)}
            extra["queue"] = self.enqueued(extra["queue"], *k)
        weight = float(len(q[0]))
        used = jnp.exp(losses.entropy(jnp.mean(shares[0], axis=0)))
        metrics = {
            "contrast": (jnp.sum(ahead + back), weight),
            "accuracy": (jnp.sum(hit), weight),
            "cluster_contrast": (weight * clusters, weight),
            "clusters": (weight * used, weight),
            "spread": (weight * losses.spread(vector), weight),
        }
        total = jnp.mean(ahead + back) + clusters
        return Loss(total, metrics, extra, statistics.renewed(params, student))


def cluster_contrast(
    first: Float[Array, "B K"], second: Float[Array, "B K"], temperature: float
) -> Float[Array, ""]:
    """Tell each cluster's column in the other view from all other columns of both; mean over both views.

    Columns are the shares of a cluster in the clips of the batch, compared by cosine (arXiv:2009.09687,
    equation 6, without the entropy that the paper subtracts).
    """
    columns = losses.unit(jnp.concatenate([first.T, second.T]))
    scores = columns @ columns.T / temperature
    count = first.shape[1]
    itself = jnp.eye(2 * count, dtype=bool)
    scores = jnp.where(itself, -jnp.inf, scores)
    right = jnp.roll(jnp.arange(2 * count), count)
    logp = jax.nn.log_softmax(scores, axis=1)
    return -jnp.mean(jnp.take_along_axis(logp, right[:, None], axis=1))
