"""Predict how noised latents move (Stable Audio Open: Evans et al. 2024, arXiv:2407.14358)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.frontend.base import before
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Phase, Predictor
from ssl_audio.objectives.noise import Cosine, Schedule, guided
from ssl_audio.objectives.teacher import LEAST, heard, standard, unheard
from ssl_audio.slots import AnyObjective, Backbone, Tokenizer
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class Diffusion(Objective):
    """Mean squared error of the velocity at a time drawn evenly from 0 to 1.

    Of a batch: "latents" [B, N, E], or with an autoencoder "audio" [B, S]; "condition" [B, M, C] and its
    "condition_length" [B], whose padding counts as zeros, or with `words` "text" [B, W] and "text_length";
    "globally" [B, G], if there is one.

    Attributes:
      model: `dit`.
      schedule: of the noise.
      drop: share of the examples that are trained without their condition, for guidance.
      autoencoder: an objective that offers "latents" and "sound", frozen: `vocoder`, or
        `ssl_audio.inference.frozen:Frozen` of a trained `autoencoder`. Latents are standardised by what was
        heard of them so far. None: latents come with the batch, as they are.
      words: word numbers → vectors, learned with the model; None: conditions come with the batch.
    """

    model: Backbone
    schedule: Schedule = Cosine()
    drop: float = 0.1
    autoencoder: AnyObjective = None
    words: Tokenizer = None

    interface: ClassVar[str] = "ssl_audio.inference.diffusion:DiffusionModel"

    def __post_init__(self):
        if not 0 <= self.drop < 1:
            raise ValueError(f"diffusion: drop is {self.drop}; wanted 0 to 1, and less than 1.")
        if self.autoencoder is not None:
            object.__setattr__(self, "needs", ("autoencoder",))
            object.__setattr__(self, "phases", (Phase(trains="^(model|words)/"),))

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters, and the frozen autoencoder."""
        model_key, words_key, other_key = jax.random.split(key, 3)
        params, extra = {}, {}
        if self.autoencoder is not None:
            frozen, state = self.autoencoder.init(other_key, batch)
            extra["autoencoder"] = {"params": frozen, "extra": state}
            width = jax.eval_shape(self._coded, extra, batch["audio"])[0].shape[-1]
            params["latents"] = unheard(width)
        if self.words is not None:
            made = self.words.init(words_key, batch["text"], before_text(batch))
            params["words"] = made["params"]
        x = self.latents(params, extra, batch, None)[0]
        given = self.condition(params, batch), batch.get("globally")
        # As before there were the others: a model alone begins as it always did.
        first = model_key if params else key
        params["model"] = self.model.init(first, x, jnp.zeros(len(x)), *given)["params"]
        return params, extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the error at one time for each example; in training, hear what latents are like."""
        # Not fold_in(key, 1): that is the second of these keys, and the noise would be the latents' own.
        time_key, noise_key, drop_key, draw_key = jax.random.split(key, 4)
        x, known = self.latents(params, extra, batch, draw_key, train=train)
        condition = self.condition(params, batch)
        time = jax.random.uniform(time_key, x.shape[:1])
        noise = jax.random.normal(noise_key, x.shape)
        if train:
            condition = self.dropped(condition, drop_key)
        error = self.errors(params, x, noise, time, condition, batch.get("globally"))
        rows = float(len(x))
        metrics = {"velocity": (jnp.sum(error), rows)}
        renewed = {"latents": known} if train and known else None
        return Loss(jnp.mean(error), metrics, extra, renewed)

    def latents(
        self,
        params: Params,
        extra: Extra,
        batch: Batch,
        key: Any,
        *,
        train: bool = False,
        of: str = "",
    ) -> tuple[Float[Array, "B N E"], Any]:
        """Return the latents of a batch, and what is known of them with this batch; None: nothing.

        Args:
          params: has what is known so far.
          extra: has the autoencoder.
          batch: has "latents", or "audio" if there is an autoencoder.
          key: of a draw from the autoencoder's deviation; None: the mean.
          train: hear the batch first.
          of: end of the names of the batch's sound and its length.
        """
        if self.autoencoder is None:
            return batch["latents"], None
        mean, deviation = self._coded(extra, batch[f"audio{of}"], batch.get(f"length{of}"))
        x = mean if key is None else mean + deviation * jax.random.normal(key, mean.shape)
        x, known = jax.lax.stop_gradient((x, params["latents"]))
        if train:
            known = heard(known, x, jnp.ones(x.shape[:2], bool))
        return standard(x, known), known

    def condition(self, params: Params, batch: Batch) -> Float[Array, "B M C"]:
        """Return the condition, its padding as zeros."""
        if self.words is None:
            return given(batch)
        there = before_text(batch)
        tokens: Any = self.words.apply({"params": params["words"]}, batch["text"], there)
        return jnp.where(there[..., None], tokens.x, 0)

    def _coded(self, extra: Extra, audio: Array, length: Any = None) -> tuple[Array, Array]:
        frozen = extra["autoencoder"]
        sound = {"audio": audio} | ({} if length is None else {"length": length})
        code = self.autoencoder.predictors()["latents"]
        return code(frozen["params"], frozen.get("extra", {}), sound)  # nothing is not saved

    def dropped(self, condition: Float[Array, "B M C"], key: Array) -> Float[Array, "B M C"]:
        """Return conditions of which some are zeros."""
        kept = jax.random.bernoulli(key, 1 - self.drop, (len(condition), 1, 1))
        return jnp.where(kept, condition, 0)

    def errors(
        self,
        params: Params,
        x: Float[Array, "B N E"],
        noise: Float[Array, "B N E"],
        time: Float[Array, " B"],
        condition: Float[Array, "B M C"],
        globally: Float[Array, "B G"] | None,
    ) -> Float[Array, " B"]:
        """Return the mean squared error of each example's velocity."""
        mixed = self.schedule.mixed(x, noise, time)
        found = self.model.apply({"params": params["model"]}, mixed, time, condition, globally)
        wanted = self.schedule.velocity(x, noise, time)
        return jnp.mean((found - wanted) ** 2, axis=(1, 2))

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer "velocity", and with an autoencoder "sound" of `batch["latents"]`."""
        found = {"velocity": self.velocity}
        return found if self.autoencoder is None else found | {"sound": self.sound}

    def velocity(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B N E"]:
        """Return the velocity of `batch["latents"]`, noised, at `batch["time"]` [B].

        `batch["guidance"]` [B], and `batch["rescale"]` [B], if there, are those of `noise.guided`.
        """
        del extra
        x, time, globally = batch["latents"], batch["time"], batch.get("globally")
        weights, condition = {"params": params["model"]}, self.condition(params, batch)
        found: Any = self.model.apply(weights, x, time, condition, globally)
        if "guidance" not in batch:
            return found
        free: Any = self.model.apply(weights, x, time, jnp.zeros_like(condition), globally)
        scale = batch["guidance"][:, None, None]
        rescale = batch["rescale"][:, None, None] if "rescale" in batch else 0.0
        return guided(found, free, scale, rescale)

    def sound(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B S *C"]:
        """Return the sound of standardised latents."""
        known, frozen = params["latents"], extra["autoencoder"]
        x = batch["latents"] * jnp.sqrt(known["variance"] + LEAST)[None, None]
        x = x + known["mean"][None, None]
        decode = self.autoencoder.predictors()["sound"]
        return decode(frozen["params"], frozen.get("extra", {}), {"latents": x})


def given(batch: Batch) -> Float[Array, "B M C"]:
    """Return the condition of a batch, its padding as zeros."""
    condition = batch["condition"]
    if "condition_length" not in batch:
        return condition
    inside = before(batch["condition_length"], condition.shape[1])
    return jnp.where(inside[..., None], condition, 0)


def before_text(batch: Batch) -> Bool[Array, "B W"]:
    """Return where a batch's words are no padding."""
    return before(batch["text_length"], batch["text"].shape[1])
