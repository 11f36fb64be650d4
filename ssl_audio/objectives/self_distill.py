"""Self-distillation of clips and patches, with reconstruction of what was corrupted.

Atito et al. 2022, ASiT (arXiv:2211.13189); the clips' and patches' losses are DINO's (arXiv:2104.14294).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio import losses
from ssl_audio.arrays import Array, Float
from ssl_audio.frontend.base import Frontend
from ssl_audio.frontend.corrupt import GroupMask
from ssl_audio.heads.distill import PixelHead
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params, Predictor
from ssl_audio.objectives.teacher import Ramp, follow
from ssl_audio.slots import Augment, Backbone, Head, Projector
from ssl_audio.structs import Encoded, Loss
from ssl_audio.tokens.patchify import Patchify, patches, unpatch

TAUGHT = ("tokenizer", "encoder", "projector")  # what the teacher has


@dataclasses.dataclass(frozen=True)
class SelfDistill(Encoding):
    """Agree with a moving-average teacher on clips and patches, and restore what was corrupted.

    Attributes:
      frontend: waveform → normalised log-mel.
      tokenizer: patches must not overlap, since they are restored.
      encoder: any backbone with a special token.
      projector: Encoded → scores of clips and patches.
      decoder: (Encoded, G) → pixels of patches.
      corruption: (spec, key) → (corrupted, mask).
      crop: samples of each of the two crops of a clip.
      roll: probability that the waveform of a crop is rolled by a random number of samples.
      temperature: of the teacher's softmax.
      student_temperature: of the student's.
      centring: decay of the mean of the teacher's scores that is subtracted from them.
      momentum: of the teacher.
      clip, patch, restore: weights of the losses.
    """

    couples_examples: ClassVar[bool] = True  # the centres are of the batch, aliens come from it

    frontend: Frontend
    tokenizer: Patchify
    encoder: Backbone
    projector: Projector
    decoder: Head = PixelHead()
    corruption: Augment = GroupMask()
    crop: int = 96_000
    roll: float = 0.5
    temperature: Ramp = Ramp(0.04, 0.07)
    student_temperature: float = 0.1
    centring: float = 0.9
    momentum: Ramp = Ramp(0.996, 1.0, shape="cosine")
    clip: float = 1.0
    patch: float = 1.0
    restore: float = 2.0

    def __post_init__(self):
        if tuple(self.tokenizer.patch) != tuple(self.tokenizer.stride):
            raise ValueError(
                f"stride {self.tokenizer.stride} differs from patch {self.tokenizer.patch}: patches "
                "that are restored must not overlap."
            )

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters; a teacher that equals the student, centres of 0, the temperature."""
        keys = jax.random.split(key, 4)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        scores, projector = self.projector.init_with_output(keys[2], encoded)
        decoder = self.decoder.init(keys[3], encoded, self._values)
        made = {"tokenizer": tokenizer, "encoder": encoder, "projector": projector}
        student = {name: variables["params"] for name, variables in made.items()}
        extra = {
            # A copy: the state of a run is donated, and no buffer may be donated twice.
            "teacher": jax.tree.map(jnp.copy, student),
            "centre": {
                name: jnp.zeros(x.shape[-1], jnp.float32)
                for name, x in zip(("clip", "patch"), scores, strict=True)
            },
            "temperature": jnp.asarray(self.temperature(0), jnp.float32),
        }
        return student | {"decoder": decoder["params"]}, extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the loss of two fresh crops of each clip, with fresh corruption."""
        crop_key, corrupt_key, key = jax.random.split(key, 3)
        clean = self.crops(batch["audio"], batch["length"], crop_key)
        corrupted, mask = self.corruption(clean, corrupt_key)
        return self.loss_of(params, extra, clean, corrupted, mask, key if train else None)

    def crops(self, audio: Float[Array, "B S"], length: Any, key: Array) -> Float[Array, "A T F"]:
        """Return the log-mel of two random crops of each clip: all first ones, then all second ones."""
        batch, size = audio.shape[0], min(self.crop, audio.shape[1])
        start_key, roll_key, shift_key = jax.random.split(key, 3)
        audio, length = jnp.tile(audio, (2, 1)), jnp.tile(length, 2)
        start = jax.random.uniform(start_key, (2 * batch,)) * jnp.maximum(length - size + 1, 1)
        start = jnp.minimum(start.astype(jnp.int32), jnp.maximum(length - size, 0))
        valid = jnp.minimum(length - start, size)
        rolled = jax.random.bernoulli(roll_key, self.roll, (2 * batch,))
        shift = jax.random.uniform(shift_key, (2 * batch,)) * valid
        shift = jnp.where(rolled, shift.astype(jnp.int32), 0)
        place = jnp.arange(size)[None]
        turned = (place + shift[:, None]) % jnp.maximum(valid, 1)[:, None]
        where = start[:, None] + jnp.where(place < valid[:, None], turned, place)
        cut = jnp.take_along_axis(audio, where, axis=1, mode="clip")
        return _whole(self.frontend(cut, valid), self.tokenizer)

    def loss_of(
        self,
        params: Params,
        extra: Extra,
        clean: Float[Array, "A T F"],
        corrupted: Float[Array, "A T F"],
        mask: Float[Array, "A T F"],
        key: Array | None = None,
    ) -> Loss:
        """Return the loss for given crops, and `extra` with the centres moved in training."""
        taught = self.encoded(extra["teacher"], clean)
        encoded = self.encoded(params, corrupted, key)
        goal = jax.lax.stop_gradient(self.scores(extra["teacher"], taught))
        scores = self.scores(params, encoded)
        centre = extra["centre"]
        shares, logs = {}, {}
        for name, wanted, given in zip(("clip", "patch"), goal, scores, strict=True):
            middle = centre[name].reshape((1,) * (wanted.ndim - 1) + (-1,))
            shares[name] = jax.nn.softmax((wanted - middle) / extra["temperature"])
            logs[name] = jax.nn.log_softmax(given / self.student_temperature)
        half = len(clean) // 2
        crossed = jnp.roll(logs["clip"], half, axis=0)  # the other crop of the same clip
        clip = -jnp.mean(jnp.sum(shares["clip"] * crossed, -1))
        patch = -jnp.mean(jnp.sum(shares["patch"] * logs["patch"], -1))
        restored = self.restored(params, encoded)
        away = jnp.abs(restored - clean) * mask
        restore = jnp.sum(away) / jnp.maximum(jnp.sum(mask), 1)
        total = self.clip * clip + self.patch * patch + self.restore * restore
        weight = float(half)
        means = {name: jnp.mean(x.reshape(-1, x.shape[-1]), 0) for name, x in shares.items()}
        metrics = {"clip": clip, "patch": patch, "restore": restore}
        metrics |= {f"{name}_entropy": losses.entropy(mean) for name, mean in means.items()}
        if key is not None:
            extra = extra | {"centre": self.centred(centre, goal)}
        return Loss(
            total=total,
            metrics={name: (weight * value, weight) for name, value in metrics.items()},
            extra=extra,
        )

    def centred(self, centre: Mapping[str, Any], scores: Any) -> dict[str, Any]:
        """Return the centres moved towards the mean of a batch of the teacher's scores."""
        return {
            name: self.centring * centre[name]
            + (1 - self.centring) * jnp.mean(x.reshape(-1, x.shape[-1]), axis=0)
            for name, x in zip(("clip", "patch"), scores, strict=True)
        }

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Move the teacher towards the student, and on with the temperature."""
        return extra | {
            "teacher": follow(extra["teacher"], params, self.momentum(step)),
            "temperature": jnp.asarray(self.temperature(step + 1), jnp.float32),
        }

    def encoded(
        self, params: Params, spec: Float[Array, "A T F"], key: Array | None = None
    ) -> Encoded:
        """Encode spectrograms with the student's or the teacher's parameters."""
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, spec)
        rngs = None if key is None else {"drop_path": key}
        return self.encoder.apply(
            {"params": params["encoder"]}, tokens, train=key is not None, rngs=rngs
        )

    def scores(self, params: Params, encoded: Encoded) -> Any:
        """Return the scores of clips [A, C] and of patches [A, N, V]."""
        return self.projector.apply({"params": params["projector"]}, encoded)

    def restored(self, params: Params, encoded: Encoded) -> Float[Array, "A T F"]:
        """Return the spectrograms that the student makes of its encoding."""
        flat: Any = self.decoder.apply({"params": params["decoder"]}, encoded, self._values)
        return unpatch(flat, encoded.tokens.grid, self.tokenizer.patch)

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "encode" and "pictures" of what is restored."""
        return {**super().predictors(), "pictures": self.pictures}

    def pictures(self, params: Params, extra: Extra, batch: Batch) -> dict[str, Array]:
        """Return original, corrupted and restored spectrograms, each [B, T, F]."""
        del extra
        spec = self.frontend(batch["audio"], batch["length"])
        spec = _whole(spec, self.tokenizer)
        corrupted, _ = self.corruption(spec, jax.random.key(0))
        made = self.restored(params, self.encoded(params, corrupted))
        return {"original": spec, "original, corrupted": corrupted, "restored": made}

    @property
    def _values(self) -> int:
        return self.tokenizer.patch[0] * self.tokenizer.patch[1]


def _whole(spec: Float[Array, "B T F"], tokenizer: Patchify) -> Float[Array, "B t f"]:
    """Return the part of spectrograms that whole patches cover."""
    flat = patches(spec, tokenizer.patch, tokenizer.stride)
    return unpatch(flat, tokenizer.grid(*spec.shape[1:]), tokenizer.patch)
