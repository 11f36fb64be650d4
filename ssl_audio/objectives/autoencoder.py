"""A variational autoencoder of sound (Kingma & Welling 2014; Oobleck of Stable Audio, arXiv:2402.04825)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.frontend.mel import Mel
from ssl_audio.frontend.raw import Raw
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor
from ssl_audio.objectives.reconstruction import mono, spectral
from ssl_audio.slots import Backbone, Head, Tokenizer
from ssl_audio.structs import Encoded, Loss


@dataclasses.dataclass(frozen=True)
class Autoencoder(Encoding):
    """Sound as a sequence of latent vectors with a mean and a deviation, and back.

    Sound is `batch["audio"]`, [B, S] or of several channels [B, S, C].

    Attributes:
      frontend: samples as they are.
      tokenizer: samples → twice the width of the latent vectors.
      encoder: any backbone on top; Oobleck has none: `identity`.
      decoder: latent vectors → samples.
      spectra: log-mels in which the sound is compared, beside its samples.
      wave, mel, divergence: weights of the mean absolute error of samples, of the spectra's, and of how far
        latent vectors are from a standard normal.
    """

    frontend: Raw
    tokenizer: Tokenizer
    encoder: Backbone
    decoder: Head
    spectra: tuple[Mel, ...] = ()
    wave: float = 1.0
    mel: float = 1.0
    divergence: float = 1e-4

    interface: ClassVar[str] = "ssl_audio.inference.model:Model"

    @property
    def channels(self) -> int:
        """Return the channels of sound."""
        return self.decoder.sounds

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters."""
        keys = jax.random.split(key, 3)
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], self.samples(batch))
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        mean, _ = posterior(encoded.tokens.x)
        made = {"tokenizer": tokenizer, "encoder": encoder}
        made["decoder"] = self.decoder.init(keys[2], mean)
        return {name: variables.get("params", {}) for name, variables in made.items()}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return how far the sound of drawn latent vectors is from the one that they are of."""
        x = self.samples(batch)
        mean, deviation = posterior(self.encoded(params, batch).tokens.x)
        latents = mean + deviation * jax.random.normal(key, mean.shape) if train else mean
        sound = self.decoded(params, latents)
        size, rows = (
            min(sound.shape[1], x.shape[1]),
            float(len(x)),
        )  # odd strides lose a few samples
        sound, x = sound[:, :size], x[:, :size]
        found = {"wave": jnp.mean(jnp.abs(sound - x)), "divergence": divergence(mean, deviation)}
        if self.spectra:
            found["mel"] = spectral(self.spectra, mono(sound), mono(x))
        total = sum((getattr(self, name) * value for name, value in found.items()), jnp.zeros(()))
        return Loss(total, {name: (value * rows, rows) for name, value in found.items()}, extra)

    def samples(self, batch: Batch) -> Float[Array, "B S C"]:
        """Return sound [B, S, channels]."""
        return self.frontend.channels(batch["audio"], batch.get("length"))

    def latents(self, params: Params, batch: Batch) -> tuple[Array, Array]:
        """Return mean and deviation [B, N, D] of the latent vectors."""
        return posterior(self.encoded(params, batch).tokens.x)

    def encoded(self, params: Params, batch: Batch) -> Encoded:
        """Return what mean and deviation are made of."""
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, self.samples(batch))
        return self.encoder.apply({"params": params.get("encoder", {})}, tokens)

    def decoded(self, params: Params, latents: Float[Array, "B N D"]) -> Float[Array, "B S C"]:
        """Return sound of latent vectors."""
        return self.decoder.apply({"params": params["decoder"]}, latents)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode" (the mean), "latents" (mean and deviation) and "sound" of `batch["latents"]`."""
        return {"encode": self.encode, "latents": self._latents, "sound": self._sound}

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Return the mean of the latent vectors."""
        del extra
        tokens: Any = self.encoded(params, batch).tokens
        mean, _ = posterior(tokens.x)
        return Encoded(tokens=tokens.replace(x=mean), layers=mean[None])

    def _latents(self, params: Params, extra: Extra, batch: Batch) -> tuple[Array, Array]:
        del extra
        return self.latents(params, batch)

    def _sound(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B S C"]:
        del extra
        return self.decoded(params, batch["latents"])


def posterior(
    x: Float[Array, "B N E"],
) -> tuple[Float[Array, "B N D"], Float[Array, "B N D"]]:
    """Return mean and deviation; E is 2 D."""
    mean, scale = jnp.split(x, 2, -1)
    return mean, jax.nn.softplus(scale) + 1e-4


def divergence(mean: Float[Array, "B N D"], deviation: Float[Array, "B N D"]) -> Float[Array, ""]:
    """Return twice the mean divergence from a standard normal, summed over channels."""
    variance = deviation**2
    return jnp.mean(jnp.sum(mean**2 + variance - jnp.log(variance) - 1, -1))
