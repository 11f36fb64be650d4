"""Regress the latents that a moving average of the encoder has of the whole input (data2vec).

Baevski et al. 2022 (arXiv:2202.03555) section 3: the target is the mean of the top layers, each
normalised over time.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.frontend.base import Frontend
from ssl_audio.layers.dense import Linear
from ssl_audio.layers.norms import standard
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params
from ssl_audio.objectives.teacher import Ramp, follow
from ssl_audio.slots import Backbone, Masking, Tokenizer
from ssl_audio.structs import Loss
from ssl_audio.tokens.masking import hide
from ssl_audio.tokens.order import valid_tokens


@dataclasses.dataclass(frozen=True)
class LatentRegress(Encoding):
    """Predict a teacher's latents at masked places.

    Attributes:
      frontend: what the tokenizer takes.
      tokenizer: its features → tokens; shared by student and teacher.
      encoder: any backbone; the teacher's parameters are the moving average of the student's.
      masking: which tokens to hide; drawn anew for every clip.
      top: layers that are averaged, counted from the last.
      beta: errors below it count by their square, above it by their size; 0: all by their square.
      decay: of the moving average: at the start, at the end, and steps from one to the other.
    """

    frontend: Frontend
    tokenizer: Tokenizer
    encoder: Backbone
    masking: Masking
    top: int = 8
    beta: float = 0.0
    decay: tuple[float, float, int] = (0.999, 0.9999, 30_000)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and a teacher that equals the student."""
        keys = jax.random.split(key, 4)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoder = self.encoder.init(keys[1], tokens)["params"]
        width = tokens.x.shape[-1]
        params = {
            "tokenizer": tokenizer["params"],
            "encoder": encoder,
            "predict": Linear(width).init(keys[2], tokens.x)["params"],
            "mask_token": jax.random.uniform(keys[3], (width,), jnp.float32),
        }
        return params, {"teacher": jax.tree.map(jnp.array, encoder)}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean squared (or smooth absolute) error of masked tokens over sqrt(D)."""
        mask_key, drop_key = jax.random.split(key)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, spec)
        frames = self.frontend.valid(batch["length"], spec.shape[1])
        tokens = tokens.replace(valid=valid_tokens(frames, tokens, self.tokenizer.stride[1]))
        mask = self.masking(mask_key, len(spec), tokens.grid)
        counted = jnp.take_along_axis(tokens.valid, mask, axis=1).astype(jnp.float32)
        amount = jnp.maximum(jnp.sum(counted), 1e-6)

        def masked(values):
            return jnp.take_along_axis(values, mask[..., None], axis=1)

        target = masked(self.targets(extra, tokens))
        hidden = tokens.replace(x=hide(tokens.x, mask, params["mask_token"]))
        rngs = {"drop_path": drop_key} if train else None
        encoder = {"params": params["encoder"]}
        encoded: Any = self.encoder.apply(encoder, hidden, train=train, rngs=rngs)
        width = tokens.x.shape[-1]
        predicted: Any = Linear(width).apply(
            {"params": params["predict"]}, masked(encoded.tokens.x)
        )
        error = jnp.abs(predicted - target)
        if self.beta:
            small = 0.5 * error**2 / self.beta
            value = jnp.where(error < self.beta, small, error - 0.5 * self.beta)
        else:
            value = error**2
        # The sum over channels over the square root of their number, as published.
        each = jnp.sum(value, -1) * counted
        total = jnp.sum(each) / amount * width**-0.5
        metrics = {
            "error": (jnp.sum(each), jnp.sum(counted) * width),
            # Both fall to 0 in a collapse.
            "target_deviation": (_deviation(target), 1.0),
            "predicted_deviation": (_deviation(predicted), 1.0),
        }
        means = {"error": (total, jnp.sum(counted))}
        return Loss(total=total, metrics=metrics, extra=extra, means=means)

    def targets(self, extra: Extra, tokens: Any) -> Float[Array, "B N D"]:
        """Return the teacher's latents of unmasked tokens."""
        tokens = jax.lax.stop_gradient(tokens)
        encoded: Any = self.encoder.apply({"params": extra["teacher"]}, tokens, layers=True)
        top = encoded.layers[-self.top :]
        return jax.lax.stop_gradient(jnp.mean(standard(top, 1e-5, axis=2), axis=0))

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Return `extra` with the teacher moved towards the student."""
        decay = Ramp(*self.decay)(step)
        return extra | {"teacher": follow(extra["teacher"], params["encoder"], decay)}


def _deviation(x: Float[Array, "B N D"]) -> Float[Array, ""]:
    """Return the mean over channels of the deviation over tokens."""
    return jnp.mean(jnp.sqrt(jnp.var(x.reshape(-1, x.shape[-1]), axis=0) + 1e-6))
