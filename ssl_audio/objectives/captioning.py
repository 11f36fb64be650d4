"""Captions: a language model says in words what an encoder hears.

ClipCap (Mokady et al. 2021, arXiv:2111.09734), on sound and with a small model that is learned from nothing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.frontend.base import before
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Phase, Predictor
from ssl_audio.slots import AnyFrontend, AnyObjective, Backbone, Head, Tokenizer
from ssl_audio.structs import Encoded, Loss


@dataclasses.dataclass(frozen=True)
class Captioning(Encoding):
    """Cross-entropy of a caption's words `batch["text"]` [B, W], each from the clip and the words before.

    K vectors of the clip, the prefix, are made of the encoder's tokens; the layers of the language model
    attend to them at every word, in place of reading them first. All `text_length` [B] words count, and the
    number that ends a caption, where there is room for it.

    Attributes:
      frontend, tokenizer, encoder: as in pretraining.
      prefix: Encoded → [B, K, D] (`prefix_queries`).
      words: language model of one book, whose condition the prefix is (`token_lm`).
      end: word number that ends a caption: padding, 0.
      frozen: the encoder does not learn.
    """

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    prefix: Head
    words: AnyObjective
    end: int = 0
    frozen: bool = True

    interface: ClassVar[str] = "ssl_audio.inference.captioner:Captioner"

    def __post_init__(self):
        model = self.words.model
        if model.books != 1:
            raise ValueError(f"captioning: words.model has {model.books} books; wanted 1.")
        if not 0 <= self.end < model.codes:
            raise ValueError(
                f"captioning: end is {self.end}, words.model.codes {model.codes}; wanted one of its numbers."
            )
        if self.frozen:
            object.__setattr__(self, "phases", (Phase(trains="^(prefix|words)/"),))

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, 4)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoder = self.encoder.init(keys[1], tokens, layers=True)
        # A module without parameters has no entry in a checkpoint either.
        params = {"tokenizer": tokenizer.get("params", {}), "encoder": encoder.get("params", {})}
        told, prefix = self.prefix.init_with_output(keys[2], self._heard(params, batch, None))
        text = batch.get("text", jnp.zeros((len(told), 2), jnp.int32))
        said = self._said(told, text, batch.get("text_length", jnp.ones(len(told), jnp.int32)))
        words, _ = self.words.init(keys[3], said)
        return params | {"prefix": prefix["params"], "words": words}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean cross-entropy of the words, and the share of them that are the likeliest."""
        told = self._told(params, batch, key if train else None)
        said = self._said(told, batch["text"], batch["text_length"])
        codes, logits = said["codes"], self.words.logits(params["words"], {}, said)
        entropy, _ = self.words.scored(logits, codes)
        found, _ = self.words.pattern.gathered(
            logits, codes.shape[1], 0.0, trained=True, predicted=True
        )
        inside = before(said["codes_length"], codes.shape[1])[..., None]
        right = jnp.sum((jnp.argmax(found, -1) == codes) & inside)
        words = jnp.sum(inside).astype(jnp.float32)
        entropy = jnp.sum(jnp.where(inside, entropy, 0))
        metrics = {"entropy": (entropy, words), "accuracy": (right.astype(jnp.float32), words)}
        total = entropy / jnp.maximum(words, 1)
        return Loss(total=total, metrics=metrics, extra=extra, means={"entropy": (total, words)})

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode", and "prefix": what the words are told of a clip."""

        def prefix(params: Params, extra: Extra, batch: Batch) -> Float[Array, "B K D"]:
            del extra
            return self._told(params, batch, None)

        return {**super().predictors(), "prefix": prefix}

    def _told(self, params: Params, batch: Batch, key: Any) -> Float[Array, "B K D"]:
        told: Any = self.prefix.apply({"params": params["prefix"]}, self._heard(params, batch, key))
        return told

    def _heard(self, params: Params, batch: Batch, key: Any) -> Encoded:
        """Return the encoded clips, of which columns that begin behind a clip's end are not valid."""
        own = {name: params.get(name, {}) for name in ("tokenizer", "encoder")}
        rngs = None
        if self.frozen:
            own = jax.lax.stop_gradient(own)
        elif key is not None:
            place_key, key = jax.random.split(key)
            rngs = {"drop_path": key, "positions": place_key}
        tokens: Any = self.tokenized({"params": own["tokenizer"]}, batch)
        encoded: Any = self.encoder.apply(
            {"params": own["encoder"]}, tokens, train=rngs is not None, rngs=rngs
        )
        found = encoded.tokens
        step = self.tokenizer.stride[1] * getattr(self.encoder, "joined", 1) * self.frontend.hop
        begins = jnp.arange(found.grid[1]) * step
        inside = (begins[None] < batch["length"][:, None]) | (begins == 0)[None]
        valid = jnp.broadcast_to(inside[:, None], (len(inside), *found.grid)).reshape(
            len(inside), -1
        )
        valid = valid if found.valid is None else valid & found.valid
        return dataclasses.replace(encoded, tokens=dataclasses.replace(found, valid=valid))

    def _said(self, told: Float[Array, "B K D"], text: Array, length: Array) -> dict[str, Array]:
        """Return the batch of the language model."""
        clips, count = told.shape[:2]
        words = jnp.arange(text.shape[1])[None]
        return {
            "codes": jnp.where(words < length[:, None], text, self.end)[..., None],
            "codes_length": length + 1,  # the end counts, too
            "condition": told,
            "condition_length": jnp.full(clips, count, jnp.int32),
        }
