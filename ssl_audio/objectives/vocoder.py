"""Log-mels as latent vectors, and back to sound by Griffin and Lim: an autoencoder that learns nothing.

For small diffusion models: an autoencoder that is to be trained first is `autoencoder.py`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float, Wave
from ssl_audio.frontend import griffin_lim
from ssl_audio.frontend.mel import Mel, mel_bands
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class Vocoder(Objective):
    """Offer "latents" of sound, and "sound" of `batch["latents"]`.

    Attributes:
      frontend: the log-mel; its last frame is left out where they do not fill a latent vector.
      fold: frames that one latent vector holds.
      rounds: of phases, see `griffin_lim.sound`.
    """

    frontend: Mel
    fold: int = 1
    rounds: int = 60

    interface: ClassVar[str] = "ssl_audio.inference.model:Model"

    def __post_init__(self):
        if self.fold < 1 or self.rounds < 1:
            raise ValueError(f"vocoder: fold {self.fold}, rounds {self.rounds}: wanted at least 1.")
        mel = self.frontend
        if mel.window < 2 * mel.hop or mel.per_clip or mel.added or mel.bank_rate or mel.frames:
            raise ValueError(
                "vocoder: wanted a log-mel whose window is at least two hops, and without per_clip, added, "
                "bank_rate and frames: its energies have to tell the magnitudes."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return how the lines of the spectrum follow from bands, as parameters."""
        del key, batch
        mel = self.frontend
        high = mel.high if mel.high > 0 else mel.rate / 2 + mel.high
        bands = mel_bands(mel.bins, mel.window, mel.rate, mel.low, high, mel.scale, mel.area)
        return {"lines": jnp.asarray(np.linalg.pinv(bands.astype(np.float64)), jnp.float32)}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Raise ValueError."""
        raise ValueError("objective 'vocoder' has nothing to learn.")

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "latents" (mean and deviation, which is 0) and "sound"."""
        return {"latents": self.latents, "sound": self.sound}

    @property
    def rate(self) -> int:
        """Return the sampling rate, Hz."""
        return self.frontend.rate

    def count(self, samples: int) -> int:
        """Return the latent vectors of so many samples."""
        return self.frontend.count(samples) // self.fold

    def latents(
        self, params: Params, extra: Extra, batch: Batch
    ) -> tuple[Float[Array, "B N E"], Float[Array, "B N E"]]:
        """Return energies in dB, some frames side by side."""
        del params, extra
        spec = self.frontend(batch["audio"], batch.get("length"))
        count = spec.shape[1] // self.fold
        found = spec[:, : count * self.fold].reshape(len(spec), count, -1)
        return found, jnp.zeros_like(found)

    def sound(self, params: Params, extra: Extra, batch: Batch) -> Wave:
        """Return sound of latent vectors; phases begin as always, so that it is the same each time."""
        del extra
        mel = self.frontend
        spec = batch["latents"].reshape(len(batch["latents"]), -1, mel.bins)
        spec = spec * mel.std + mel.mean
        quiet = 10 * math.log10(mel.floor)
        energy = jnp.where(spec > quiet + 1e-3, 10 ** (jnp.clip(spec, quiet, 60) / 10), 0)
        power = jnp.maximum(energy @ params["lines"].T, 0)
        return griffin_lim.sound(
            jnp.sqrt(power), jax.random.key(0), hop=mel.hop, rounds=self.rounds
        )
