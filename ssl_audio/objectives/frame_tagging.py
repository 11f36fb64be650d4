"""Supervised detection of events: which classes are heard in each frame, learned from onsets or clips."""

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

    Frames with `batch["heard"]` 0 are padding, or nobody has marked them, and count nowhere. With `clips`
    also what is somewhere in a clip is learned: `batch["tags"]` [B, C], of clips with `batch["tagged"]` 1
    (weak labels). The loss is `frames` times the mean over frames and `clips` times that over clips.

    Attributes:
      frontend, tokenizer, encoder: as in pretraining.
      head: Encoded → logits, called with `along=True` for those of the columns (`classify:Frames`).
        Without it gives it those of clips, by its way of pooling.
      criterion: "sigmoid" or "asymmetric" (`losses.asymmetric`), on each frame and clip.
      spec_augment: hides a band and a stretch of the raw log-mel in training.
      window: columns that are encoded together, as in pretraining on short clips. 0: the whole clip.
      frames, clips: weights of the two losses.
    """

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    head: Head
    criterion: str = "sigmoid"
    spec_augment: SpecAugment | None = None
    window: int = 0
    frames: float = 1.0
    clips: float = 0.0

    def __post_init__(self):
        if self.criterion not in LOSSES:
            raise ValueError(f"criterion '{self.criterion}': wanted one of {', '.join(LOSSES)}.")
        if min(self.frames, self.clips) < 0 or not self.frames + self.clips:
            raise ValueError(
                f"frames, clips: got {self.frames:g} and {self.clips:g}; wanted 0 or more, and not both 0."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, 3)
        spec = self.frontend(batch["audio"], batch["length"])
        count = self._count(spec, batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec, *count)
        encoder = self.encoder.init(keys[1], self._cut(tokens), layers=True)
        # A module without parameters has no entry in a checkpoint either.
        params = {"tokenizer": tokenizer.get("params", {}), "encoder": encoder.get("params", {})}
        encoded = self._inside(self._encoded(params, tokens), batch["length"])
        logits, head = self.head.init_with_output(keys[2], encoded, along=True)
        if self.clips and "tags" not in batch:
            raise ValueError(
                f"objective.clips={self.clips:g}: no labels of clips; give data.entries.audio weak=True."
            )
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
        encoded = self._heard(params, batch, key if train else None)
        logits = self._logits(params, encoded, along=True)
        events, heard = batch["events"], batch["heard"]
        each = LOSSES[self.criterion](
            logits.reshape(-1, logits.shape[-1]), events.reshape(-1, events.shape[-1])
        )
        parts = {"frame": (jnp.sum(each * heard.reshape(-1)), jnp.sum(heard))}
        if self.clips:
            each = LOSSES[self.criterion](self._logits(params, encoded), batch["tags"])
            parts["clip"] = (jnp.sum(each * batch["tagged"]), jnp.sum(batch["tagged"]))
        weights = {"frame": self.frames, "clip": self.clips}
        means = {
            name: (weights[name] * s / jnp.maximum(n, 1.0), n) for name, (s, n) in parts.items()
        }
        total = sum(term for term, _ in means.values())
        said = (logits > 0) * heard[..., None]
        true = (events > 0.5) * heard[..., None]
        right = jnp.sum(said * true)
        metrics = parts if self.clips else {}
        metrics |= {"precision": (right, jnp.sum(said)), "recall": (right, jnp.sum(true))}
        return Loss(total=total, metrics=metrics, extra=extra, means=means)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode", "logits" of clips and "frame_logits" of their columns."""
        offers = {"logits": self.logits, "frame_logits": self.frame_logits}
        return {**super().predictors(), **offers}

    def frame_logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B T C"]:
        """Return the logits of each column."""
        del extra
        return self._logits(params, self._heard(params, batch, None), along=True)

    def logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B C"]:
        """Return the logits of each clip, of the columns that begin before its end."""
        del extra
        return self._logits(params, self._heard(params, batch, None))

    def _logits(self, params, encoded, **how) -> Array:
        logits: Any = self.head.apply({"params": params["head"]}, encoded, **how)
        return logits

    def _heard(self, params, batch, key) -> Encoded:
        """Return the encoded batch; a key means training."""
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
        return self._inside(self._encoded(params, tokens, rngs), length)

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

    def _inside(self, encoded, length) -> Encoded:
        """Return encoded tokens, of which those of columns that begin behind a clip's end are not valid."""
        found = encoded.tokens
        step = self.tokenizer.stride[1] * getattr(self.encoder, "joined", 1) * self.frontend.hop
        begins = jnp.arange(found.grid[1]) * step
        inside = (begins[None] < length[:, None]) | (begins == 0)[None]
        clips = length.shape[0]
        inside = jnp.broadcast_to(inside[:, None], (clips, *found.grid)).reshape(clips, -1)
        return dataclasses.replace(encoded, tokens=dataclasses.replace(found, valid=inside))

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
