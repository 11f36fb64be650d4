"""Learn given labels while the encoder's own last layer teaches its earlier ones.

The student of UnFuSeD (Seth et al. 2023, arXiv:2303.05668), whose labels are clusters of a teacher's
features; after Zhang et al. 2019 (arXiv:1905.08094).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.heads.readout import mean_of_layer
from ssl_audio.objectives import base, statistics
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor
from ssl_audio.slots import AnyFrontend, Augment, Backbone, Head, Projector, Tokenizer
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class LayerDistill(Encoding):
    """Fit `batch["label"]` [B, C] at the end of an encoder and at some of its layers, which follow the end.

    Four terms: cross-entropy of the last classifier; and summed over the layers, that of each one's own
    classifier, the divergence of its probabilities from the last one's, and twice the cosine distance of
    the two vectors of logits. The last classifier gets the gradients of all four.

    Attributes:
      frontend, tokenizer: of any encoder.
      encoder: one that returns layers; they may differ in size.
      head: Encoded → logits, the last classifier.
      shallow: mean of a layer's tokens → logits; every layer has one of its own.
      layers: numbers of the layers that are taught.
      own, follow, align: weights of the three sums.
      views: draws a view of each log-mel for training; None: none.
    """

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    head: Head
    shallow: Projector
    layers: tuple[int, ...] = (0, 1, 2)
    own: float = 0.7
    follow: float = 0.3
    align: float = 0.003
    views: Augment | None = None

    def __post_init__(self):
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers is {self.layers}; wanted different numbers, one at least.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and what the views remember."""
        keys = jax.random.split(key, 3 + len(self.layers))
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens, layers=True)
        there = 0 if encoded.layers is None else len(encoded.layers)
        if not all(-there <= number < there for number in self.layers):
            raise ValueError(
                f"objective.layers: got {self.layers}, but {type(self.encoder).__name__} returns {there} "
                "layers: name some of them, counted from 0, or take an encoder that has them."
            )
        logits, head = self.head.init_with_output(keys[2], encoded)
        shallow = {}
        for key, number in zip(keys[3:], self.layers, strict=True):
            out, made = self.shallow.init_with_output(key, mean_of_layer(encoded, number))
            if out.shape != logits.shape:
                raise ValueError(
                    f"objective.shallow: got logits {out.shape}, wanted {logits.shape} as of objective.head."
                )
            shallow[_name(number)] = made["params"]
        base.check_labelled(batch)
        if "label" in batch and batch["label"].shape[-1] != logits.shape[-1]:
            raise ValueError(
                f"objective.head.classes: got {logits.shape[-1]}, wanted the {batch['label'].shape[-1]} of "
                "the batch's labels, data.entries.label.classes: make them the same number."
            )
        found = {"tokenizer": tokenizer, "encoder": encoder, "head": head}
        params = {name: variables.get("params", {}) for name, variables in found.items()}
        extra = {} if self.views is None else {"views": self.views.empty(spec)}
        return params | {"shallow": shallow}, extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the sum of the four terms."""
        spec = self.frontend(batch["audio"], batch["length"])
        if train and self.views is not None:
            view_key, key = jax.random.split(key)
            seen = self.views(spec, extra["views"], view_key)
            extra = extra | {"views": self.views.remember(extra["views"], spec)}
            spec = seen
        logits, shallow, after = self.classified(params, spec, key if train else None)
        terms = self.terms(logits, shallow, batch["label"])
        weight = float(len(logits))
        right = jnp.argmax(logits, -1) == jnp.argmax(batch["label"], -1)
        metrics = {name: (weight * jnp.sum(value), weight) for name, value in terms.items()}
        metrics["accuracy"] = (jnp.sum(right.astype(jnp.float32)), weight)
        return Loss(
            total=self.total(terms),
            metrics=metrics,
            extra=extra,
            renewed=statistics.renewed(params, after),
        )

    def classified(
        self, params: Params, spec: Float[Array, "B T F"], key: Array | None = None
    ) -> tuple[Float[Array, "B C"], Sequence[Float[Array, "B C"]], Params]:
        """Return logits of the end and of each layer, and the parameters with renewed statistics.

        Args:
          params: of all parts.
          spec: normalised log-mel.
          key: in training; None: with stored statistics and without dropout.
        """
        train, after = key is not None, dict(params)
        tokens: Any
        tokens, after["tokenizer"] = statistics.applied(
            self.tokenizer, params.get("tokenizer", {}), spec, renew=train
        )
        rngs = None if key is None else {"drop_path": key}
        encoded, after["encoder"] = statistics.applied(
            self.encoder,
            params["encoder"],
            tokens,
            renew=train,
            train=train,
            layers=True,
            rngs=rngs,
        )
        logits, after["head"] = statistics.applied(self.head, params["head"], encoded, renew=train)
        shallow, heads = [], {}
        for number in self.layers:
            own = params["shallow"][_name(number)]
            out, heads[_name(number)] = statistics.applied(
                self.shallow, own, mean_of_layer(encoded, number), renew=train
            )
            shallow.append(out)
        if train:
            after["shallow"] = heads
        return logits, shallow, after

    def terms(
        self,
        logits: Float[Array, "B C"],
        shallow: Sequence[Float[Array, "B C"]],
        label: Float[Array, "B C"],
    ) -> dict[str, Float[Array, "..."]]:
        """Return the terms without their weights: "entropy", and [L] "own", "follow" and "align"."""
        entropy = losses.softmax_cross_entropy
        return {
            "entropy": jnp.mean(entropy(logits, label)),
            "own": jnp.stack([jnp.mean(entropy(x, label)) for x in shallow]),
            "follow": jnp.stack([jnp.mean(losses.divergence(logits, x)) for x in shallow]),
            "align": jnp.stack([jnp.mean(2 * losses.cosine_distance(x, logits)) for x in shallow]),
        }

    def total(self, terms: Mapping[str, Float[Array, "..."]]) -> Float[Array, ""]:
        """Return the weighted sum of the terms."""
        return terms["entropy"] + sum(
            getattr(self, name) * jnp.sum(terms[name]) for name in ("own", "follow", "align")
        )

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode" and "logits"."""
        return {"encode": self.encode, "logits": self.logits}

    def logits(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B C"]:
        """Return the logits of the last classifier."""
        del extra
        return self.classified(params, self.frontend(batch["audio"], batch["length"]))[0]


def _name(number: int) -> str:
    return f"layer_{number}"
