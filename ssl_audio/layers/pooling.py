"""Maxima over an axis and over windows of images, with gradients that are right and fast."""

import jax.numpy as jnp

from ssl_audio.arrays import Array, Float


def max_pooled(
    x: Float[Array, "B H W D"],
    size: tuple[int, int],
    stride: tuple[int, int] | None = None,
    around: int = 0,
) -> Float[Array, "B h w D"]:
    """Return the greatest value of each window.

    Where several are greatest the gradient is divided among them; in PyTorch one of them gets all of it.

    Args:
      x: images. A side shorter than the window is not pooled.
      size: of the window, (H, W).
      stride: from one window to the next; None: the window's size. What fills no window is left out.
      around: rows and columns on each side that never are the greatest.
    """
    # Maxima of slices, not a window reduction: XLA scatters that one's gradient value by value, which on a
    # CPU takes more than ten times as long as all that the network does beside.
    for axis, step in zip((1, 2), stride or size, strict=True):
        taps = size[axis - 1]
        if x.shape[axis] + 2 * around < taps:
            continue
        if around:
            wide = [(0, 0)] * x.ndim
            wide[axis] = (around, around)
            x = jnp.pad(x, wide, constant_values=-jnp.inf)
        count = (x.shape[axis] - taps) // step + 1
        found = None
        for tap in range(taps):
            cut = [slice(None)] * x.ndim
            cut[axis] = slice(tap, tap + (count - 1) * step + 1, step)
            part = x[tuple(cut)]
            found = part if found is None else jnp.maximum(found, part)
        assert found is not None, "a window holds at least one value"
        x = found
    return x


def greatest(x: Float[Array, "..."], axis: int = 1) -> Float[Array, "..."]:
    """Return the maximum over an axis; one place of it gets the gradient, as in PyTorch."""
    # The gradient of jnp.max looks for the places that equal the maximum. A compiler that computes x again,
    # rounded otherwise, finds none, and divides by their number.
    place = jnp.argmax(x, axis=axis, keepdims=True)
    return jnp.squeeze(jnp.take_along_axis(x, place, axis=axis), axis)
