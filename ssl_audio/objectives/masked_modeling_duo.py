"""Predict a teacher's features of the hidden patches, of which it sees nothing else, from the visible ones.

Niizumi et al. 2022, Masked Modeling Duo, M2D (arXiv:2210.14648; extended in arXiv:2404.06095).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float, Int
from ssl_audio.frontend.base import Frontend
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params
from ssl_audio.objectives.teacher import Ramp, follow
from ssl_audio.slots import Backbone, Head, Masking
from ssl_audio.structs import Encoded, Loss, Tokens
from ssl_audio.tokens.masking import others
from ssl_audio.tokens.order import reorder
from ssl_audio.tokens.patchify import Patchify

BORROWED = ("positions", "special")  # parameters of the student's encoder that the teacher uses


@dataclasses.dataclass(frozen=True)
class MaskedModelingDuo(Encoding):
    """Match, by cosine, a teacher's encoding of the hidden patches (arXiv:2210.14648, section 3).

    Attributes:
      frontend: waveform → normalised log-mel.
      tokenizer: log-mel → patch tokens.
      encoder: any backbone; student and teacher see their patches in the order of the grid.
      decoder: the predictor, see `heads.decoders`.
      masking: which patches to hide from the student, and to show to the teacher.
      momentum: of the teacher.
    """

    frontend: Frontend
    tokenizer: Patchify
    encoder: Backbone
    decoder: Head
    masking: Masking
    momentum: Ramp = Ramp(0.99995, 0.99999, 300_000)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and a teacher with random parameters of its own."""
        keys = jax.random.split(key, 4)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        decoder = self.decoder.init(keys[2], encoded, encoded.tokens.x.shape[-1])
        made = {"tokenizer": tokenizer, "encoder": encoder, "decoder": decoder}
        params = {name: variables["params"] for name, variables in made.items()}
        other = self.encoder.init(keys[3], tokens)["params"]
        own = {name: value for name, value in other.items() if name not in BORROWED}
        return params, {"teacher": {"encoder": own}}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean of 2 - 2 cos over the hidden patches, freshly drawn: from 0 to 4."""
        mask_key, key = jax.random.split(key)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, spec)
        # In order, for an encoder that scans.
        hidden = jnp.sort(self.masking(mask_key, len(spec), tokens.grid), axis=1)
        shown = others(hidden, tokens.x.shape[1])
        encoded = self.visible(params, tokens, shown, key if train else None)
        predicted = self.predict(params, encoded, hidden, key if train else None)
        target = self.targets(params, extra, tokens, hidden)
        distance = 2 * jax.vmap(losses.cosine_distance)(predicted, target)
        weight = float(len(spec))
        # They fall to 0 when all targets are alike, or all those of a clip.
        over = {"target_deviation": (0, 1), "target_deviation_in_clip": 1}
        spread = {name: jnp.mean(jnp.std(target, axis)) for name, axis in over.items()}
        metrics = {name: (weight * value, weight) for name, value in spread.items()}
        return Loss(total=jnp.mean(distance), metrics=metrics, extra=extra)

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Move the teacher towards the student."""
        return extra | {"teacher": follow(extra["teacher"], params, self.momentum(step))}

    def visible(
        self, params: Params, tokens: Tokens, shown: Int[Array, "B K"], key: Array | None = None
    ) -> Encoded:
        """Encode the patches at `shown` with the student; with a key, in training."""
        rngs = None if key is None else {"drop_path": key}
        return self.encoder.apply(
            {"params": params["encoder"]}, reorder(tokens, shown), train=key is not None, rngs=rngs
        )

    def predict(
        self,
        params: Params,
        encoded: Encoded,
        hidden: Int[Array, "B M"],
        key: Array | None = None,
    ) -> Float[Array, "B M D"]:
        """Return what the student takes the teacher's features at `hidden` to be."""
        rngs = None if key is None else {"drop_path": jax.random.fold_in(key, 1)}
        width = encoded.tokens.x.shape[-1]
        made: Any = self.decoder.apply(
            {"params": params["decoder"]}, encoded, width, train=key is not None, rngs=rngs
        )
        return jnp.take_along_axis(made, hidden[..., None], axis=1)

    def targets(
        self, params: Params, extra: Extra, tokens: Tokens, hidden: Int[Array, "B M"]
    ) -> Float[Array, "B M D"]:
        """Return the teacher's features of the patches at `hidden`, each scaled to mean 0, deviation 1.

        The teacher's blocks and last norm are its own; embedding, positions and special token are
        the student's. No gradient reaches either.
        """
        weights = params["encoder"] | extra["teacher"]["encoder"]
        weights, seen = jax.lax.stop_gradient((weights, reorder(tokens, hidden)))
        encoded: Any = self.encoder.apply({"params": weights}, seen)
        return losses.standardised(encoded.tokens.x)
