"""Masked autoencoder of spectrograms: encode the visible patches only, reconstruct the others.

Huang et al. 2022, Audio-MAE (arXiv:2207.06405); Rauch et al. 2025, Bird-MAE (arXiv:2504.12880).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float, Int
from ssl_audio.frontend.base import Frontend
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor
from ssl_audio.slots import Augment, Backbone, Head, Masking
from ssl_audio.structs import Encoded, Loss
from ssl_audio.tokens.masking import others
from ssl_audio.tokens.order import reorder
from ssl_audio.tokens.patchify import Patchify, patches, unpatch


@dataclasses.dataclass(frozen=True)
class Mae(Encoding):
    """Reconstruct hidden patches from an encoding of the visible ones.

    Attributes:
      frontend: waveform → normalised log-mel.
      tokenizer: patches must not overlap, since they are the targets too.
      encoder: any backbone; it sees visible patches in the order of the grid.
      decoder: see `backbones.decoders`.
      masking: which patches to hide.
      standardise: scale every target patch to mean 0 and deviation 1 (section 3.3).
      augment: what changes the waveforms in training, one after the other: (audio, length, key) → audio.
    """

    frontend: Frontend
    tokenizer: Patchify
    encoder: Backbone
    decoder: Head
    masking: Masking
    standardise: bool = True
    augment: tuple[Augment, ...] = ()

    def __post_init__(self):
        if tuple(self.tokenizer.patch) != tuple(self.tokenizer.stride):
            raise ValueError(
                f"stride {self.tokenizer.stride} differs from patch {self.tokenizer.patch}: masked "
                "patches must not overlap."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, 3)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        decoder = self.decoder.init(keys[2], encoded, self._values)
        params = {"tokenizer": tokenizer, "encoder": encoder, "decoder": decoder}
        return {name: variables["params"] for name, variables in params.items()}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the mean squared error over the hidden patches, freshly drawn."""
        mask_key, augment_key, key = jax.random.split(key, 3)
        audio = batch["audio"]
        for number, change in enumerate(self.augment if train else ()):
            audio = change(audio, batch["length"], jax.random.fold_in(augment_key, number))
        spec = self.frontend(audio, batch["length"])
        grid = self.tokenizer.grid(*spec.shape[1:])
        hidden = self.masking(mask_key, spec.shape[0], grid)
        shown = others(hidden, grid[0] * grid[1])
        error = self.errors(params, spec, shown, hidden, key if train else None)
        metrics = {"mse": (jnp.sum(error), float(spec.shape[0]))}
        return Loss(total=jnp.mean(error), metrics=metrics, extra=extra)

    def errors(
        self,
        params: Params,
        spec: Float[Array, "B T F"],
        shown: Int[Array, "B K"],
        hidden: Int[Array, "B M"],
        key: Array | None = None,
    ) -> Float[Array, " B"]:
        """Return each clip's mean squared error over its hidden patches; with a key, in training."""
        predicted = self.predict(params, self.visible(params, spec, shown, key), key)
        target = patches(spec, self.tokenizer.patch, self.tokenizer.stride)
        if self.standardise:
            target = losses.standardised(target)
        predicted, target = (
            jnp.take_along_axis(x, hidden[..., None], axis=1) for x in (predicted, target)
        )
        return losses.patch_mse(predicted, target)

    def visible(
        self,
        params: Params,
        spec: Float[Array, "B T F"],
        shown: Int[Array, "B K"],
        key: Array | None = None,
    ) -> Encoded:
        """Encode the patches at `shown`, in that order; nothing else is seen."""
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, spec)
        rngs = None if key is None else {"drop_path": key}
        return self.encoder.apply(
            {"params": params["encoder"]}, reorder(tokens, shown), train=key is not None, rngs=rngs
        )

    def predict(
        self, params: Params, encoded: Encoded, key: Array | None = None
    ) -> Float[Array, "B N G"]:
        """Return what the decoder makes of an encoding, for all patches of the grid."""
        rngs = None if key is None else {"drop_path": jax.random.fold_in(key, 1)}
        return self.decoder.apply(
            {"params": params["decoder"]}, encoded, self._values, train=key is not None, rngs=rngs
        )

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode" and "pictures" of reconstructions."""
        return {**super().predictors(), "pictures": self.pictures}

    def pictures(self, params: Params, extra: Extra, batch: Batch) -> dict[str, Array]:
        """Return original, masked and reconstructed spectrograms, each [B, T, F].

        Predictions of standardised patches get the mean and deviation of the hidden patch.
        """
        del extra
        spec = self.frontend(batch["audio"], batch["length"])
        grid = self.tokenizer.grid(*spec.shape[1:])
        hidden = self.masking(jax.random.key(0), spec.shape[0], grid)
        shown = others(hidden, grid[0] * grid[1])
        made = self.predict(params, self.visible(params, spec, shown))
        target = patches(spec, self.tokenizer.patch, self.tokenizer.stride)
        if self.standardise:
            mean, deviation = losses.moments(target)
            made = made * deviation + mean
        rows = jnp.arange(spec.shape[0])[:, None]

        def picture(values):
            return unpatch(target.at[rows, hidden].set(values), grid, self.tokenizer.patch)

        return {
            "original": unpatch(target, grid, self.tokenizer.patch),
            "original, masked": picture(jnp.nan),  # jit sorts the names; so sorted, they read well
            "reconstructed": picture(jnp.take_along_axis(made, hidden[..., None], axis=1)),
        }

    @property
    def _values(self) -> int:
        return self.tokenizer.patch[0] * self.tokenizer.patch[1]
