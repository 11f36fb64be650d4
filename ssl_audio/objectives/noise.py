"""How much noise is mixed in at each time, and what of a mixture is predicted."""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float


class Schedule(abc.ABC):
    """Shares of signal and noise at times from 0 (no noise) to 1."""

    @abc.abstractmethod
    def shares(self, time: Float[Array, "..."]) -> tuple[Array, Array]:
        """Return the factors of the signal, α, and of the noise, σ."""

    @abc.abstractmethod
    def time(self, level: Float[Array, "..."]) -> Array:
        """Return the times at which σ / α is `level`."""

    def mixed(self, x: Float[Array, "B ..."], noise: Float[Array, "B ..."], time: Any) -> Array:
        """Return α x + σ noise; `time` is [B] or a scalar."""
        signal, share = (_spread(s, x) for s in self.shares(jnp.asarray(time)))
        return signal * x + share * noise

    def velocity(self, x: Float[Array, "B ..."], noise: Float[Array, "B ..."], time: Any) -> Array:
        """Return α noise - σ x (Salimans & Ho 2022, arXiv:2202.00512, appendix D)."""
        signal, share = (_spread(s, x) for s in self.shares(jnp.asarray(time)))
        return signal * noise - share * x

    def parted(self, x: Float[Array, "B ..."], v: Float[Array, "B ..."], time: Any) -> Any:
        """Return the signal and the noise that a mixture and its velocity consist of."""
        signal, share = (_spread(s, x) for s in self.shares(jnp.asarray(time)))
        return signal * x - share * v, share * x + signal * v


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """α = cos(π t / 2), σ = sin(π t / 2)."""

    def shares(self, time: Float[Array, "..."]) -> tuple[Array, Array]:
        """Return α and σ."""
        angle = time * (jnp.pi / 2)
        return jnp.cos(angle), jnp.sin(angle)

    def time(self, level: Float[Array, "..."]) -> Array:
        """Return the times of noise levels."""
        return jnp.arctan(level) / (jnp.pi / 2)


def guided(
    conditional: Float[Array, "B N E"],
    free: Float[Array, "B N E"],
    scale: float | Array,
    rescale: float | Array = 0.0,
) -> Float[Array, "B N E"]:
    """Return free + scale (conditional - free): classifier-free guidance (Ho & Salimans, arXiv:2207.12598).

    Args:
      conditional: a prediction with the condition.
      free: without it.
      scale: 1: with the condition as it is.
      rescale: how far the deviation over channels is brought back to that of `conditional`, 0 to 1 (Lin et
        al. 2023, arXiv:2305.08891, section 3.4).
    """
    found = free + scale * (conditional - free)
    if isinstance(rescale, (int, float)) and not rescale:
        return found
    ratio = jnp.std(conditional, -1, ddof=1, keepdims=True)
    ratio = ratio / jnp.std(found, -1, ddof=1, keepdims=True)
    return rescale * found * ratio + (1 - rescale) * found


def _spread(share: Array, x: Array) -> Array:
    return share.reshape(*share.shape, *(1,) * (x.ndim - share.ndim)) if share.ndim else share


def ddim(
    predict: Any, schedule: Schedule, x: Float[Array, "B ..."], steps: int, *, begin: float = 1.0
) -> Float[Array, "B ..."]:
    """Return the signal that `steps` steps from noise lead to, without further noise (arXiv:2010.02502).

    Args:
      predict: (x, time) → velocity; `time` is a scalar.
      schedule: of the noise.
      x: noise, or a mixture at the time `begin`.
      steps: from `begin` to 0, in equal parts.
      begin: time of x.
    """
    times = jnp.linspace(begin, 0.0, steps + 1)

    def step(x, pair):
        now, then = pair
        signal, noise = schedule.parted(x, predict(x, now), now)
        return schedule.mixed(signal, noise, then), None

    return jax.lax.scan(step, x, (times[:-1], times[1:]))[0]
