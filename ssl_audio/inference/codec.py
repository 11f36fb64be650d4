"""A trained codec in use: sound to codes and back, at any length."""

from collections.abc import Sequence

import jax.numpy as jnp

from ssl_audio.arrays import Array, Float
from ssl_audio.inference.model import Model


class CodecModel(Model):
    """Codes."""


def overlapped(parts: Sequence[Float[Array, "B S C"]], step: int) -> Float[Array, "B S C"]:
    """Return chunks as one sound; where they overlap, each counts by its distance to its ends.

    Args:
      parts: chunks as long as the first, the last ones may be shorter.
      step: samples between their begins.
    """
    if len(parts) == 1:
        return parts[0]
    size = parts[0].shape[1]
    place = (jnp.arange(size) + 1) / (size + 1)
    weight = 0.5 - jnp.abs(place - 0.5)
    count = max(i * step + part.shape[1] for i, part in enumerate(parts))
    total = jnp.zeros((len(parts[0]), count, parts[0].shape[2]), parts[0].dtype)
    share = jnp.zeros(count)
    for i, part in enumerate(parts):
        begin, end = i * step, i * step + part.shape[1]
        some = weight[: part.shape[1]]
        total = total.at[:, begin:end].add(some[None, :, None] * part)
        share = share.at[begin:end].add(some)
    return total / share[None, :, None]
