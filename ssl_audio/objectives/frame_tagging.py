"""Supervised detection of events: which classes are heard in each frame."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.backbones import stretches
from ssl_audio.frontend.augment import SpecAugment
from ssl_audio.frontend.base import counted
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor
from ssl_audio.slots import AnyFrontend, Backbone, Head, Tokenizer
from ssl_audio.structs import Encoded, Loss, Tokens

LOSSES = {"sigmoid": losses.sigmoid_cross_entropy, "asymmetric": losses.asymmetric}


@dataclasses.dataclass(frozen=True)
class FrameTagging(Encoding):
    """Fit `batch["events"]` [B, T, C], how much of each frame each class is heard in.

    Frames with `batch["heard"]` 0 are padding and count nowhere.

    Attributes:
      frontend, tokenizer, encoder: as in pretraining.
      head: Encoded → logits, called with `along=True` for those of the columns (`classify:Frames`).
      criterion: "sigmoid" or "asymmetric" (`losses.asymmetric`), on each frame.
      spec_augment: hides a band and a stretch of the raw log-mel in training.
      window: columns that are encoded together, as in pretraining on short clips. 0: the whole clip.
    """

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    head: Head
    criterion: str = "sigmoid"
    spec_augment: SpecAugment | None = None
    window: int = 0

    def __post_init__(self):
        if self.criterion not in LOSSES:
            raise ValueError(f"criterion '{self.criterion}': wanted one of {', '.join(LOSSES)}.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, 3)
        spec = self.frontend(batch["audio"], batch["length"])
        count = self._count(spec, batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec, *count)
        encoder = self.encoder.init(keys[1], self._cut(tokens), layers=True)
        # A module without parameters has no entry in a checkpoint either.
        params = {"tokenizer": tokenizer.get("params", {}), "encoder": encoder.get("params", {})}
        encoded = self._encoded(params, tokens)
        logits, head = self.head.init_with_output(keys[2], encoded, along=True)
        if "events" in batch and batch["events"].shape[1:] != logits.shape[1:]:
            raise ValueError(
                "objective.head.classes and the model's columns: got {} columns and {} classes, wanted those "
                "of data.entries.audio, frames={} and classes={}: make them the same.".format(
                    *logits.shape[1:], *batch["events"].shape[1:]
                )
            )
        return {**params, "head": head["params"]}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean loss over frames, and how many of those said to have a class are right.

        "precision": of those that the model says have a class (0.5), "recall": of those that have it.
        """
        logits = self._frame_logits(params, batch, key if train else None)
        events, heard = batch["events"], batch["heard"]
        each = LOSSES[self.criterion](
            logits.reshape(-1, logits.shape[-1]), events.reshape(-1, events.shape[-1])
        )
        total = jnp.sum(each * heard.reshape(-1)) / jnp.maximum(jnp.sum(heard), 1.0)
        said = (logits > 0) * heard[..., None]
        true = (events > 0.5) * heard[..., None]
        right = jnp.sum(said * true)
        metrics = {"precision": (right, jnp.sum(said)), "recall": (right, jnp.sum(true))}
        return Loss(total=total, metrics=metrics, extra=extra)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode", "logits" of clips and "frame_logits" of their columns."""
        offers = {"logits": self.logits, "frame_logits": self.frame_logits}
        return {**super().predictors(), **offers}

    def frame_logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B T C"]:
        """Return the logits of each column."""
        del extra
        return self._frame_logits(params, batch, None)

    def logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B C"]:
        """Return the logits of each clip: the highest of the columns that begin before its end."""
        logits = self.frame_logits(params, extra, batch)
        step = self.tokenizer.stride[1] * getattr(self.encoder, "joined", 1) * self.frontend.hop
        begins = jnp.arange(logits.shape[1]) * step
        inside = (begins[None] < batch["length"][:, None]) | (begins == 0)[None]
        return jnp.max(jnp.where(inside[..., None], logits, -jnp.inf), axis=1)

    def _frame_logits(self, params, batch, key):
        audio, length = batch["audio"], batch["length"]
        rngs = None
        if key is None:
            spec = self.frontend(audio, length)
        else:
            mask_key, place_key, key = jax.random.split(key, 3)
            rngs = {"drop_path": key, "positions": place_key}
            spec = self._augmented(audio, length, mask_key)
        count = self._count(spec, length)
        tokens: Any = self.tokenizer.apply({"params": params.get("tokenizer", {})}, spec, *count)
        encoded = self._encoded(params, tokens, rngs)
        return self.head.apply({"params": params["head"]}, encoded, along=True)

    def _augmented(self, audio, length, key):
        if not self.spec_augment:
            return self.frontend(audio, length)
        masked = self.spec_augment(self.frontend.log_mel(audio, length), key)
        return self.frontend.normalise(masked)

    def _encoded(self, params, tokens, rngs=None) -> Encoded:
        encoded: Any = self.encoder.apply(
            {"params": params.get("encoder", {})},
            self._cut(tokens),
            train=rngs is not None,
            layers=True,
            rngs=rngs,
        )
        return stretches.join(encoded, tokens) if self.window else encoded

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Encode audio; `layers` of the result is filled."""
        del extra
        tokens: Any = self.tokenized({"params": params.get("tokenizer", {})}, batch)
        return self._encoded(params, tokens)

    def _count(self, spec, length) -> tuple:
        takes = getattr(self.tokenizer, "takes_count", False)
        return (counted(self.frontend, spec, length),) if takes else ()

    def _cut(self, tokens: Tokens) -> Tokens:
        return stretches.cut(tokens, self.window) if self.window else tokens
