"""How the vectors of two modalities are compared: the functions that edges of `contrastive.py` are given.

Each returns both directions as rows, so that weights and devices are the caller's business.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float

POSITIVES = ("pairs", "labels", "texts")
Further = tuple[Array, Array] | None  # vectors [K, D], and which of them there are [K]


class Rows(NamedTuple):
    """What a direction gives for each example.

    Attributes:
      loss: [B].
      hits: 1 where the most similar is right [B].
      counted: 1 where the row has anything to find [B]; None: everywhere.
    """

    loss: Array
    hits: Array
    counted: Array | None = None


class PairLoss(abc.ABC):
    """Compares x with y [B, D], unit vectors; subclasses are frozen dataclasses."""

    @abc.abstractmethod
    def __call__(
        self,
        x: Array,
        y: Array,
        scales: tuple[Any, Any],
        batch: Mapping[str, Any],
        *,
        bias: Any = 0.0,
        further: tuple[Further, Further] = (None, None),
    ) -> tuple[Rows, Rows]:
        """Return the rows of x → y and those of y → x.

        Args:
          x, y: unit vectors.
          scales: factors of the similarities, of each direction.
          batch: for labels and the like.
          bias: added to the scaled similarities [B, B].
          further: negatives beside x, and beside y.
        """


@dataclasses.dataclass(frozen=True)
class InfoNce(PairLoss):
    """A softmax for each direction (van den Oord et al. 2018, arXiv:1807.03748; CLIP, arXiv:2103.00020).

    Attributes:
      positives: what is right for an example: "pairs" its own pair; "labels" all with the same label, or
        in the share of labels in common (needs an entry of labels); "texts" all with the same words.
      group: entry of the batch [B], as a listener's number: what others of the same group have is neither
        right nor wrong, and further negatives are those of the own group only; "": everything counts.
    """

    positives: str = "pairs"
    group: str = ""

    def __post_init__(self):
        if self.positives not in POSITIVES:
            raise ValueError(f"positives '{self.positives}': wanted one of {', '.join(POSITIVES)}.")

    def __call__(self, x, y, scales, batch, *, bias=0.0, further=(None, None)):  # noqa: D102
        positive, same = right_pairs(self.positives, batch), None
        if self.group:
            if self.group not in batch:
                raise ValueError(f"group '{self.group}': the batch has no such entry.")
            same = batch[self.group][:, None] == batch[self.group][None]
            bias = bias + jnp.where(same & ~jnp.eye(len(x), dtype=bool), -1e9, 0.0)
        ahead = self._rows(x, y, scales[0], positive, bias, further[1], same)
        return ahead, self._rows(y, x, scales[1], positive, bias, further[0], same)

    def _rows(
        self,
        x: Array,
        y: Array,
        scale: Any,
        right: Array | None,
        bias: Any,
        further: Further,
        same: Array | None,
    ) -> Rows:
        logits = scale * x @ y.T + bias
        if further is not None:
            far, there = further
            seen = there[None]
            if same is not None:
                seen = seen & jnp.repeat(same, len(far) // len(x), axis=1)
            # Finite, since rows of several positives multiply it by 0.
            column = jnp.where(seen, scale * x @ far.T, -1e9)
            logits = jnp.concatenate([logits, column], axis=1)
            right = None if right is None else jnp.pad(right, ((0, 0), (0, len(far))))
        logits = nn.with_logical_constraint(logits, ("batch", None))
        best = jnp.argmax(logits, axis=1)
        hits = best == jnp.arange(len(best))
        if right is not None:
            hits = jnp.take_along_axis(right, best[:, None], axis=1)[:, 0] > 0
        return Rows(losses.info_nce(logits, right), hits.astype(jnp.float32))


@dataclasses.dataclass(frozen=True)
class SupCon(PairLoss):
    """All others of both modalities with a label in common are right (Khosla et al. 2020, arXiv:2004.11362).

    Equation 2: the mean over the positives of their log probability, in one softmax over all others of both
    modalities. A row without positives does not count. Both directions' factor is their first.

    Attributes:
      within: also those of the same modality are compared; else the softmax is over the other's.
    """

    within: bool = True

    def __call__(self, x, y, scales, batch, *, bias=0.0, further=(None, None)):  # noqa: D102
        if further != (None, None) or not (isinstance(bias, float) and bias == 0):
            raise ValueError("pair_losses:SupCon takes no further negatives and no reversals.")
        same: Any = right_pairs("labels", batch)
        found = []
        for one, other in ((x, y), (y, x)):
            right, self_pair = same, None
            logits = scales[0] * one @ other.T
            if self.within:
                logits = jnp.concatenate([logits, scales[0] * one @ one.T], axis=1)
                itself = jnp.eye(len(one), dtype=bool)
                self_pair = jnp.pad(itself, ((0, 0), (len(one), 0)))
                right = jnp.concatenate([same, same], axis=1)
            logits = nn.with_logical_constraint(logits, ("batch", None))
            found.append(Rows(*losses.sup_con(logits, right, self_pair)))
        return found[0], found[1]


@dataclasses.dataclass(frozen=True)
class OneSoftmax(PairLoss):
    """One softmax over both directions, with one or more candidates y (VATT, arXiv:2104.11178, section 3.4).

    y is [B, D], or [B, M, D] for the candidates of MIL-NCE (arXiv:1912.06430), of which at least one fits.
    Both directions have the same loss. Their factor is the first one's.

    Attributes:
      there: entry of the batch, [B] or [B, M]: above 0 where there is a y; the rows of examples without any
        do not count, and what is missing is nobody's negative. "": all are there.
    """

    there: str = ""

    def __call__(self, x, y, scales, batch, *, bias=0.0, further=(None, None)):  # noqa: D102
        if further != (None, None) or not (isinstance(bias, float) and bias == 0):
            raise ValueError("pair_losses:OneSoftmax takes no further negatives and no reversals.")
        y = y[:, None] if y.ndim == 2 else y
        valid = jnp.ones(y.shape[:2])
        if self.there:
            given = (batch[self.there] > 0).astype(jnp.float32)
            valid = jnp.broadcast_to(given[:, None] if given.ndim == 1 else given, y.shape[:2])
        counted = jnp.max(valid, axis=1)
        loss = losses.joint_nce(x, y, 1 / scales[0], valid)
        scores = jnp.einsum("id,jmd->ijm", x, y)
        scores = jnp.max(jnp.where(valid[None] > 0, scores, -2.0), axis=2)
        scores = nn.with_logical_constraint(scores, ("batch", None))
        right = jnp.arange(len(x))
        found = []
        for axis in (1, 0):
            hits = (jnp.argmax(scores, axis=axis) == right).astype(jnp.float32)
            found.append(Rows(loss, hits * counted, counted))
        return found[0], found[1]


@dataclasses.dataclass(frozen=True)
class Near(PairLoss):
    """The distance 1 - cos of each pair, without negatives: what is learned stays near what was.

    A hit is a pair with a cosine above `close`.
    """

    close: float = 0.9

    def __call__(self, x, y, scales, batch, *, bias=0.0, further=(None, None)):  # noqa: D102
        del scales, batch, bias, further
        distance = losses.cosine_distance(x, y)
        rows = Rows(distance, (distance < 1 - self.close).astype(jnp.float32))
        return rows, rows


def right_pairs(positives: str, batch: Mapping[str, Any]) -> Float[Array, "B B"] | None:
    """Return the weights of right pairs, or None: the diagonal.

    Raises:
      ValueError: the batch has no entry that tells.
    """
    if positives == "pairs":
        return None
    entry = "label" if positives == "labels" else "text"
    if entry not in batch:
        raise ValueError(f"positives '{positives}': the batch has no '{entry}'.")
    if entry == "label":
        return batch["label"] @ batch["label"].T
    same = batch["text"][:, None] == batch["text"][None]
    return jnp.all(same, axis=-1).astype(jnp.float32)
