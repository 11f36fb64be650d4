"""Teachers that follow a student, numbers that change with the step, and the scale of a teacher's features.

The first two are for `Objective.refresh`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float

SETTLED = 1000.0  # batches, from which on each counts a thousandth in what is known of features
LEAST = 1e-6  # variance
SHAPES = ("linear", "cosine", "exponential")


@dataclasses.dataclass(frozen=True)
class Ramp:
    """A number that goes from `start` to `end` within so many steps, then stays.

    Attributes:
      start, end: its values.
      steps: updates in between; 0: it is `end` from the first.
      shape: "linear", "cosine" (slow at both ends) or "exponential", exp(-5 (1 - share of the steps)²), which
        begins with 0.7 % of the way behind it (Laine and Aila 2017, arXiv:1610.02242).
    """

    start: float
    end: float
    steps: int = 0
    shape: str = "linear"

    def __post_init__(self):
        if self.shape not in SHAPES:
            raise ValueError(f"Ramp: shape '{self.shape}'; wanted {', '.join(SHAPES)}.")
        if self.steps < 0:
            raise ValueError(f"Ramp: steps is {self.steps}; it must not be below 0.")

    def __call__(self, step: Any) -> Any:
        """Return the number, float32, after `step` updates."""
        share = jnp.clip(jnp.asarray(step, jnp.float32) / max(self.steps, 1), 0, 1)
        if not self.steps:
            share = jnp.ones((), jnp.float32)
        if self.shape == "cosine":
            share = (1 - jnp.cos(jnp.pi * share)) / 2
        if self.shape == "exponential":
            share = jnp.exp(-5 * (1 - share) ** 2)
        return self.start + (self.end - self.start) * share


def follow(teacher: Any, student: Any, momentum: Any) -> Any:
    """Return momentum x teacher + (1 - momentum) x student, for the parts that the teacher has."""
    if isinstance(teacher, dict):
        return {name: follow(old, student[name], momentum) for name, old in teacher.items()}
    return jax.tree.map(lambda t, s: momentum * t + (1 - momentum) * s, teacher, student)


def unheard(width: int) -> dict[str, Array]:
    """Return what is known of the channels of features before the first batch."""
    return {"batches": jnp.zeros(()), "mean": jnp.zeros(width), "variance": jnp.ones(width)}


def heard(
    known: Mapping[str, Array], z: Float[Array, "B K D"], there: Bool[Array, "B K"]
) -> dict[str, Array]:
    """Return the mean and variance of each channel over all batches, with one more.

    Args:
      known: see `unheard`.
      z: features.
      there: which frames count.
    """
    weight = there[..., None].astype(z.dtype) / jnp.maximum(jnp.sum(there), 1)
    mean = jnp.sum(weight * z, axis=(0, 1))
    variance = jnp.sum(weight * (z - mean[None, None]) ** 2, axis=(0, 1))
    share = 1 / (1 + jnp.minimum(known["batches"], SETTLED))
    between = share * (1 - share) * (mean - known["mean"]) ** 2
    return {
        "batches": known["batches"] + 1,
        "mean": known["mean"] + share * (mean - known["mean"]),
        "variance": known["variance"] + share * (variance - known["variance"]) + between,
    }


def standard(z: Float[Array, "B K D"], known: Mapping[str, Array]) -> Float[Array, "B K D"]:
    """Return features with mean 0 and deviation 1 in each channel, over what was heard."""
    return (z - known["mean"][None, None]) * jax.lax.rsqrt(known["variance"] + LEAST)[None, None]
