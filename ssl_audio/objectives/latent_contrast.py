"""Pick the true quantised latent among false ones at masked places (wav2vec 2.0).

Baevski et al. 2020 (arXiv:2006.11477) section 2: targets are quantised from the very features that the
encoder sees masked, and the quantiser is trained along.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.frontend.base import Frontend
from ssl_audio.layers.dense import Linear
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params
from ssl_audio.quantizers.codebooks import perplexity
from ssl_audio.slots import Backbone, Masking, Quantizer, Tokenizer
from ssl_audio.structs import Loss
from ssl_audio.tokens.masking import hide
from ssl_audio.tokens.order import valid_tokens


@dataclasses.dataclass(frozen=True)
class LatentContrast(Encoding):
    """Contrast predictions with the quantised latents of the same clip.

    Attributes:
      frontend: what the tokenizer takes.
      tokenizer: `waveform:Projected`; its normalised features are what is quantised.
      encoder: any backbone.
      masking: which tokens to hide; drawn anew for every clip.
      quantizer: `codebooks:Gumbel`.
      width: in which predictions and targets are compared.
      negatives: false latents for each masked token, drawn from the other masked ones of its clip.
      temperature: the cosines are divided by it.
      diversity: weight of the share of codes that are not in use.
      penalty: weight of the mean square of the features before they are normalised.
      draw: temperature of the quantiser's draws: at the start, at the end, and its factor per step.
    """

    frontend: Frontend
    tokenizer: Tokenizer
    encoder: Backbone
    masking: Masking
    quantizer: Quantizer
    width: int = 256
    negatives: int = 100
    temperature: float = 0.1
    diversity: float = 0.1
    penalty: float = 10.0
    draw: tuple[float, float, float] = (2.0, 0.5, 0.999995)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and the temperature of the quantiser's draws."""
        keys = jax.random.split(key, 6)
        spec = self.frontend(batch["audio"], batch["length"])
        (tokens, features, x), made = self.tokenizer.init_with_output(keys[0], spec, method="parts")
        encoder = self.encoder.init(keys[1], tokens.replace(x=x))
        (quantised, _), quantizer = self.quantizer.init_with_output(keys[2], features)
        params = {
            "tokenizer": made["params"],
            "encoder": encoder["params"],
            "quantizer": quantizer["params"],
            "predict": self._linear.init(keys[3], x)["params"],
            "target": self._linear.init(keys[4], quantised)["params"],
            "mask_token": jax.random.uniform(keys[5], x.shape[-1:], jnp.float32),
        }
        return params, {"draw": jnp.asarray(self.draw[0], jnp.float32)}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean loss over masked tokens, with what keeps all codes in use."""
        spec = self.frontend(batch["audio"], batch["length"])
        mask_key, draw_key, negative_key, drop_key = jax.random.split(key, 4)
        weights = {"params": params["tokenizer"]}
        tokens, features, x = self.tokenizer.apply(weights, spec, method="parts")
        frames = self.frontend.valid(batch["length"], spec.shape[1])
        tokens = tokens.replace(valid=valid_tokens(frames, tokens, self.tokenizer.stride[1]))
        mask = self.masking(mask_key, len(spec), tokens.grid)
        counted = jnp.take_along_axis(tokens.valid, mask, axis=1).astype(jnp.float32)
        hidden = tokens.replace(x=hide(x, mask, params["mask_token"]))
        rngs = {"drop_path": drop_key} if train else None
        encoder = {"params": params["encoder"]}
        encoded: Any = self.encoder.apply(encoder, hidden, train=train, rngs=rngs)

        def masked(values):
            return jnp.take_along_axis(values, mask[..., None], axis=1)

        predicted = self.predicted(params, masked(encoded.tokens.x))
        target, probable = self.targets(
            params, masked(features), draw_key if train else None, extra["draw"]
        )
        batch_size, count = mask.shape
        if count < 2:
            raise ValueError(f"latent_contrast: {count} masked tokens; wanted at least 2.")
        shift = jax.random.randint(negative_key, (batch_size, count, self.negatives), 1, count)
        other = (jnp.arange(count)[None, :, None] + shift) % count
        negative = jax.vmap(lambda of_clip, places: of_clip[places])(target, other)
        nce, accuracy = losses.latent_nce(predicted, target, negative, self.temperature)
        amount = jnp.maximum(jnp.sum(counted), 1e-6)
        share = jnp.sum(probable * counted[..., None, None], (0, 1)) / amount
        used = perplexity(share)
        told = jnp.sum(nce * counted) / amount
        rest = self.diversity * (1 - jnp.sum(used) / share.size)
        rest = rest + self.penalty * jnp.mean(tokens.x**2)
        metrics = {
            "nce": (jnp.sum(nce * counted), jnp.sum(counted)),
            "accuracy": (jnp.sum(accuracy * counted), jnp.sum(counted)),
            "codes_in_use": (jnp.mean(used), 1.0),
        }
        means = {"nce": (told, jnp.sum(counted)), "rest": (rest, jnp.ones(()))}
        return Loss(total=told + rest, metrics=metrics, extra=extra, means=means)

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Return `extra` with the temperature of the next step's draws."""
        del params
        start, end, factor = self.draw
        draw = jnp.maximum(end, start * factor ** (step + 1.0))
        return extra | {"draw": draw.astype(jnp.float32)}

    def predicted(self, params: Params, x: Float[Array, "*B D"]) -> Float[Array, "*B E"]:
        """Return what encoded tokens say of their latents."""
        made: Any = self._linear.apply({"params": params["predict"]}, x)
        return made

    def targets(
        self,
        params: Params,
        features: Float[Array, "B N C"],
        key: Any = None,
        temperature: Any = 1.0,
    ) -> tuple[Float[Array, "B N E"], Float[Array, "B N Q V"]]:
        """Return the quantised latents, and the probability of each code; see `Gumbel`."""
        quantizer = {"params": params["quantizer"]}
        quantised, probable = self.quantizer.apply(quantizer, features, key, temperature)
        target: Any = self._linear.apply({"params": params["target"]}, quantised)
        return target, probable

    @property
    def _linear(self):
        return Linear(self.width)
