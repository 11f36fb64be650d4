"""Bring the modalities of an example together and push those of others away (CLAP and similar methods).

Radford et al. 2021 (arXiv:2103.00020); Wu et al. 2023 (arXiv:2211.06687) section 2. The loss is written
on the global batch: every example is compared with all others, whatever device holds them.
"""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives.base import Batch, Extra, Joint, Params
from ssl_audio.slots import AnyObjective
from ssl_audio.structs import Loss

POSITIVES = ("pairs", "labels", "texts")


@dataclasses.dataclass(frozen=True)
class Reversal:
    """Weights of the examples' reversals, a batch's entries `NAME_reversed` (arXiv:2301.02074).

    Attributes:
      same: how much more an example's own reversal counts as a negative; 0: not at all.
      cross: the same for the reversals of others.
      beta: weight of the rows of reversals.
    """

    same: float = 1.0
    cross: float = 1.0
    beta: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Contrastive(Joint):
    """Tell which examples of two modalities belong together, in both directions.

    A batch's entry `weight` [B] weighs its examples' rows; `NAME_negative` [B, J, ...], with its lengths,
    are further examples of a modality that nobody belongs to (length 0: there is none).

    Attributes:
      towers: modality (an entry of the batch) → `Tower`.
      edges: (modality, modality, weight): what is compared.
      temperature: first value; similarities are divided by it, and it is learned.
      max_scale: most that similarities are multiplied by (CLIP: 100); the least is 1.
      per_direction: learn one temperature for each direction of an edge.
      positives: what is right for an example: "pairs" its own pair; "labels" all with the same label, or
        in the share of labels in common (needs an entry of labels); "texts" all with the same words.
      reversal: also compare with the examples' reversals in time.
    """

    towers: dict[str, AnyObjective]
    edges: tuple = (("audio", "text", 1.0),)
    temperature: float = 0.07
    max_scale: float = 100.0
    per_direction: bool = False
    positives: str = "pairs"
    reversal: Reversal | None = None

    couples_examples = True

    def __post_init__(self):
        if self.positives not in POSITIVES:
            raise ValueError(f"positives '{self.positives}': wanted one of {', '.join(POSITIVES)}.")
        if not 0 < self.temperature <= 1 <= self.max_scale:
            raise ValueError(
                f"temperature {self.temperature}, max_scale {self.max_scale}: wanted 0 < temperature "
                "<= 1 <= max_scale."
            )
        self.check_edges()

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, len(self.towers))
        params: dict[str, Any] = {
            name: tower.init(tower_key, batch, name)
            for (name, tower), tower_key in zip(self._sorted, keys, strict=True)
        }
        if self.edges:
            scales = (len(self.edges), 2 if self.per_direction else 1)
            params["logit_scale"] = jnp.full(scales, -math.log(self.temperature), jnp.float32)
        return params, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the weighted mean of the edges' losses."""
        if not self.edges:
            raise ValueError("objective 'contrastive' without edges has no loss; give it edges.")
        z = self.embeddings(params, batch, key if train else None)
        if self.reversal:
            turned = {
                k: batch.get(f"{k}_reversed", v) for k, v in batch.items() if "_reversed" not in k
            }
            back = self.embeddings(params, turned, jax.random.fold_in(key, 1) if train else None)
            z = {name: jnp.concatenate([z[name], back[name]]) for name in z}
        apart = self._negatives(params, batch, jax.random.fold_in(key, 2) if train else None)
        return self.loss_of(params["logit_scale"], z, batch, extra, apart)

    def loss_of(
        self,
        scale: Float[Array, "M J"],
        z: Mapping[str, Array],
        batch: Batch,
        extra: Extra,
        apart: Mapping[str, tuple[Array, Array]] = MappingProxyType({}),
    ) -> Loss:
        """Return the loss of unit vectors, modality → [B, D] (with `reversal`, [2 B, D]).

        `apart`: modality → further negatives [K, D], and which of them there are [K].
        """
        scales = jnp.exp(losses.bounded(scale, 0.0, math.log(self.max_scale)))
        positive = self._positive(batch)
        rows = float(len(next(iter(z.values()))))
        bias, weight = 0.0, batch.get("weight")
        if self.reversal:
            half = int(rows) // 2
            bias = losses.reversal_bias(half, self.reversal.same, self.reversal.cross)
            own = jnp.ones(half) if weight is None else weight
            weight = jnp.concatenate([own, self.reversal.beta * own])
        total, metrics, shares = jnp.zeros((), jnp.float32), {}, 0.0
        for number, (first, second, share) in enumerate(self.edges):
            value = jnp.zeros((), jnp.float32)
            pairs = ((first, second, scales[number, 0]), (second, first, scales[number, -1]))
            for name, other, s in pairs:
                logits, right = s * z[name] @ z[other].T + bias, positive
                if other in apart:
                    far, there = apart[other]
                    # Finite, since rows of several positives multiply it by 0.
                    further = jnp.where(there[None], s * z[name] @ far.T, -1e9)
                    logits = jnp.concatenate([logits, further], axis=1)
                    right = None if right is None else jnp.pad(right, ((0, 0), (0, len(far))))
                logits = nn.with_logical_constraint(logits, ("batch", None))
                value += losses.weighted_mean(losses.info_nce(logits, right), weight) / 2
                best = jnp.argmax(logits, axis=1)
                hits = best == jnp.arange(len(best))
                if right is not None:
                    hits = jnp.take_along_axis(right, best[:, None], axis=1)[:, 0] > 0
                metrics[f"{name}_to_{other}"] = (jnp.sum(hits.astype(jnp.float32)), rows)
            total, shares = total + share * value, shares + share
        metrics["scale"] = (scales[0, 0], 1.0)
        return Loss(total=total / shares, metrics=metrics, extra=extra)

    def embeddings(
        self, params: Params, batch: Batch, key: Array | None = None
    ) -> dict[str, Float[Array, "B D"]]:
        """Return the unit vectors of all modalities of a batch."""
        keys = [None] * len(self.towers) if key is None else jax.random.split(key, len(self.towers))
        return {
            name: losses.unit(tower(params[name], batch, name, tower_key))
            for (name, tower), tower_key in zip(self._sorted, keys, strict=True)
        }

    def _negatives(
        self, params: Params, batch: Batch, key: Array | None
    ) -> dict[str, tuple[Array, Array]]:
        found = {}
        for name, tower in self._sorted:
            entries = {name: f"{name}_negative", tower.length: f"{tower.length}_negative"}
            if entries[name] in batch:
                few = {k: batch[v].reshape(-1, *batch[v].shape[2:]) for k, v in entries.items()}
                there = few[tower.length] > 0
                # Attention over nothing would be NaN, and so its gradient.
                few[tower.length] = jnp.maximum(few[tower.length], 1)
                found[name] = losses.unit(tower(params[name], few, name, key)), there
        return found

    def embed(self, name: str, params: Params, batch: Batch) -> Array:
        """Return unit vectors of a modality."""
        return losses.unit(self.towers[name](params[name], batch, name))

    def scale(self, params: Params, name: str, other: str) -> float | None:
        """Return what the loss multiplied similarities by to find `other` for `name`.

        None: there is no edge between them.
        """
        for number, (first, second, _) in enumerate(self.edges):
            if {name, other} == {first, second}:
                learned = params["logit_scale"][number][0 if name == first else -1]
                return float(np.exp(np.clip(learned, 0, np.log(self.max_scale))))
        return None

    def _positive(self, batch: Batch) -> Array | None:
        """Return the weights of right pairs [B, B], or None: the diagonal."""
        if self.positives == "pairs" or self.reversal:
            return None
        entry = "label" if self.positives == "labels" else "text"
        if entry not in batch:
            raise ValueError(f"positives '{self.positives}': the batch has no '{entry}'.")
        if entry == "label":
            return batch["label"] @ batch["label"].T
        same = batch["text"][:, None] == batch["text"][None]
        return jnp.all(same, axis=-1).astype(jnp.float32)
