"""Predict a teacher's features of some tokens from a context of others: joint-embedding prediction (JEPA).

Yuksel et al. 2025, WavJEPA (arXiv:2509.23238); Tuncay et al. 2025, Audio-JEPA (arXiv:2507.02915).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.layers.norms import standard
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params
from ssl_audio.objectives.teacher import Ramp, follow
from ssl_audio.slots import AnyFrontend, Backbone, Head, Tokenizer
from ssl_audio.structs import Encoded, Loss, Tokens
from ssl_audio.tokens.contexts import Contexts

ERRORS = ("square", "cosine")
PARTS = ("tokenizer", "encoder")


@dataclasses.dataclass(frozen=True)
class ContextPrediction(Encoding):
    """Regress a teacher's features, which hears the whole clip, at targets that the student does not hear.

    Attributes:
      frontend: what the tokenizer takes.
      tokenizer: its features → tokens.
      encoder: any backbone that masks keys; what is no context is hidden from it by a mask.
      decoder: the predictor, see `heads.set_predictor`.
      masking: draws the context and the sets of targets.
      top: layers of the teacher that are averaged, counted from the last, each normalised over the tokens of
        the clip; 0: its output instead, each token standardised over its channels.
      error: "square", the mean over channels; "cosine", 2 - 2 cos.
      teacher: parts that the teacher has of its own; the others are the student's, without a gradient.
      momentum: of the teacher.
    """

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    decoder: Head
    masking: Contexts
    top: int = 8
    error: str = "square"
    teacher: tuple[str, ...] = ("encoder",)
    momentum: Ramp = Ramp(0.999, 0.99999, 100_000)

    def __post_init__(self):
        if self.top < 0 or self.error not in ERRORS:
            raise ValueError(
                f"ContextPrediction: top={self.top}, error='{self.error}'; wanted 0 layers or more, and one "
                f"of {', '.join(ERRORS)}."
            )
        if "encoder" not in self.teacher or not set(self.teacher) <= set(PARTS):
            raise ValueError(
                f"ContextPrediction: teacher={self.teacher}; wanted 'encoder', and maybe 'tokenizer'."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and a teacher that equals the student."""
        keys = jax.random.split(key, 3)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        context = jnp.ones(tokens.x.shape[:2], bool)
        decoder = self.decoder.init(
            keys[2], encoded, context, context[:, None], encoded.tokens.x.shape[-1]
        )
        made = {"tokenizer": tokenizer, "encoder": encoder, "decoder": decoder}
        params = {name: variables.get("params", {}) for name, variables in made.items()}
        # A copy: the state of a run is donated, and no buffer may be donated twice.
        teacher = {name: jax.tree.map(jnp.copy, params[name]) for name in self.teacher}
        return params, {"teacher": teacher}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean error over the targets of all sets, freshly drawn; padding is no target."""
        mask_key, key = jax.random.split(key)
        tokens = self.tokenized({"params": params["tokenizer"]}, batch)
        context, targets = self.masking(mask_key, len(tokens.x), tokens.grid)
        if tokens.valid is not None:
            targets = targets & tokens.valid[:, None]
            left = context & tokens.valid
            # Attention to nothing is not a number.
            context = jnp.where(jnp.any(left, axis=1, keepdims=True), left, tokens.valid)
        encoded = self.seen(params, tokens, context, key if train else None)
        predicted = self.predict(params, encoded, context, targets, key if train else None)
        target = self.targets(extra, batch, tokens)
        each = jnp.sum(self.errors(predicted, target[:, None]) * targets)
        count = jnp.sum(targets.astype(jnp.float32))
        weight = float(len(context))
        # They fall to 0 when all targets are alike, or all those of a clip.
        over = {"target_deviation": (0, 1), "target_deviation_in_clip": 1}
        spread = {name: jnp.mean(jnp.std(target, axis)) for name, axis in over.items()}
        spread["context"] = jnp.mean(context.astype(jnp.float32))
        metrics = {name: (weight * value, weight) for name, value in spread.items()}
        total = each / jnp.maximum(count, 1e-6)
        return Loss(total=total, metrics=metrics, extra=extra, means={"error": (total, count)})

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Move the teacher towards the student."""
        return extra | {"teacher": follow(extra["teacher"], params, self.momentum(step))}

    def seen(
        self,
        params: Params,
        tokens: Tokens,
        context: Bool[Array, "B N"],
        key: Array | None = None,
    ) -> Encoded:
        """Encode the context; what the result holds at other tokens means nothing."""
        rngs = None if key is None else {"drop_path": key}
        return self.encoder.apply(
            {"params": params["encoder"]},
            dataclasses.replace(tokens, valid=context),
            train=key is not None,
            rngs=rngs,
        )

    def predict(
        self,
        params: Params,
        encoded: Encoded,
        context: Bool[Array, "B N"],
        targets: Bool[Array, "B S N"],
        key: Array | None = None,
    ) -> Float[Array, "B S N D"]:
        """Return what the student takes the teacher's features to be; of use at targets only."""
        rngs = None if key is None else {"drop_path": jax.random.fold_in(key, 1)}
        width = encoded.tokens.x.shape[-1]
        return self.decoder.apply(
            {"params": params["decoder"]},
            encoded,
            context,
            targets,
            width,
            train=key is not None,
            rngs=rngs,
        )

    def targets(self, extra: Extra, batch: Batch, tokens: Tokens) -> Float[Array, "B N D"]:
        """Return the teacher's features of all tokens, without a gradient.

        Args:
          extra: holds the teacher.
          batch: clips.
          tokens: the student's, for a teacher without a tokenizer.
        """
        teacher = extra["teacher"]
        if "tokenizer" in teacher:
            tokens = self.tokenized({"params": teacher["tokenizer"]}, batch)
        tokens = jax.lax.stop_gradient(tokens)
        layers = self.top > 0
        encoded: Any = self.encoder.apply({"params": teacher["encoder"]}, tokens, layers=layers)
        encoded = jax.lax.stop_gradient(encoded)
        if not layers:
            return losses.standardised(encoded.tokens.x)
        last, where = encoded.layers[-self.top :], None
        if tokens.valid is not None:
            where = jnp.broadcast_to(tokens.valid[None, ..., None], (*last.shape[:3], 1))
        return jnp.mean(standard(last, 1e-5, axis=2, where=where), axis=0)

    def errors(
        self, made: Float[Array, "B S N D"], wanted: Float[Array, "B 1 N D"]
    ) -> Float[Array, "B S N"]:
        """Return the error of each prediction."""
        if self.error == "square":
            return jnp.mean((made - wanted) ** 2, -1)
        return 2 - 2 * jnp.sum(losses.unit(made) * losses.unit(wanted), -1)
