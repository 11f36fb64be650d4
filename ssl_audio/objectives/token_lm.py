"""Predict the codes of sound from those before and a condition, such as encoded words.

AudioGen (Kreuk et al. 2022, arXiv:2209.15352); MusicGen (Copet et al. 2023, arXiv:2306.05284).
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.frontend.base import before
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.quantizers.patterns import Pattern
from ssl_audio.slots import Backbone
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class TokenLm(Objective):
    """Cross-entropy of the codes `batch["codes"]` [B, T, Q], in the order of a pattern.

    Every book counts the same, however many of its codes a pattern scores. The condition is
    `batch["condition"]` [B, M, C] and its `batch["condition_length"]` [B]; 0: none.

    Attributes:
      model: `codes_lm`.
      pattern: `patterns:Delay`, …
      drop: share of the examples that are trained without their condition, for guidance.
    """

    model: Backbone
    pattern: Pattern
    drop: float = 0.1

    interface: ClassVar[str] = "ssl_audio.inference.model:Model"

    def __post_init__(self):
        if self.model.books != self.pattern.books:
            raise ValueError(
                f"token_lm: pattern.books is {self.pattern.books}, model.books {self.model.books}; wanted "
                "the same."
            )
        if not 0 <= self.drop < 1:
            raise ValueError(f"token_lm: drop is {self.drop}; wanted 0 to 1, and less than 1.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters."""
        codes, condition, valid = self.given(batch)
        return {"model": self.model.init(key, codes, condition, valid)["params"]}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean over books of the cross-entropy of their codes."""
        columns, condition, valid = self.given(batch)
        if train:
            kept = jax.random.bernoulli(key, 1 - self.drop, (len(columns), 1))
            valid = valid & kept
        logits = self.model.apply({"params": params["model"]}, columns, condition, valid)
        entropy, there = self.scored(logits, batch["codes"])
        if "codes_length" in batch:
            there = there & before(batch["codes_length"], entropy.shape[1])[..., None]
        counts = jnp.sum(there, (0, 1)).astype(jnp.float32)
        sums = jnp.sum(jnp.where(there, entropy, 0), (0, 1))
        total = jnp.mean(sums / jnp.maximum(counts, 1))
        metrics = {"entropy": (jnp.sum(sums), jnp.sum(counts))}
        return Loss(total=total, metrics=metrics, extra=extra)

    def given(
        self, batch: Batch
    ) -> tuple[Int[Array, "B L Q"], Float[Array, "B M C"], Bool[Array, "B M"]]:
        """Return the columns of a batch's codes, its condition, and which parts of that exist."""
        columns = self.pattern.spread(batch["codes"], self.model.codes, trained=True)
        condition = batch["condition"]
        return columns, condition, before(batch["condition_length"], condition.shape[1])

    def scored(
        self, logits: Float[Array, "B L Q V"], codes: Int[Array, "B T Q"]
    ) -> tuple[Float[Array, "B T Q"], Bool[Array, "B T Q"]]:
        """Return the cross-entropy of each code, and which codes are scored."""
        found, there = self.pattern.gathered(
            logits, codes.shape[1], 0.0, trained=True, predicted=True
        )
        right = jnp.take_along_axis(found, codes[..., None], -1)[..., 0]
        entropy = jax.nn.logsumexp(found, -1) - right
        return entropy, jnp.broadcast_to(jnp.asarray(there)[None], entropy.shape)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "logits"."""
        return {"logits": self.logits}

    def logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B L Q V"]:
        """Return what the model says at each column of the pattern."""
        del extra
        return self.model.apply({"params": params["model"]}, *self.given(batch))
