"""Vectors of items from the lists that they are in: skip-gram with negative sampling.

word2vec (Mikolov et al. 2013, arXiv:1310.4546), with lists for sentences.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.frontend.base import before
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.slots import Tokenizer
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class SkipGram(Objective):
    """Tell the neighbours of an item in `batch["items"]` [B, N] from items drawn at random.

    Those are drawn as often as items occurred so far, to a power. Vectors of the neighbours are parameters of
    their own, `context`, as in the paper.

    Attributes:
      items: `tokens/lookup.py`.
      window: neighbours on each side at most; how many is drawn for each item anew, as the paper's code does.
      negatives: drawn for each neighbour.
      power: of the frequencies.
    """

    items: Tokenizer
    window: int = 5
    negatives: int = 5
    power: float = 0.75

    interface: ClassVar[str] = "ssl_audio.inference.sequences:SequenceModel"

    def __post_init__(self):
        if self.window < 1 or self.negatives < 1:
            raise ValueError(
                f"window {self.window}, negatives {self.negatives}: wanted at least 1 of each."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and each item counted once."""
        valid = before(batch["items_length"], batch["items"].shape[1])
        made = self.items.init(key, batch["items"], valid)["params"]
        params = {"items": made, "context": jax.tree.map(jnp.zeros_like, made)}
        return params, {"counts": jnp.ones(self.items.count, jnp.float32)}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean over pairs of neighbours; a pair is as much as its negatives together."""
        items = batch["items"]
        valid = before(batch["items_length"], items.shape[1])
        reach, draw = jax.random.split(key)
        other, there = self.neighbours(items, valid, reach if train else None)
        counts = extra["counts"]
        if train:
            counts = counts.at[items].add(valid.astype(jnp.float32))
        false = self.drawn(counts, draw, (*other.shape, self.negatives))
        centre = params["items"]["table"][items]
        table = params["context"]["table"]
        right = jnp.einsum("bnd,bnod->bno", centre, table[other])
        wrong = jnp.einsum("bnd,bnokd->bnok", centre, table[false])
        # The neighbour itself is no false one.
        apart = (false != other[..., None]).astype(jnp.float32)
        value = -jax.nn.log_sigmoid(right) - jnp.sum(apart * jax.nn.log_sigmoid(-wrong), -1)
        count = jnp.sum(there).astype(jnp.float32)
        total = jnp.sum(jnp.where(there, value, 0)) / jnp.maximum(count, 1)
        above = (right[..., None] > wrong).astype(jnp.float32) * apart * there[..., None]
        pairs = jnp.sum(apart * there[..., None])
        metrics = {"told_apart": (jnp.sum(above), pairs)}
        means = {"pairs": (total, count)}
        return Loss(total, metrics, extra={**extra, "counts": counts}, means=means)

    def neighbours(
        self, items: Int[Array, "B N"], valid: Bool[Array, "B N"], key: Array | None = None
    ) -> tuple[Int[Array, "B N O"], Bool[Array, "B N O"]]:
        """Return the items at each offset -window … window but 0, and which are neighbours."""
        offsets = jnp.concatenate([jnp.arange(-self.window, 0), jnp.arange(1, self.window + 1)])
        place = jnp.arange(items.shape[1])[:, None] + offsets[None]  # [N, O]
        inside = (place >= 0) & (place < items.shape[1])
        place = jnp.clip(place, 0, items.shape[1] - 1)
        there = inside[None] & valid[:, place] & valid[..., None]
        if key is not None:
            reach = jax.random.randint(key, items.shape, 1, self.window + 1)
            there = there & (jnp.abs(offsets)[None, None] <= reach[..., None])
        return items[:, place], there

    def drawn(self, counts: Float[Array, " V"], key: Array, shape: Any) -> Array:
        """Return items drawn by their counts to the power."""
        steps = jnp.cumsum(counts**self.power)
        return jnp.minimum(
            jnp.searchsorted(steps, jax.random.uniform(key, shape) * steps[-1], side="right"),
            len(counts) - 1,
        ).astype(jnp.int32)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "embed_items": the mean of a list's vectors [B, D]."""
        return {"embed_items": self.embed}

    def embed(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B D"]:
        """Return the mean of the items' vectors."""
        del extra
        valid = before(batch["items_length"], batch["items"].shape[1])[..., None]
        vectors = params["items"]["table"][batch["items"]]
        return jnp.sum(jnp.where(valid, vectors, 0), 1) / jnp.maximum(jnp.sum(valid, 1), 1)
