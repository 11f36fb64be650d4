"""Supervised classification of clips, from scratch or from a pretrained encoder (warm start)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.backbones import stretches
from ssl_audio.frontend.augment import NoiseRoll, SpecAugment
from ssl_audio.frontend.base import counted
from ssl_audio.objectives import statistics
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.slots import AnyFrontend, Backbone, Head, Masking, Tokenizer
from ssl_audio.structs import Encoded, Loss
from ssl_audio.tokens.masking import others
from ssl_audio.tokens.order import reorder

LOSSES = {
    "softmax": losses.softmax_cross_entropy,
    "sigmoid": losses.sigmoid_cross_entropy,
    "asymmetric": losses.asymmetric,
}


@dataclasses.dataclass(frozen=True)
class Tagging(Objective):
    """Fit `batch["label"]` [B, C], multi-hot or mixed; `batch["weight"]` [B], if there, weighs the clips.

    Those whose `batch["labelled"]` [B] is 0, if it is there, count neither in the loss nor in metrics.

    Attributes:
      frontend, tokenizer, encoder: as in pretraining; patches may overlap here.
      head: Encoded → logits.
      criterion: "softmax" (one label a clip), "sigmoid" (any number of labels) or "asymmetric" (any
        number, of many classes that are rare: `losses.asymmetric`).
      smoothing: in training, this share of each label is spread evenly: over all classes for "softmax",
        over yes and no otherwise (Szegedy et al. 2016, arXiv:1512.00567, section 7).
      spec_augment: hides a band and a stretch of the raw log-mel in training.
      noise: adds noise and rolls the normalised log-mel in training.
      masking: which patches to leave out in training; the head must do without the whole grid.
      window: columns that are encoded together, as in pretraining on short clips; the head sees the
        joined grid. 0: the whole clip.
    """

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    head: Head
    criterion: str = "softmax"
    smoothing: float = 0.0
    spec_augment: SpecAugment | None = None
    noise: NoiseRoll | None = None
    masking: Masking = None
    window: int = 0

    def __post_init__(self):
        if self.criterion not in LOSSES:
            raise ValueError(f"criterion '{self.criterion}': wanted one of {', '.join(LOSSES)}.")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing {self.smoothing}: wanted at least 0 and below 1.")
        if self.masking and self.window:
            raise ValueError(
                "masking and window: wanted one of them; windows are of the whole grid."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, 3)
        spec = self._spec(batch, None)
        length = batch["length"]
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoder = self.encoder.init(keys[1], self._cut(tokens), layers=True)
        # A module without parameters has no entry in a checkpoint either.
        weights = {"tokenizer": tokenizer.get("params", {}), "encoder": encoder["params"]}
        encoded, _ = self._encode(weights, spec, length, None)
        logits, head = self.head.init_with_output(keys[2], encoded)
        if "label" in batch and batch["label"].shape[-1] != logits.shape[-1]:
            raise ValueError(
                f"objective.head.classes: got {logits.shape[-1]}, wanted the {batch['label'].shape[-1]} of "
                "the batch's labels, data.entries.label.classes: make them the same number."
            )
        return {**weights, "head": head["params"]}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the weighted mean loss and the share of clips whose best class is a right one."""
        logits, after = self._logits(params, batch, key if train else None)
        label = batch["label"]
        if train and self.smoothing:
            outcomes = label.shape[-1] if self.criterion == "softmax" else 2
            label = (1 - self.smoothing) * label + self.smoothing / outcomes
        value = LOSSES[self.criterion](logits, label)
        best = jnp.argmax(logits, -1)
        right = jnp.take_along_axis(batch["label"], best[:, None], 1)[:, 0] >= jnp.max(
            batch["label"], -1
        )
        known, weight = batch.get("labelled", jnp.ones(len(logits))), batch.get("weight")
        if "labelled" in batch:
            weight = known if weight is None else known * weight
        metrics = {"accuracy": (jnp.sum(known * right), jnp.sum(known))}
        renewed = statistics.renewed(params, after)
        total = losses.weighted_mean(value, weight)
        means = None if weight is None else {"clips": (total, jnp.sum(weight))}
        return Loss(total, metrics, extra, renewed, means=means)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode" and "logits"."""
        return {"encode": self.encode, "logits": self.logits}

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Encode audio; `layers` of the result is filled."""
        del extra
        return self._encode(params, self._spec(batch, None), batch["length"], None)[0]

    def logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B C"]:
        """Return class logits."""
        del extra
        return self._logits(params, batch, None)[0]

    def _logits(self, params, batch, key):
        """Return logits, and the parameters with renewed statistics; with a key, in training."""
        keys = (None, None) if key is None else jax.random.split(key)
        encoded, params = self._encode(params, self._spec(batch, keys[0]), batch["length"], keys[1])
        logits, head = statistics.applied(self.head, params["head"], encoded, renew=key is not None)
        return logits, params | {"head": head}

    def _encode(self, params, spec, length, key) -> tuple[Encoded, Params]:
        takes_count = getattr(self.tokenizer, "takes_count", False)
        count = (counted(self.frontend, spec, length),) if takes_count else ()
        tokens: Any
        tokens, tokenizer = statistics.applied(
            self.tokenizer, params.get("tokenizer", {}), spec, *count, renew=key is not None
        )
        rngs, train = None, key is not None
        if key is not None:
            mask_key, place_key, key = jax.random.split(key, 3)
            rngs = {"drop_path": key, "positions": place_key}
            if self.masking:
                hidden = self.masking(mask_key, len(tokens.x), tokens.grid)
                tokens = reorder(tokens, others(hidden, tokens.x.shape[1]))
        encoded, encoder = statistics.applied(
            self.encoder,
            params["encoder"],
            self._cut(tokens),
            renew=train,
            train=train,
            layers=True,
            rngs=rngs,
        )
        encoded = stretches.join(encoded, tokens) if self.window else encoded
        return encoded, params | {"tokenizer": tokenizer, "encoder": encoder}

    def _cut(self, tokens):
        return stretches.cut(tokens, self.window) if self.window else tokens

    def _spec(self, batch, key):
        """Return the log-mel; masks go on before normalisation and noise after, as in SSAST's loader."""
        audio, length = batch["audio"], batch["length"]
        if key is None:
            return self.frontend(audio, length)
        mask_key, noise_key = jax.random.split(key)
        if self.spec_augment:
            spec = self.spec_augment(self.frontend.log_mel(audio, length), mask_key)
            spec = self.frontend.normalise(spec)
        else:
            spec = self.frontend(audio, length)
        return self.noise(spec, noise_key) if self.noise else spec
