"""Bring the modalities of an example together and push those of others away (CLAP and similar methods).

Radford et al. 2021 (arXiv:2103.00020); Wu et al. 2023 (arXiv:2211.06687) section 2. The loss is written
on the global batch: every example is compared with all others, whatever device holds them.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.objectives.base import Batch, Extra, Joint, Params, replaced
from ssl_audio.objectives.pair_losses import InfoNce
from ssl_audio.objectives.statistics import renewed
from ssl_audio.objectives.towers import branch_names
from ssl_audio.slots import AnyObjective
from ssl_audio.structs import Loss


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
    are further examples of a modality that nobody belongs to (length 0: there is none). `NAME_positive`
    [B, ...] may stand in an edge as a modality: the same tower hears it; the negatives then lie beside it.
    A tower with `projectors:Branches` has a modality NAME/BRANCH for each. Where the lengths of a
    modality are [B, M], each example has M candidates of it, whose vectors are [B, M, D]: see
    `pair_losses.OneSoftmax`.

    Attributes:
      towers: modality (an entry of the batch) → `Tower`.
      edges: (modality, modality, weight): what is compared.
      temperature: first value; similarities are divided by it, and it is learned.
      max_scale: most that similarities are multiplied by (CLIP: 100); the least is 1.
      per_direction: learn one temperature for each direction of an edge.
      positives: see `pair_losses.InfoNce`, which compares where `compare` names nothing else.
      reversal: also compare with the examples' reversals in time; an example's own pair is right then.
      compare: "FIRST-SECOND", an edge → its function of `pair_losses.py`.
      shared: regex of paths in a tower's parameters: one and the same for all towers (a Transformer for all
        modalities), held by the first of them by name. "": none are.
    """

    towers: dict[str, AnyObjective]
    edges: tuple = (("audio", "text", 1.0),)
    temperature: float = 0.07
    max_scale: float = 100.0
    per_direction: bool = False
    positives: str = "pairs"
    reversal: Reversal | None = None
    compare: dict[str, AnyObjective] = dataclasses.field(default_factory=dict)
    shared: str = ""

    couples_examples = True

    def __post_init__(self):
        InfoNce(self.positives)
        if not 0 < self.temperature <= 1 <= self.max_scale:
            raise ValueError(
                f"temperature {self.temperature}, max_scale {self.max_scale}: wanted 0 < temperature "
                "<= 1 <= max_scale."
            )
        self.check_edges()
        there = [f"{first}-{second}" for first, second, _ in self.edges]
        if unknown := sorted(self.compare.keys() - set(there)):
            raise ValueError(
                f"compare: got {unknown[0]!r}; wanted an edge as 'FIRST-SECOND', of "
                f"{', '.join(there)}."
            )

    def modalities(self) -> list[str]:
        """Return what edges may name."""
        parts = [(name, branch_names(tower)) for name, tower in self._sorted]
        found = [f"{name}/{b}" for name, some in parts for b in some]
        found += [name for name, some in parts if not some]
        return found + [f"{name}_positive" for name, some in parts if not some]

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, len(self.towers))
        params: dict[str, Any] = {
            name: tower.init(tower_key, _each(tower, batch, name)[0], name)
            for (name, tower), tower_key in zip(self._sorted, keys, strict=True)
        }
        if self.shared:
            params = self._tied(params)
        if self.edges:
            scales = (len(self.edges), 2 if self.per_direction else 1)
            params["logit_scale"] = jnp.full(scales, -math.log(self.temperature), jnp.float32)
        return params, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the weighted mean of the edges' losses."""
        if not self.edges:
            raise ValueError("objective 'contrastive' without edges has no loss; give it edges.")
        z, after = self._embedded(params, batch, key if train else None)
        if self.reversal:
            turned = {
                k: batch.get(f"{k}_reversed", v) for k, v in batch.items() if "_reversed" not in k
            }
            again = jax.random.fold_in(key, 1) if train else None
            back, after = self._embedded(after, turned, again)
            z = {name: jnp.concatenate([z[name], back[name]]) for name in z}
        apart = self._negatives(params, batch, jax.random.fold_in(key, 2) if train else None)
        found = self.loss_of(params["logit_scale"], z, batch, extra, apart)
        return dataclasses.replace(found, renewed=renewed(params, after))

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
        rows = len(next(iter(z.values())))
        bias, weight, usual = 0.0, batch.get("weight"), InfoNce(self.positives)
        if self.reversal:
            half, usual = rows // 2, InfoNce()
            bias = losses.reversal_bias(half, self.reversal.same, self.reversal.cross)
            own = jnp.ones(half) if weight is None else weight
            weight = jnp.concatenate([own, self.reversal.beta * own])
        total, metrics, shares = jnp.zeros((), jnp.float32), {}, 0.0
        for number, (first, second, share) in enumerate(self.edges):
            compared = self.compare.get(f"{first}-{second}", usual)(
                z[first],
                z[second],
                (scales[number, 0], scales[number, -1]),
                batch,
                bias=bias,
                further=(apart.get(first), apart.get(second)),
            )
            for found, name in zip(
                compared, (f"{first}_to_{second}", f"{second}_to_{first}"), strict=True
            ):
                counted = weight
                if found.counted is not None:
                    counted = found.counted * (1.0 if weight is None else weight)
                total += share * losses.weighted_mean(found.loss, counted) / 2
                known = float(rows) if found.counted is None else jnp.sum(found.counted)
                metrics[name.replace("/", "_")] = (jnp.sum(found.hits), known)
            shares = shares + share
        metrics["scale"] = (scales[0, 0], 1.0)
        return Loss(total=total / shares, metrics=metrics, extra=extra)

    def embeddings(
        self, params: Params, batch: Batch, key: Array | None = None
    ) -> dict[str, Float[Array, "B D"]]:
        """Return the unit vectors of all modalities of a batch, as edges name them."""
        return self._embedded(params, batch, key)[0]

    def _embedded(
        self, params: Params, batch: Batch, key: Array | None
    ) -> tuple[dict[str, Array], Params]:
        """Return the unit vectors, and the parameters with renewed running statistics."""
        keys = [None] * len(self.towers) if key is None else jax.random.split(key, len(self.towers))
        found = {}
        for (name, tower), tower_key in zip(self._sorted, keys, strict=True):
            z, params = self._vectors(name, params, batch, tower_key)
            branches = branch_names(tower)
            found |= {f"{name}/{b}": z[b] for b in branches} or {name: z}
            if f"{name}_positive" in self._compared:
                other = {
                    name: batch[f"{name}_positive"],
                    tower.length: batch[f"{tower.length}_positive"],
                }
                again = None if tower_key is None else jax.random.fold_in(tower_key, 1)
                found[f"{name}_positive"], params = self._vectors(name, params, other, again)
        return found, params

    def _vectors(
        self, name: str, params: Params, batch: Batch, key: Array | None
    ) -> tuple[Any, Params]:
        """Return a tower's unit vectors, of branches by name, and parameters with renewed statistics."""
        tower, own = self.towers[name], self.parameters(params, name)
        batch, rows = _each(tower, batch, name)
        if hasattr(tower, "renewing"):
            z, after = tower.renewing(own, batch, name, key)
            params = params if after is own else self._kept(params, name, after)
        else:
            z = tower(own, batch, name, key)
        branches = branch_names(tower)
        if branches and not isinstance(z, Mapping):
            z = {b: z[:, i] for i, b in enumerate(branches)}
        z = jax.tree.map(losses.unit, z)
        return jax.tree.map(lambda x: x.reshape(*rows, -1), z) if rows else z, params

    def parameters(self, params: Params, name: str) -> Params:
        """Return all parameters of a tower, those that it shares among them."""
        first = self._sorted[0][0]
        if not self.shared or name == first:
            return params[name]
        return replaced(params[name], self._matching(params[first])[0])

    def _kept(self, params: Params, name: str, after: Params) -> Params:
        """Return parameters with other values of a tower's."""
        first = self._sorted[0][0]
        if not self.shared or name == first:
            return {**params, name: after}
        common, own = self._matching(after)
        return {**params, first: replaced(params[first], common), name: own}

    def _matching(self, params: Params) -> tuple[Params, Params]:
        """Return the parameters of a tower that all share, and its own."""
        named = flatten_dict(params, sep="/")
        there = {path: bool(re.search(self.shared, path)) for path in named}
        common = {path: x for path, x in named.items() if there[path]}
        own = {path: x for path, x in named.items() if not there[path]}
        return unflatten_dict(common, sep="/"), unflatten_dict(own, sep="/")

    def _tied(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return fresh parameters of all towers without what the first one holds for the others.

        Raises:
          ValueError: nothing matches, or the towers differ in it.
        """
        parts = {name: self._matching(own) for name, own in params.items()}
        first = self._sorted[0][0]
        shapes = {name: jax.tree.map(jnp.shape, common) for name, (common, _) in parts.items()}
        for name, found in shapes.items():
            if not found or found != shapes[first]:
                raise ValueError(
                    f"shared '{self.shared}': the parameters of towers.{name} that match are "
                    f"{', '.join(flatten_dict(found, sep='/')) or 'none'}; wanted some, of the same names "
                    f"and shapes as those of towers.{first}."
                )
        return {name: params[name] if name == first else own for name, (_, own) in parts.items()}

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
                positive = f"{name}_positive"
                beside = positive if positive in self._compared else name
                found[beside] = (
                    losses.unit(tower(self.parameters(params, name), few, name, key)),
                    there,
                )
        return found

    @property
    def _compared(self) -> set[str]:
        return {name for first, second, _ in self.edges for name in (first, second)}

    def embed(self, name: str, params: Params, batch: Batch) -> Array:
        """Return unit vectors of a modality; of a tower with branches, theirs one after the other."""
        z, _ = self._vectors(name, params, batch, None)
        if isinstance(z, Mapping):
            parts = [z[branch] for branch in branch_names(self.towers[name])]
            return jnp.concatenate(parts, axis=-1) / math.sqrt(len(parts))
        return z

    def scale(self, params: Params, name: str, other: str) -> float | None:
        """Return what the loss multiplied similarities by to find `other` for `name`.

        None: there is no edge between them.
        """
        for number, (first, second, _) in enumerate(self.edges):
            if {name, other} == {first, second}:
                learned = params["logit_scale"][number][0 if name == first else -1]
                return float(np.exp(np.clip(learned, 0, np.log(self.max_scale))))
        return None


def _each(tower: Any, batch: Batch, name: str) -> tuple[Batch, tuple[int, ...]]:
    """Return a batch with the candidates of a modality as examples, and how they lay: (B, M), or ()."""
    lengths = batch.get(tower.length)
    if lengths is None or lengths.ndim < 2:
        return batch, ()
    entries = (name, getattr(tower, "entry", ""), tower.length)
    flat = {k: x.reshape(-1, *x.shape[2:]) for k, x in batch.items() if k in entries}
    # Attention over nothing would be NaN, and so its gradient.
    return {**flat, tower.length: jnp.maximum(flat[tower.length], 1)}, lengths.shape
