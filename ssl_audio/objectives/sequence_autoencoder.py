"""A list as one vector from which the list is written again, item after item.

Playlists as sentences (Papreja et al. 2019, arXiv:1907.01098); Sutskever et al. 2014 (arXiv:1409.3215).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float, Int
from ssl_audio.frontend.base import before
from ssl_audio.layers.dense import INIT
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.slots import Backbone, Head, Tokenizer
from ssl_audio.structs import Encoded, Loss, Tokens


@dataclasses.dataclass(frozen=True)
class SequenceAutoencoder(Objective):
    """Cross-entropy of each item of `batch["items"]` [B, N], and of the end, after the true ones before it.

    Attributes:
      items: `tokens/lookup.py`: vectors of the items, which may come from any model and stay as they are
        (`optim.rates`).
      encoder: with a special token: `recurrent`.
      decoder: `sequence:SequenceDecoder`.
      drop: share of the items before that the decoder does not see in training, so that it needs the vector.
      sampled: false items that a true one is told from, drawn evenly; 0: all others.
    """

    items: Tokenizer
    encoder: Backbone
    decoder: Head
    drop: float = 0.0
    sampled: int = 0

    interface: ClassVar[str] = "ssl_audio.inference.sequences:SequenceModel"

    def __post_init__(self):
        if not 0 <= self.drop <= 1:
            raise ValueError(f"sequence_autoencoder: drop is {self.drop}; wanted 0 to 1.")
        if self.sampled < 0:
            raise ValueError(f"sequence_autoencoder: sampled is {self.sampled}; wanted 0 or more.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters."""
        keys = jax.random.split(key, 6)
        valid = before(batch["items_length"], batch["items"].shape[1])
        tokens, items = self.items.init_with_output(keys[0], batch["items"], valid)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        width = tokens.x.shape[-1]
        params: dict[str, Any] = {
            "items": items["params"],
            "encoder": encoder["params"],
            "start": INIT(keys[2], (width,), jnp.float32),
            "hidden": INIT(keys[3], (width,), jnp.float32),
        }
        x = self._before(params, tokens, None)
        out, decoder = self.decoder.init_with_output(keys[4], encoded, x)
        count = self.items.count + 1  # and the end
        params |= {
            "decoder": decoder["params"],
            "output": {
                "kernel": INIT(keys[5], (count, out.shape[-1]), jnp.float32),
                "bias": jnp.zeros(count, jnp.float32),
            },
        }
        return params, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean over items and ends of their cross-entropy."""
        keys = jax.random.split(key)
        tokens, encoded = self._encoded(params, batch)
        x = self._before(params, tokens, keys[0] if train else None)
        out = self.decoder.apply({"params": params["decoder"]}, encoded, x)
        target, there = self.targets(batch)
        entropy, right = self._told(params, out, target, keys[1] if train else None)
        count = jnp.sum(there).astype(jnp.float32)
        weight = there * batch.get("weight", jnp.ones(len(target)))[:, None]
        total = jnp.sum(weight * entropy) / jnp.maximum(jnp.sum(weight), 1e-6)
        metrics = {
            "entropy": (jnp.sum(there * entropy), count),
            "accuracy": (jnp.sum(there * right), count),
        }
        means = {"entropy": (total, jnp.sum(weight))}
        return Loss(total=total, metrics=metrics, extra=extra, means=means)

    def targets(self, batch: Batch) -> tuple[Int[Array, "B M"], Bool[Array, "B M"]]:
        """Return the items and the end behind the last one, M = N + 1, and which places are scored."""
        items, length = batch["items"], batch["items_length"]
        places = items.shape[1] + 1
        at_end = jnp.arange(places)[None] == length[:, None]
        target = jnp.where(at_end, self.items.count, jnp.pad(items, ((0, 0), (0, 1))))
        return target, before(length + 1, places)

    def _encoded(self, params: Params, batch: Batch) -> tuple[Tokens, Encoded]:
        valid = before(batch["items_length"], batch["items"].shape[1])
        tokens: Any = self.items.apply({"params": params["items"]}, batch["items"], valid)
        return tokens, self.encoder.apply({"params": params["encoder"]}, tokens)

    def _before(self, params: Params, tokens: Tokens, key: Array | None) -> Float[Array, "B M D"]:
        """Return the vector of the item before each place: the start's, or one that says nothing."""
        x = tokens.x
        if key is not None and self.drop:
            hidden = jax.random.bernoulli(key, self.drop, x.shape[:2])[..., None]
            x = jnp.where(hidden, params["hidden"][None, None], x)
        start = jnp.broadcast_to(params["start"][None, None], (len(x), 1, x.shape[-1]))
        return jnp.concatenate([start, x], axis=1)

    def _told(
        self, params: Params, out: Float[Array, "B M H"], target: Array, key: Array | None
    ) -> tuple[Float[Array, "B M"], Float[Array, "B M"]]:
        """Return the cross-entropy of each target, and whether it is the likeliest."""
        kernel, bias = params["output"]["kernel"], params["output"]["bias"]
        if key is None or not self.sampled:
            logits = jnp.einsum("bmh,vh->bmv", out, kernel) + bias[None, None]
            own = jnp.take_along_axis(logits, target[..., None], -1)[..., 0]
            right = jnp.argmax(logits, -1) == target
            return jax.nn.logsumexp(logits, -1) - own, right.astype(jnp.float32)
        own = jnp.einsum("bmh,bmh->bm", out, kernel[target]) + bias[target]
        # Drawn evenly, all false ones have the same chance: no correction is needed.
        false = jax.random.randint(key, (self.sampled,), 0, len(kernel))
        others = jnp.einsum("bmh,sh->bms", out, kernel[false]) + bias[false][None, None]
        same = false[None, None] == target[..., None]
        others = jnp.where(same, -1e9, others)
        # As if all others had been there: each is drawn `sampled` / V times, but for the true one.
        scale = jnp.log(len(kernel) / self.sampled)
        together = jnp.logaddexp(own, jax.nn.logsumexp(others, -1) + scale)
        return together - own, (own > jnp.max(others, -1)).astype(jnp.float32)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "embed_items": the encoder's special token [B, D]."""
        return {"embed_items": self.embed}

    def embed(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B D"]:
        """Return the vector of each list."""
        del extra
        _, encoded = self._encoded(params, batch)
        return encoded.special[:, 0]
