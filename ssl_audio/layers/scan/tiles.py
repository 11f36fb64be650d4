"""Padding to whole tiles, for the Pallas kernels."""

from collections.abc import Mapping

import jax.numpy as jnp


def pad_to(x: jnp.ndarray, multiples: Mapping[int, int]) -> jnp.ndarray:
    """Put zeros at the end of each named axis up to a multiple of so many.

    A token of step 0 leaves the state as it is, a channel of input 0 stays 0, and a state that
    nothing enters is read as 0, so no result changes.
    """
    widths = [(0, 0)] * x.ndim
    for axis, multiple in multiples.items():
        widths[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, widths) if any(after for _, after in widths) else x
