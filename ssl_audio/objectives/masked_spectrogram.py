"""Joint discriminative and generative masked spectrogram patch modelling (SSAST, SSAMBA).

Gong et al. 2022 (arXiv:2110.09784) section 3; Shams et al. 2024 (arXiv:2405.11831). The encoder sees
the whole grid with masked patches replaced by a learned vector, once per task, each with its own mask.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float, Int
from ssl_audio.frontend.base import Frontend
from ssl_audio.heads import classify
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor
from ssl_audio.slots import Backbone, Masking
from ssl_audio.structs import Loss, Tokens
from ssl_audio.tokens.masking import hide
from ssl_audio.tokens.patchify import Patchify, patches, unpatch


@dataclasses.dataclass(frozen=True)
class MaskedSpectrogram(Encoding):
    """Predict the masked patches of a log-mel spectrogram.

    Attributes:
      frontend: waveform → normalised log-mel.
      tokenizer: patches must not overlap, since they are the targets too.
      encoder: any backbone.
      masking: which patches to hide; drawn anew for every clip and task.
      discriminate: weight of the InfoNCE of patches within the clip; 0 leaves the task out.
      reconstruct: weight of the mean squared error; 0 leaves the task out.
      softmax_over: see `losses.patch_nce`.
    """

    frontend: Frontend
    tokenizer: Patchify
    encoder: Backbone
    masking: Masking
    discriminate: float = 1.0
    reconstruct: float = 10.0
    softmax_over: str = "predictions"

    def __post_init__(self):
        if tuple(self.tokenizer.patch) != tuple(self.tokenizer.stride):
            raise ValueError(
                f"stride {self.tokenizer.stride} differs from patch {self.tokenizer.patch}: masked "
                "patches must not overlap."
            )
        if not self.tasks:
            raise ValueError("discriminate and reconstruct are both 0: nothing to learn.")

    @property
    def tasks(self) -> dict[str, float]:
        """Return task name → weight, of the tasks that are on."""
        weights = {"discriminate": self.discriminate, "reconstruct": self.reconstruct}
        return {name: weight for name, weight in weights.items() if weight}

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; there is no other state."""
        keys = jax.random.split(key, 5)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        width = tokens.x.shape[-1]
        params = {
            "tokenizer": tokenizer["params"],
            "encoder": self.encoder.init(keys[1], tokens)["params"],
            "mask_token": jax.random.normal(keys[2], (width,), jnp.float32) * width**-0.5,
        }
        for name, head_key in zip(self.tasks, keys[3:], strict=False):
            params[name] = self._head.init(head_key, tokens.x)["params"]
        return params, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the weighted sum of both tasks over fresh masks."""
        spec = self.frontend(batch["audio"], batch["length"])
        grid = self.tokenizer.grid(*spec.shape[1:])
        key, *mask_keys = jax.random.split(key, 1 + len(self.tasks))
        masks = {
            name: self.masking(mask_key, spec.shape[0], grid)
            for name, mask_key in zip(self.tasks, mask_keys, strict=True)
        }
        return self.loss_of(params, extra, spec, masks, key, train=train)

    def loss_of(
        self,
        params: Params,
        extra: Extra,
        spec: Float[Array, "B T F"],
        masks: Mapping[str, Int[Array, "B K"]],
        key: Array,
        *,
        train: bool,
    ) -> Loss:
        """Return the loss for given masks: task name → masked patch indices."""
        batch = float(spec.shape[0])
        target = patches(spec, self.tokenizer.patch, self.tokenizer.stride)
        hidden = self._predict(params, spec, masks, key, train)
        total, metrics = jnp.zeros((), jnp.float32), {}
        for name, weight in self.tasks.items():
            truth = jnp.take_along_axis(target, masks[name][..., None], axis=1)
            if name == "discriminate":
                value, accuracy = losses.patch_nce(hidden[name], truth, self.softmax_over)
                metrics["accuracy"] = (jnp.sum(accuracy), batch)
                metrics["nce"] = (jnp.sum(value), batch)
            else:
                value = losses.patch_mse(hidden[name], truth)
                metrics["mse"] = (jnp.sum(value), batch)
            total = total + weight * jnp.mean(value)
        return Loss(total=total, metrics=metrics, extra=extra)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode", and "pictures" of reconstructions when the generative task is on."""
        offers: dict[str, Predictor] = {"encode": self.encode}
        if self.reconstruct:
            offers["pictures"] = self.pictures
        return offers

    def pictures(self, params: Params, extra: Extra, batch: Batch) -> dict[str, Array]:
        """Return original, masked and reconstructed spectrograms, each [B, T, F]."""
        del extra
        spec = self.frontend(batch["audio"], batch["length"])
        grid = self.tokenizer.grid(*spec.shape[1:])
        mask = self.masking(jax.random.key(0), spec.shape[0], grid)
        made = self._predict(params, spec, {"reconstruct": mask}, jax.random.key(0), False)
        target = patches(spec, self.tokenizer.patch, self.tokenizer.stride)
        rows = jnp.arange(spec.shape[0])[:, None]

        def picture(values):
            return unpatch(target.at[rows, mask].set(values), grid, self.tokenizer.patch)

        return {
            "original": unpatch(target, grid, self.tokenizer.patch),
            "original, masked": picture(jnp.nan),  # jit sorts the names; so sorted, they read well
            "reconstructed": picture(made["reconstruct"]),
        }

    @property
    def _head(self):
        return classify.PatchPredictor(self.tokenizer.patch[0] * self.tokenizer.patch[1])

    def _predict(self, params, spec, masks, key, train) -> dict[str, Array]:
        """Return each task's predictions [B, K, G] at its masked patches.

        The tasks' passes are one pass of an interleaved batch: twice the batch keeps both the cores and
        the data shards as busy as one batch would.
        """
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, spec)
        masked = jnp.stack(
            [hide(tokens.x, m, params["mask_token"]) for m in masks.values()], axis=1
        )
        count = len(masks)
        merged = Tokens(
            x=masked.reshape(-1, *tokens.x.shape[1:]),
            index=jnp.repeat(tokens.index, count, axis=0),
            grid=tokens.grid,
        )
        rngs = {"drop_path": key} if train else None
        encoded: Any = self.encoder.apply(
            {"params": params["encoder"]}, merged, train=train, rngs=rngs
        )
        x = encoded.tokens.x.reshape(masked.shape)
        predicted: dict[str, Any] = {}
        for i, (name, mask) in enumerate(masks.items()):
            picked = jnp.take_along_axis(x[:, i], mask[..., None], axis=1)
            predicted[name] = self._head.apply({"params": params[name]}, picked)
        return predicted
