"""Bring the modalities of an example together without negatives (SLAP, arXiv:2506.17815, section 3).

BYOL (Grill et al. 2020, arXiv:2006.07733) between modalities and within each: the other side of every
comparison is a slowly moving average of the towers, and gets no gradient.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array
from ssl_audio.objectives.base import Batch, Extra, Joint, Params
from ssl_audio.objectives.teacher import follow
from ssl_audio.slots import AnyObjective, Projector
from ssl_audio.structs import Loss

PREDICTORS = "predictors"


@dataclasses.dataclass(frozen=True, eq=False)
class Siamese(Joint):
    """Predict the average towers' projections, of the other modality and of the own one.

    No example is compared with another, so gradients of parts of a batch add up to those of the whole.
    Inference takes the predictors' output, normalised.

    Attributes:
      towers: modality (an entry of the batch) → `Tower`, each with a projector.
      predictor: template of the network on top of each projector.
      edges: (modality, modality, weight): what is predicted from what, in both directions.
      inter: share of the comparisons between modalities; the others are within. Outside 0.2 to 0.7 the
        published models collapsed nearly always; watch the metric "spread".
      decay: of the moving averages, per update.
    """

    towers: dict[str, AnyObjective]
    predictor: Projector
    edges: tuple = (("audio", "text", 1.0),)
    inter: float = 0.5
    decay: float = 0.95

    def __post_init__(self):
        if not 0 <= self.inter <= 1 or not 0 <= self.decay <= 1:
            raise ValueError(f"inter {self.inter}, decay {self.decay}: wanted 0 to 1.")
        self.check_edges()
        if not self.edges:
            raise ValueError("edges: none; wanted at least one (modality, modality, weight).")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and their copy for the targets."""
        keys = jax.random.split(key, 2 * len(self.towers))
        params: dict[str, Any] = {PREDICTORS: {}}
        for (name, tower), first, second in zip(self._sorted, keys[::2], keys[1::2], strict=True):
            params[name] = tower.init(first, batch, name)
            z = tower(params[name], batch, name)
            params[PREDICTORS][name] = self.predictor.init(second, z)["params"]
        return params, {
            "target": jax.tree.map(jnp.copy, {name: params[name] for name in self.towers})
        }

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return inter * (distances between modalities) + (1 - inter) * (distances within).

        Raises:
          ValueError: the batch has negatives.
        """
        if negatives := [name for name in batch if name.endswith("_negative")]:
            raise ValueError(
                f"siamese: the batch has {negatives[0]}, which this loss has no use for; set "
                "data.entries.text.negatives = 0."
            )
        keys = dict(zip(sorted(self.towers), jax.random.split(key, len(self.towers)), strict=True))
        q, target = {}, {}
        for name, tower in self._sorted:
            z = tower(params[name], batch, name, keys[name] if train else None)
            q[name] = self.predictor.apply({"params": params[PREDICTORS][name]}, z)
            target[name] = jax.lax.stop_gradient(tower(extra["target"][name], batch, name))
        return self.loss_of(q, target, extra, batch.get("weight"))

    def loss_of(
        self,
        q: Mapping[str, Array],
        target: Mapping[str, Array],
        extra: Extra,
        weight: Array | None = None,
    ) -> Loss:
        """Return the loss of predictions and targets, modality → [B, D], not normalised."""
        inter, shares = jnp.zeros(()), 0.0
        for a, b, share in self.edges:
            both = losses.cosine_distance(q[a], target[b]) + losses.cosine_distance(q[b], target[a])
            inter, shares = inter + share * both, shares + share
        inter = inter / shares
        intra = jnp.stack([losses.cosine_distance(q[name], target[name]) for name in q])
        intra = 2 * jnp.mean(intra, axis=0)
        value = self.inter * inter + (1 - self.inter) * intra
        rows = float(len(value))
        metrics = {
            "inter": (jnp.sum(inter), rows),
            "intra": (jnp.sum(intra), rows),
            "spread": (jnp.min(jnp.stack([losses.spread(x) for x in q.values()])) * rows, rows),
        }
        total = losses.weighted_mean(value, weight)
        means = None if weight is None else {"distance": (total, jnp.sum(weight))}
        return Loss(total=total, metrics=metrics, extra=extra, means=means)

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Move the targets towards the parameters, once per update."""
        del step
        return {**extra, "target": follow(extra["target"], params, self.decay)}

    def embed(self, name: str, params: Params, batch: Batch) -> Array:
        """Return unit vectors: what the predictor makes of a tower's projection."""
        z = self.towers[name](params[name], batch, name)
        q: Any = self.predictor.apply({"params": params[PREDICTORS][name]}, z)
        return losses.unit(q)
