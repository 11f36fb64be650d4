"""Predict a teacher's features of hidden patches and of the whole clip from a few visible patches.

Chen et al. 2024, EAT (arXiv:2401.03497); after data2vec 2.0 (Baevski et al. 2022, arXiv:2212.07525).
Its options `target`, `scale` and a decoder with a token of its own make it BAT (2026, arXiv:2602.16305).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int
from ssl_audio.frontend.base import Frontend
from ssl_audio.heads.readout import special_tokens
from ssl_audio.layers.norms import standard
from ssl_audio.objectives.base import Batch, Encoding, Extra, Params
from ssl_audio.objectives.teacher import Ramp, follow
from ssl_audio.slots import Augment, Backbone, Head, Masking
from ssl_audio.structs import Encoded, Loss
from ssl_audio.tokens.masking import others
from ssl_audio.tokens.order import reorder, scatter
from ssl_audio.tokens.patchify import Patchify

TARGETS = ("mlp", "block")
SCALES = ("root", "mean")


@dataclasses.dataclass(frozen=True)
class LatentPrediction(Encoding):
    """Regress averaged layers of a moving-average teacher, with several masks per clip.

    Attributes:
      frontend: waveform → normalised log-mel.
      tokenizer: log-mel → patch tokens.
      encoder: any backbone with a special token; it sees visible patches in the order of the grid.
      decoder: whole grid of tokens → predictions, as wide; or one that `fills` the gaps itself with a
        learned token, as `decoders:Decoder`, which gets the visible tokens.
      masking: which patches to hide.
      clones: masks per clip, which share one pass of the teacher.
      utterance: weight of the clip's loss; that of the patches is 1.
      noise: deviation of what the decoder sees at hidden patches, unless it fills them itself.
      momentum: of the teacher.
      target: which layers of the teacher are averaged: "mlp", what its blocks' perceptrons add, if they can
        be tapped, or else as "block"; "block": the streams after each block.
      scale: squared errors are summed over the D channels and divided by sqrt(D), "root", or D, "mean".
      augment: what changes the waveforms in training, one after the other: (audio, length, key) → audio.
        Student and teacher hear the same.
    """

    frontend: Frontend
    tokenizer: Patchify
    encoder: Backbone
    decoder: Head
    masking: Masking
    clones: int = 16
    utterance: float = 1.0
    noise: float = 0.01
    momentum: Ramp = Ramp(0.9998, 0.99999, 100_000)
    target: str = "mlp"
    scale: str = "root"
    augment: tuple[Augment, ...] = ()

    def __post_init__(self):
        if self.clones < 1:
            raise ValueError(f"clones is {self.clones}; wanted 1 or more.")
        for name, known in (("target", TARGETS), ("scale", SCALES)):
            if (got := getattr(self, name)) not in known:
                raise ValueError(f"{name}: got {got!r}, wanted one of {', '.join(known)}.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and a teacher that equals the student."""
        keys = jax.random.split(key, 3)
        spec = self.frontend(batch["audio"], batch["length"])
        tokens, tokenizer = self.tokenizer.init_with_output(keys[0], spec)
        encoded, encoder = self.encoder.init_with_output(keys[1], tokens)
        read = (encoded, self.tokenizer.width) if self._fills else (tokens,)
        decoder = self.decoder.init(keys[2], *read)
        student = {"tokenizer": tokenizer["params"], "encoder": encoder["params"]}
        # A copy: the state of a run is donated, and no buffer may be donated twice.
        teacher = jax.tree.map(jnp.copy, student)
        return student | {"decoder": decoder["params"]}, {"teacher": teacher}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the loss over fresh masks."""
        mask_key, noise_key, key = jax.random.split(key, 3)
        spec = self.heard(batch, key if train else None)
        grid = self.tokenizer.grid(*spec.shape[1:])
        hidden = self.masking(mask_key, self.clones * spec.shape[0], grid)
        shown = others(hidden, grid[0] * grid[1])
        noise = self.gaps(noise_key, len(hidden), grid)
        encoded = self.visible(params, spec, shown, key if train else None)
        target, _ = self.targets(extra, spec)
        patch, clip = self.errors(params, encoded, target, hidden, noise)
        weight = float(spec.shape[0])
        spread = jnp.mean(jnp.std(target, axis=(0, 1)))
        metrics = {
            "patch": (weight * jnp.mean(patch), weight),
            "clip": (weight * jnp.mean(clip), weight),
            "target_deviation": (weight * spread, weight),
        }
        total = jnp.mean(patch) + self.utterance * jnp.mean(clip)
        return Loss(total=total, metrics=metrics, extra=extra)

    def heard(self, batch: Batch, key: Array | None = None) -> Float[Array, "B T F"]:
        """Return the log-mel of a batch; with a key, of what the augmentations make of it."""
        audio = batch["audio"]
        if key is not None:
            for number, change in enumerate(self.augment):
                audio = change(audio, batch["length"], jax.random.fold_in(key, number))
        return self.frontend(audio, batch["length"])

    def gaps(self, key: Array, count: int, grid: tuple[int, int]) -> Float[Array, "M N D"] | None:
        """Return the noise that a decoder sees at hidden patches; None: it fills them itself."""
        if self._fills:
            return None
        shape = (count, grid[0] * grid[1], self.tokenizer.width)
        return self.noise * jax.random.normal(key, shape)

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Move the teacher towards the student."""
        return extra | {"teacher": follow(extra["teacher"], params, self.momentum(step))}

    def visible(
        self,
        params: Params,
        spec: Float[Array, "B T F"],
        shown: Int[Array, "M K"],
        key: Array | None = None,
    ) -> Encoded:
        """Encode the patches at `shown`, of which there are `clones` sets for each clip in turn."""
        tokens: Any = self.tokenizer.apply({"params": params["tokenizer"]}, spec)
        repeated = tokens.replace(
            x=jnp.repeat(tokens.x, self.clones, axis=0),
            index=jnp.repeat(tokens.index, self.clones, axis=0),
        )
        rngs = None if key is None else {"drop_path": key}
        return self.encoder.apply(
            {"params": params["encoder"]},
            reorder(repeated, shown),
            train=key is not None,
            rngs=rngs,
        )

    def targets(
        self, extra: Extra, spec: Float[Array, "B T F"]
    ) -> tuple[Float[Array, "B N D"], Float[Array, "L B N D"]]:
        """Return the teacher's targets for the whole grid, and the layers they are made of.

        Each layer's channels are normalised over the patches of the clip, the layers averaged, and
        their mean normalised over its channels.
        """
        weights = {"params": extra["teacher"]["tokenizer"]}
        layers = self.taught(extra, self.tokenizer.apply(weights, spec))
        return averaged(layers), layers

    def taught(self, extra: Extra, tokens: Any) -> Float[Array, "L B N D"]:
        """Return what the teacher's layers make of tokens, without a gradient."""
        encoder, block = self.encoder, self.encoder.block
        if self.target == "mlp" and hasattr(block, "tap"):
            encoder = encoder.copy(block=block.copy(tap=True))
        encoded: Any = encoder.apply({"params": extra["teacher"]["encoder"]}, tokens, layers=True)
        return jax.lax.stop_gradient(encoded.layers)

    def errors(
        self,
        params: Params,
        encoded: Encoded,
        target: Float[Array, "B N D"],
        hidden: Int[Array, "M K"],
        noise: Float[Array, "M N D"] | None = None,
    ) -> tuple[Float[Array, "M K"], Float[Array, " M"]]:
        """Return the squared errors, scaled, at hidden patches and of the special token."""
        made = self.reconstruct(params, encoded, noise)
        target = jnp.repeat(target, self.clones, axis=0)
        made, wanted = (jnp.take_along_axis(x, hidden[..., None], axis=1) for x in (made, target))
        clip = self.distance(special_tokens(encoded), jnp.mean(target, axis=1))
        return self.distance(made, wanted), clip

    def distance(
        self, made: Float[Array, "*B D"], wanted: Float[Array, "*B D"]
    ) -> Float[Array, "*B"]:
        """Return squared errors, summed over the channels and scaled."""
        scale = wanted.shape[-1] ** (-0.5 if self.scale == "root" else -1.0)
        return scale * jnp.sum((made - wanted) ** 2, -1)

    def reconstruct(
        self, params: Params, encoded: Encoded, noise: Float[Array, "M N D"] | None = None
    ) -> Float[Array, "M N D"]:
        """Return the predictions of the decoder, which sees `noise` at hidden patches or fills them."""
        tokens, weights = encoded.tokens, {"params": params["decoder"]}
        if self._fills:
            return self.decoder.apply(weights, encoded, tokens.x.shape[-1])
        assert noise is not None, "drawn by `loss`"
        return self.decoder.apply(weights, scatter(tokens.x, tokens.index, tokens.grid, noise))

    @property
    def _fills(self) -> bool:
        return getattr(self.decoder, "fills", False)


def averaged(layers: Float[Array, "L B N D"]) -> Float[Array, "B N D"]:
    """Return the mean of layers normalised over the tokens of each clip, normalised over its channels."""
    return standard(jnp.mean(standard(layers, 1e-5, axis=2), axis=0), 1e-5)
