"""Predict how noised latents move (Stable Audio Open: Evans et al. 2024, arXiv:2407.14358)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.frontend.base import before
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.objectives.noise import Cosine, Schedule, guided
from ssl_audio.slots import Backbone
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class Diffusion(Objective):
    """Mean squared error of the velocity at a time drawn evenly from 0 to 1.

    Of a batch: "latents" [B, N, E]; "condition" [B, M, C] and its "condition_length" [B], whose padding
    counts as zeros; "globally" [B, G], if there is one.

    Attributes:
      model: `dit`.
      schedule: of the noise.
      drop: share of the examples that are trained without their condition, for guidance.
    """

    model: Backbone
    schedule: Schedule = Cosine()
    drop: float = 0.1

    interface: ClassVar[str] = "ssl_audio.inference.model:Model"

    def __post_init__(self):
        if not 0 <= self.drop < 1:
            raise ValueError(f"diffusion: drop is {self.drop}; wanted 0 to 1, and less than 1.")

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters."""
        x = batch["latents"]
        given = heard(batch), batch.get("globally")
        return {"model": self.model.init(key, x, jnp.zeros(len(x)), *given)["params"]}, {}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the error at one time for each example."""
        time_key, noise_key, drop_key = jax.random.split(key, 3)
        x, condition = batch["latents"], heard(batch)
        time = jax.random.uniform(time_key, x.shape[:1])
        noise = jax.random.normal(noise_key, x.shape)
        if train:
            condition = self.dropped(condition, drop_key)
        error = self.errors(params, x, noise, time, condition, batch.get("globally"))
        rows = float(len(x))
        metrics = {"velocity": (jnp.sum(error), rows)}
        return Loss(total=jnp.mean(error), metrics=metrics, extra=extra)

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
        """Offer "velocity"."""
        return {"velocity": self.velocity}

    def velocity(self, params: Params, extra: Extra, batch: Batch) -> Float[Array, "B N E"]:
        """Return the velocity of `batch["latents"]`, noised, at `batch["time"]` [B].

        `batch["guidance"]` [B], and `batch["rescale"]` [B], if there, are those of `noise.guided`.
        """
        del extra
        x, time, globally = batch["latents"], batch["time"], batch.get("globally")
        weights, condition = {"params": params["model"]}, heard(batch)
        found: Any = self.model.apply(weights, x, time, condition, globally)
        if "guidance" not in batch:
            return found
        free: Any = self.model.apply(weights, x, time, jnp.zeros_like(condition), globally)
        scale = batch["guidance"][:, None, None]
        rescale = batch["rescale"][:, None, None] if "rescale" in batch else 0.0
        return guided(found, free, scale, rescale)


def heard(batch: Batch) -> Float[Array, "B M C"]:
    """Return the condition, its padding as zeros."""
    condition = batch["condition"]
    if "condition_length" not in batch:
        return condition
    inside = before(batch["condition_length"], condition.shape[1])
    return jnp.where(inside[..., None], condition, 0)
