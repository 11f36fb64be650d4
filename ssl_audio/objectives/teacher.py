"""Teachers that follow a student, numbers that change with the step, and the features of frozen teachers.

The first two are for `Objective.refresh`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Bool, Float
from ssl_audio.objectives.base import Batch
from ssl_audio.structs import Encoded, Tokens

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


def heard_by(model: Any) -> Any:
    """Return the objective whose front end a frozen model hears with: a folder's, or that of its teacher."""
    while not hasattr(model, "frontend"):
        inner = getattr(model, "objective", None) or getattr(model, "teacher", None)
        if inner is None:
            return model
        model = inner
    return model


def spacing(objective: Any) -> int:
    """Return the samples from one column of an objective's encoded tokens to the next."""
    merged = getattr(objective.encoder, "joined", 1)
    return objective.frontend.hop * objective.tokenizer.stride[1] * merged


def encoded(frozen: Any, state: Mapping[str, Any], batch: Batch) -> Encoded:
    """Return what a frozen model makes of a batch whose clips may be longer or shorter than its own.

    Shorter ones are not filled up to the length that it was trained with. Longer ones it hears in windows of
    that length, each beginning where the columns of the one before end.

    Args:
      frozen: an objective that offers "encode".
      state: its "params" and "extra".
      batch: with "audio" [B, T] and "length".

    Returns:
      tokens and layers; of windows, those of all columns on one grid, and no layers if their sizes differ.
    """
    frontend, (audio, length) = frozen.frontend, (batch["audio"], batch["length"])
    most, count = frontend.frames, dataclasses.replace(frontend, frames=None).count(audio.shape[1])
    if most is not None:
        fitted = dataclasses.replace(frontend, frames=min(most, count))
        frozen = dataclasses.replace(frozen, frontend=fitted)
    encode = functools.partial(frozen.predictors()["encode"], state["params"], state["extra"])
    if most is None or count <= most:
        return encode(batch)
    size = frontend.window + frontend.hop * (most - 1)
    first: Any = jax.eval_shape(encode, {"audio": audio[:, :size], "length": length})
    rows, columns = first.tokens.grid
    step = columns * spacing(frozen)
    windows = -(-count * frontend.hop // step)
    audio = jnp.pad(audio, ((0, 0), (0, max(0, (windows - 1) * step + size - audio.shape[1]))))
    cut = [audio[:, k * step : k * step + size] for k in range(windows)]
    left = length[:, None] - step * jnp.arange(windows)[None]
    found: Any = encode(
        {
            "audio": jnp.stack(cut, axis=1).reshape(-1, size),
            "length": jnp.clip(left, 1, size).reshape(-1),  # no window is empty
        }
    )

    def together(x: Array) -> Array:
        x = x.reshape(*x.shape[:-3], -1, windows, rows, columns, x.shape[-1])
        return jnp.moveaxis(x, -4, -3).reshape(*x.shape[:-5], x.shape[-5], -1, x.shape[-1])

    index = jnp.arange(rows * windows * columns)[None].repeat(len(length), axis=0)
    tokens = Tokens(x=together(found.tokens.x), index=index, grid=(rows, windows * columns))
    layers, different = found.layers, found.layers is None or isinstance(found.layers, tuple)
    return Encoded(tokens=tokens, layers=None if different else together(layers))
