"""Augmentation of spectrograms: frozen dataclasses, `(spec, key) -> spec`, one draw per clip.

Called by objectives when training, inside `jit`: `SpecAugment` between `Fbank.log_mel` and
`Fbank.normalise`, `NoiseRoll` after both.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, PRNGKeyArray, Spec


@dataclasses.dataclass(frozen=True)
class SpecAugment:
    """Set one band of mel bins and one span of frames to 0 in each clip.

    Widths are uniform below `freq` and `time`, positions uniform over what fits (Park et al. 2019).

    Attributes:
      freq: most mel bins that are hidden, less one; 0: none.
      time: most frames that are hidden, less one; 0: none.
    """

    freq: int = 0
    time: int = 0

    def __post_init__(self):
        if self.freq < 0 or self.time < 0:
            raise ValueError(
                f"SpecAugment: freq={self.freq}, time={self.time} must not be below 0."
            )

    def __call__(self, spec: Spec, key: PRNGKeyArray) -> Spec:
        """Return a copy with holes.

        Raises:
          ValueError: `freq` or `time` is larger than the spectrogram.
        """
        batch, frames, bins = spec.shape
        if self.freq > bins or self.time > frames:
            raise ValueError(
                f"SpecAugment: freq={self.freq}, time={self.time} do not fit a spectrogram of "
                f"{bins} bins x {frames} frames; lower them or use longer clips."
            )
        freq_key, time_key = jax.random.split(key)
        hidden_bins = _span(freq_key, batch, bins, self.freq)
        hidden_frames = _span(time_key, batch, frames, self.time)
        return jnp.where(hidden_bins[:, None, :] | hidden_frames[:, :, None], 0, spec)


@dataclasses.dataclass(frozen=True)
class NoiseRoll:
    """Add uniform noise of a random strength, then roll along time (as SSAST finetunes on ESC-50).

    Attributes:
      noise: upper end of the strength, itself uniform from 0; the noise is never negative.
      roll: frames; the shift is uniform in [-roll, roll).
    """

    noise: float = 0.1
    roll: int = 10

    def __post_init__(self):
        if self.noise < 0 or self.roll < 0:
            raise ValueError(
                f"NoiseRoll: noise={self.noise}, roll={self.roll} must not be below 0."
            )

    def __call__(self, spec: Spec, key: PRNGKeyArray) -> Spec:
        """Return a noisy and shifted copy; what leaves at one end comes in at the other."""
        batch, frames, _ = spec.shape
        noise_key, strength_key, roll_key = jax.random.split(key, 3)
        strength = self.noise * jax.random.uniform(strength_key, (batch, 1, 1), spec.dtype)
        spec = spec + strength * jax.random.uniform(noise_key, spec.shape, spec.dtype)
        shift = jax.random.randint(roll_key, (batch, 1), -self.roll, max(self.roll, 1))
        source = (jnp.arange(frames)[None] - shift) % frames
        return jnp.take_along_axis(spec, source[:, :, None], axis=1)


def _span(key: PRNGKeyArray, batch: int, size: int, most: int) -> Array:
    """Return a mask [batch, size], True on one span of fewer than `most` positions per row."""
    width, start = jax.random.uniform(key, (2, batch, 1))
    width = width * most
    # The position is drawn over what the unrounded width leaves, as in the published recipes.
    start = jnp.floor(start * (size - width))
    position = jnp.arange(size)[None]
    return (position >= start) & (position < start + jnp.floor(width))
