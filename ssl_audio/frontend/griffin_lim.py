"""Magnitudes of a short-time Fourier transform back to sound, without learned parameters."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Float, Wave
from ssl_audio.frontend.base import framed


@functools.partial(jax.jit, static_argnames=("hop", "rounds", "momentum"))
def sound(
    magnitude: Float[Array, "B T K"],
    key: Any,
    *,
    hop: int,
    rounds: int = 60,
    momentum: float = 0.99,
) -> Wave:
    """Return sound [B, (T - 1) hop] whose transform has about these magnitudes.

    Phases begin at random, and become those of the sound that they make, round after round (Griffin & Lim
    1984), with momentum (Perraudin et al. 2013).

    Args:
      magnitude: of frames centred on multiples of the hop, under a periodic Hann window of 2 (K - 1) samples.
      key: of the first phases.
      hop: samples between frames.
      rounds: more: nearer.
      momentum: 0: as in 1984.
    """
    window = hann(2 * (magnitude.shape[-1] - 1))
    # The same for all, so that none depends on how many there are.
    angle = jax.random.uniform(key, magnitude.shape[1:], maxval=2 * jnp.pi)
    first = jnp.broadcast_to(jnp.exp(1j * angle)[None], magnitude.shape)

    def turned(carry, _):
        phase, before = carry
        after = spectrum(inverse(magnitude * phase, window, hop), window, hop)
        moved = after + momentum * (after - before)
        return (moved / jnp.maximum(jnp.abs(moved), 1e-9), after), None

    (phase, _), _ = jax.lax.scan(turned, (first, jnp.zeros_like(first)), length=rounds)
    return inverse(magnitude * phase, window, hop)


def spectrum(audio: Wave, window: np.ndarray, hop: int) -> Array:
    """Return the transform [B, T, K] of frames centred on multiples of the hop, silence at both ends."""
    half = len(window) // 2
    padded = jnp.pad(audio, ((0, 0), (half, half)))
    frames = framed(padded, 1 + audio.shape[1] // hop, len(window), hop)
    return jnp.fft.rfft(frames * jnp.asarray(window)[None, None])


def inverse(bands: Array, window: np.ndarray, hop: int) -> Wave:
    """Return the sound [B, (T - 1) hop] whose frames are nearest to these (least squares)."""
    size, half, count = len(window), len(window) // 2, bands.shape[1]
    frames = jnp.fft.irfft(bands, size) * jnp.asarray(window)[None, None]
    parts = -(-size // hop)
    frames = jnp.pad(frames, ((0, 0), (0, 0), (0, parts * hop - size)))
    whole = jnp.zeros((len(bands), (count + parts) * hop))
    weight = np.zeros((count + parts) * hop)
    square = np.pad(window**2, (0, parts * hop - size))
    for i in range(parts):
        piece = frames[:, :, i * hop : (i + 1) * hop].reshape(len(bands), -1)
        whole = whole.at[:, i * hop : (i + count) * hop].add(piece)
        weight[i * hop : (i + count) * hop] += np.tile(square[i * hop : (i + 1) * hop], count)
    found = whole / jnp.asarray(np.maximum(weight, 1e-8), jnp.float32)[None]
    return found[:, half : half + (count - 1) * hop]


def hann(size: int) -> np.ndarray:
    """Return a periodic Hann window, float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
