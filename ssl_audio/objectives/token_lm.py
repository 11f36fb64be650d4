"""Predict the codes of sound from those before and a condition, such as encoded words.

AudioGen (Kreuk et al. 2022, arXiv:2209.15352); MusicGen (Copet et al. 2023, arXiv:2306.05284).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.frontend.base import before
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Phase, Predictor
from ssl_audio.objectives.towers import Tower
from ssl_audio.quantizers.patterns import Pattern
from ssl_audio.slots import AnyObjective, Backbone
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class TokenLm(Objective):
    """Cross-entropy of the codes `batch["codes"]` [B, T, Q], in the order of a pattern.

    Every book counts the same, however many of its codes a pattern scores. The condition is
    `batch["condition"]` [B, M, C] and its `batch["condition_length"]` [B]; 0: none. With a `codec`, batches
    may have `audio` in place of codes; with a `text` tower, `text` in place of a condition.

    Attributes:
      model: `codes_lm`.
      pattern: `patterns:Delay`, …
      drop: share of the examples that are trained without their condition, for guidance.
      codec: `codec`, sound to codes and back; it does not learn. None: batches hold codes.
      text: words to the condition, which are its tokens before they are pooled. It learns unless `frozen`.
    """

    model: Backbone
    pattern: Pattern
    drop: float = 0.1
    codec: AnyObjective = None
    text: Tower | None = None

    interface: ClassVar[str] = "ssl_audio.inference.generator:Generator"

    def __post_init__(self):
        if self.model.books != self.pattern.books:
            raise ValueError(
                f"token_lm: pattern.books is {self.pattern.books}, model.books {self.model.books}; wanted "
                "the same."
            )
        if not 0 <= self.drop < 1:
            raise ValueError(f"token_lm: drop is {self.drop}; wanted 0 to 1, and less than 1.")
        if self.codec is not None:
            made = self.codec.quantizer
            if made.books < self.model.books or made.codes != self.model.codes:
                raise ValueError(
                    f"token_lm: the codec has {made.books} books of {made.codes} codes, the model "
                    f"{self.model.books} of {self.model.codes}; wanted the same."
                )
        if self.codec is not None or self.text is not None:
            learned = "model" if self.text is None or self.text.frozen else "model|text"
            object.__setattr__(self, "phases", (Phase(trains=f"^({learned})/"),))

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters."""
        params: dict[str, Any] = {}
        if self.codec is not None:
            heard = {"audio": jnp.zeros((1, self.codec.tokenizer.stride[1], self.codec.channels))}
            params["codec"] = self.codec.init(jax.random.fold_in(key, 1), heard)[0]
        if self.text is not None:
            params["text"] = self.text.init(jax.random.fold_in(key, 2), batch, "text")
        _, columns, condition, valid = self.given(params, batch)
        return params | {"model": self.model.init(key, columns, condition, valid)["params"]}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean over books of the cross-entropy of their codes."""
        codes, columns, condition, valid = self.given(params, batch)
        if train:
            kept = jax.random.bernoulli(key, 1 - self.drop, (len(columns), 1))
            valid = valid & kept
        logits = self.model.apply({"params": params["model"]}, columns, condition, valid)
        entropy, there = self.scored(logits, codes)
        if "codes_length" in batch:
            there = there & before(batch["codes_length"], entropy.shape[1])[..., None]
        counts = jnp.sum(there, (0, 1)).astype(jnp.float32)
        sums = jnp.sum(jnp.where(there, entropy, 0), (0, 1))
        each = sums / jnp.maximum(counts, 1)
        metrics = {"entropy": (jnp.sum(sums), jnp.sum(counts))}
        means = {"books": (each / len(each), counts)}
        return Loss(total=jnp.mean(each), metrics=metrics, extra=extra, means=means)

    def given(
        self, params: Params, batch: Batch
    ) -> tuple[Int[Array, "B T Q"], Int[Array, "B L Q"], Float[Array, "B M C"], Bool[Array, "B M"]]:
        """Return a batch's codes, their columns, its condition, and which parts of that exist."""
        codes = (
            batch["codes"] if self.codec is None or "codes" in batch else self.heard(params, batch)
        )
        columns = self.pattern.spread(codes, self.model.codes, trained=True)
        return codes, columns, *self.condition(params, batch)

    def heard(self, params: Params, batch: Batch) -> Int[Array, "B T Q"]:
        """Return the codes of sound."""
        codes, _ = self.codec.codes(params["codec"], {}, batch)
        return codes[..., : self.model.books]

    def condition(
        self, params: Params, batch: Batch
    ) -> tuple[Float[Array, "B M C"], Bool[Array, "B M"]]:
        """Return the condition of a batch, and which parts of it exist."""
        if self.text is None or "condition" in batch:
            found, length = batch["condition"], batch["condition_length"]
        else:
            found = self.text.encode(params["text"], batch, "text").tokens.x
            length = batch[self.text.length]
        return found, before(length, found.shape[1])

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
        """Offer "logits", and what its parts are for: "codes" of sound, "condition" of words."""
        found: dict[str, Predictor] = {"logits": self.logits}
        if self.codec is not None:
            found["codes"] = lambda params, extra, batch: self.heard(params, batch)
        if self.text is not None:
            found["condition"] = lambda params, extra, batch: self.condition(params, batch)
        return found

    def logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B L Q V"]:
        """Return what the model says at each column of the pattern."""
        del extra
        return self.model.apply({"params": params["model"]}, *self.given(params, batch)[1:])
