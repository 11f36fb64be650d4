"""From noise to a signal: linear multistep methods over a fixed sequence of noise levels.

Each is a table of factors, known before anything is computed; one scan goes through it (`sample`).
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float
from ssl_audio.objectives.noise import Schedule


@dataclasses.dataclass(frozen=True)
class Sampler(abc.ABC):
    """Steps over noise levels σ / α from `most` to `least`, then to 0.

    Attributes:
      steps: evaluations of the model.
      least, most: noise levels.
    """

    steps: int = 50
    least: float = 0.03
    most: float = 500.0

    def __post_init__(self):
        if self.steps < 2:
            raise ValueError(f"{type(self).__name__}: steps is {self.steps}; wanted at least 2.")
        if not 0 < self.least < self.most:
            raise ValueError(
                f"{type(self).__name__}: least {self.least}, most {self.most}: wanted 0 < least < most."
            )

    @property
    def levels(self) -> np.ndarray:
        """Return the noise levels [steps + 1], evenly spaced as logarithms, 0 at the end."""
        return np.append(np.geomspace(self.most, self.least, self.steps), 0.0)

    @abc.abstractmethod
    def row(self, levels: np.ndarray, i: int) -> tuple[float, ...]:
        """Return how step i from levels[i] to levels[i + 1] > 0 weighs what there is.

        The mixture, the signals predicted now, one and two steps before, and fresh noise.
        """

    def table(self) -> np.ndarray:
        """Return the factors of all steps [steps, 5]; see `row`. The last one takes the signal as it is."""
        levels = self.levels
        rows = [self.row(levels, i) for i in range(self.steps - 1)]
        return np.array([*rows, (0.0, 1.0, 0.0, 0.0, 0.0)], np.float32)


@dataclasses.dataclass(frozen=True)
class Ddim(Sampler):
    """First order (Song et al. 2021, arXiv:2010.02502): Euler's method of the equation without noise."""

    def row(self, levels: np.ndarray, i: int) -> tuple[float, ...]:
        """Return the factors of a step."""
        share = float(levels[i + 1] / levels[i])
        return share, 1 - share, 0.0, 0.0, 0.0


@dataclasses.dataclass(frozen=True)
class Dpm2M(Sampler):
    """DPM-Solver++(2M): second order, from two predictions (Lu et al. 2022, arXiv:2211.01095)."""

    def row(self, levels: np.ndarray, i: int) -> tuple[float, ...]:
        """Return the factors of a step."""
        share = float(levels[i + 1] / levels[i])
        if i == 0:
            return share, 1 - share, 0.0, 0.0, 0.0
        now, before = np.log(levels[i] / levels[i + 1]), np.log(levels[i - 1] / levels[i])
        half = now / before / 2
        return share, (1 - share) * (1 + half), -(1 - share) * half, 0.0, 0.0


@dataclasses.dataclass(frozen=True)
class Dpm3M(Sampler):
    """DPM-Solver++(3M): third order, with fresh noise in each step or without.

    As Stable Audio samples: a stochastic solver as in Lu et al. 2022 (arXiv:2211.01095), in the form with
    three predictions.

    Attributes:
      eta: share of the fresh noise, 1: the stochastic equation; 0: none.
    """

    eta: float = 1.0

    def row(self, levels: np.ndarray, i: int) -> tuple[float, ...]:
        """Return the factors of a step."""
        h = float(np.log(levels[i] / levels[i + 1]))
        far = h * (1 + self.eta)
        kept = np.exp(-far)
        now, one, two = 1 - kept, 0.0, 0.0
        second = (kept - 1) / far + 1  # the weight of a first difference
        if i == 1:
            ratio = float(np.log(levels[0] / levels[1])) / h
            now, one = now + second / ratio, -second / ratio
        elif i > 1:
            third = second / far - 0.5
            near = float(np.log(levels[i - 1] / levels[i])) / h
            past = float(np.log(levels[i - 2] / levels[i - 1])) / h
            # First differences a = (now - one) / near and b = (one - two) / past, extrapolated.
            slope, bend = near / (near + past), 1 / (near + past)
            a = second * (1 + slope) - third * bend
            b = -second * slope + third * bend
            now, one, two = now + a / near, -a / near + b / past, -b / past
        noise = levels[i + 1] * np.sqrt(max(0.0, -np.expm1(-2 * h * self.eta)))
        return float(kept), float(now), float(one), float(two), float(noise)


def sample(
    predict: Callable[[Array, Array], Array],
    schedule: Schedule,
    noise: Float[Array, "B ..."],
    sampler: Sampler,
    keys: Any,
) -> Float[Array, "B ..."]:
    """Return the signal that a sampler's steps lead to.

    Args:
      predict: (mixture with α² + σ² = 1, time) → velocity; `time` is a scalar.
      schedule: of the noise.
      noise: standard normal.
      sampler: the steps.
      keys: [B], of each example's fresh noise: a result does not depend on the others.
    """
    levels = jnp.asarray(sampler.levels[:-1], jnp.float32)

    def drawn(key, number):
        return jax.random.normal(jax.random.fold_in(key, number), noise.shape[1:])

    def step(carry, given):
        x, one, two = carry
        level, row, number = given
        time = schedule.time(level)
        signal = schedule.shares(time)[0]
        now, _ = schedule.parted(signal * x, predict(signal * x, time), time)
        x = row[0] * x + row[1] * now + row[2] * one + row[3] * two
        if stochastic:
            x = x + row[4] * jax.vmap(drawn, (0, None))(keys, number)
        return (x, now, one), None

    table, zeros = sampler.table(), jnp.zeros_like(noise)
    stochastic = bool(table[:, 4].any())
    start = (noise * float(sampler.levels[0]), zeros, zeros)
    given = (levels, jnp.asarray(table), jnp.arange(len(table)))
    return jax.lax.scan(step, start, given)[0][0]
