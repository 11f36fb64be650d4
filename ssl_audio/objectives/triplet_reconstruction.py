"""A clip's vector is near that of a clip which belongs with it, far from others', and tells its spectrogram.

Siamese encoder with reconstruction loss (Zürn et al. 2021, arXiv:1912.03227).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float, Spec
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor
from ssl_audio.slots import AnyFrontend, Backbone, Head, Pool, Projector, Tokenizer
from ssl_audio.structs import Encoded, Loss


@dataclasses.dataclass(frozen=True)
class TripletReconstruction(Encoding):
    """Triplets of `audio`, `audio_positive` and `audio_negative` (entries `triplet`, `cross_modal`).

    What it gives of a clip is the vector, as the encoder's special token: `--pool special`.

    Attributes:
      frontend, tokenizer, encoder: of any encoder.
      pool: Encoded → one vector a clip; `pools:Flat`: of all tokens.
      projector: that vector → the clip's; at length 1 it is compared, as it is the spectrogram is made of it.
      decoder: the clip's vector → its spectrogram; `spectrogram:VectorToSpectrogram`.
      margin: by which the squared distance of the positive should be less than the negatives'.
      triplet: weight of the triplets; 0: an autoencoder, the ablation.
      reconstruct: weight of the mean squared error of the spectrograms.
    """

    frontend: AnyFrontend
    tokenizer: Tokenizer
    encoder: Backbone
    pool: Pool
    projector: Projector
    decoder: Head
    margin: float = 0.3
    triplet: float = 1.0
    reconstruct: float = 1.0

    # How a clip ends where it is encoded: as in training, since the projector reads all tokens of a clip.
    ends: ClassVar[str] = "training"

    def __post_init__(self):
        if min(self.margin, self.triplet, self.reconstruct) < 0:
            raise ValueError(
                f"triplet_reconstruction: margin {self.margin}, triplet {self.triplet}, reconstruct "
                f"{self.reconstruct}; wanted none below 0."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters."""
        keys = jax.random.split(key, 5)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        pooled, pool = self.pool.init_with_output(keys[2], encoded)
        vector, projector = self.projector.init_with_output(keys[3], pooled)
        decoder = self.decoder.init(keys[4], vector, *spec.shape[1:])
        made = dict(tokenizer=tokenizer, encoder=encoder, pool=pool, projector=projector)
        made["decoder"] = decoder
        return {name: variables.get("params", {}) for name, variables in made.items()}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean over triplets, and over the spectrograms of all their clips."""
        missing = [n for n in ("audio_positive", "audio_negative") if n not in batch]
        if missing:
            raise ValueError(
                f"the batch has {', '.join(batch)}; wanted also {missing[0]!r}: add the entry triplet or "
                "cross_modal."
            )
        rows, several = batch["audio_negative"].shape[:2]
        others = jnp.moveaxis(batch["audio_negative"], 1, 0)
        audio = [batch["audio"], batch["audio_positive"], *others]
        length = [batch["length"], batch["length_positive"], *batch["length_negative"].T]
        spec = self.frontend(jnp.concatenate(audio), jnp.concatenate(length))
        vector = self.vectors(params, spec, key if train else None)
        anchor, positive, *negative = jnp.split(losses.unit(vector), 2 + several)
        near = jnp.sum((anchor - positive) ** 2, -1)
        far = jnp.stack([jnp.sum((anchor - one) ** 2, -1) for one in negative], axis=1)
        hinge = jnp.mean(jax.nn.relu(near[:, None] - far + self.margin), 1)
        made: Any = self.decoder.apply({"params": params["decoder"]}, vector, *spec.shape[1:])
        error = jnp.mean((made - spec) ** 2)
        right = jnp.mean((near[:, None] < far).astype(jnp.float32), 1)
        metrics = {
            "triplet": (jnp.sum(hinge), float(rows)),
            "told_apart": (jnp.sum(right), float(rows)),
            "mse": (error * rows, float(rows)),
        }
        weight = batch.get("weight", jnp.ones(rows))
        apart, error = self.triplet * losses.weighted_mean(hinge, weight), self.reconstruct * error
        means = {"triplet": (apart, jnp.sum(weight)), "mse": (error, jnp.ones(()))}
        return Loss(total=apart + error, metrics=metrics, extra=extra, means=means)

    def vectors(self, params: Params, spec: Spec, key: Array | None = None) -> Float[Array, "B E"]:
        """Return the clips' vectors, not normalised."""
        tokens: Any = self.tokenizer.apply({"params": params.get("tokenizer", {})}, spec)
        rngs = None if key is None else {"drop_path": key}
        encoded = self.encoder.apply(
            {"params": params["encoder"]}, tokens, train=key is not None, rngs=rngs
        )
        return self._projected(params, encoded)

    def _projected(self, params: Params, encoded: Any) -> Float[Array, "B E"]:
        pooled = self.pool.apply({"params": params.get("pool", {})}, encoded)
        return self.projector.apply({"params": params["projector"]}, pooled)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode", whose special token is the clip's vector."""
        return {"encode": self.encode}

    def encode(self, params: Params, extra: Extra, batch: Batch) -> Encoded:
        """Encode sound; the clip's vector, at length 1, is the special token."""
        encoded: Any = super().encode(params, extra, batch)
        vector = losses.unit(self._projected(params, encoded))
        return encoded.replace(special=vector[:, None])
