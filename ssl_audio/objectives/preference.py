"""Prefer some latents to others: direct preference optimisation of a diffusion model.

Diffusion-DPO (Wallace et al. 2024, arXiv:2311.12908), as in Synthio (Ghosh et al. 2025, arXiv:2410.02056).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.objectives.base import Batch, Extra, Params
from ssl_audio.objectives.diffusion import Diffusion
from ssl_audio.structs import Loss


@dataclasses.dataclass(frozen=True)
class Preference(Diffusion):
    """Err less than a frozen copy does where latents are preferred, and more where they are not.

    Both latents of a pair, and both networks, meet the same noise at the same time. Of a batch: "latents",
    what is preferred, and "rejected", of the same shape; with an autoencoder "audio" and "audio_rejected",
    and what is known of latents stays as it was. The rest as for `Diffusion`.

    Attributes:
      beta: how far the model may leave the frozen one; more: less far.
    """

    beta: float = 2000.0

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return parameters, and their frozen copy; a warm start changes both."""
        params, extra = super().init(key, batch)
        return params, extra | {"reference": jax.tree.map(jnp.copy, params)}

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the loss of each pair's preference."""
        time_key, noise_key, drop_key, draw_key = jax.random.split(key, 4)
        x: Any = batch.get("latents")
        other: Any = batch.get("rejected")
        if self.autoencoder is not None:
            x, _ = self.latents(params, extra, batch, draw_key)
            other, _ = self.latents(params, extra, batch, draw_key, of="_rejected")
        time = jax.random.uniform(time_key, x.shape[:1])
        noise = jax.random.normal(noise_key, x.shape)
        errors = []
        for weights in (params, jax.lax.stop_gradient(extra["reference"])):
            condition = self.condition(weights, batch)
            if train:
                condition = self.dropped(condition, drop_key)
            rest = noise, time, condition, batch.get("globally")
            errors += [self.errors(weights, latents, *rest) for latents in (x, other)]
        value, preferred = preference(*errors, beta=self.beta)
        rows = float(len(x))
        metrics = {
            "preferred": (jnp.sum((preferred > 0).astype(jnp.float32)), rows),
            "velocity": (jnp.sum(errors[0]), rows),
        }
        return Loss(total=jnp.mean(value), metrics=metrics, extra=extra)


def preference(
    winner: Float[Array, " B"],
    loser: Float[Array, " B"],
    winner_before: Float[Array, " B"],
    loser_before: Float[Array, " B"],
    *,
    beta: float,
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return the loss of each pair, and by how much the model prefers the winner more than the frozen one.

    Args:
      winner, loser: errors of the model.
      winner_before, loser_before: of the frozen one.
      beta: see `Preference`.
    """
    gain = (winner_before - loser_before) - (winner - loser)
    return -jax.nn.log_sigmoid(beta / 2 * gain), gain
