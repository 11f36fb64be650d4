"""Augmentation of waveforms: frozen dataclasses, `(audio, length, key) -> audio`, one draw per clip.

Called by objectives when training, inside `jit`, before the frontend.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Int, PRNGKeyArray, Wave
from ssl_audio.frontend.base import before


@dataclasses.dataclass(frozen=True)
class RollGain:
    """Roll each clip by a random number of its samples, and change its level.

    Huang et al. 2022, Audio-MAE (arXiv:2207.06405).

    Attributes:
      beta: the factor on the level is 0.5 plus a draw from Beta(beta, beta).
    """

    beta: float = 10.0

    def __post_init__(self):
        if self.beta <= 0:
            raise ValueError(f"RollGain: beta is {self.beta}; it must be above 0.")

    def __call__(self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray) -> Wave:
        """Return a copy; what leaves at the end of the valid samples comes in at their beginning."""
        shift_key, level_key = jax.random.split(key)
        batch, samples = audio.shape
        whole = jnp.maximum(length, 1)
        shift = jax.random.randint(shift_key, (batch,), 0, whole)
        place = jnp.arange(samples)[None]
        source = jnp.where(
            before(length, samples), (place + shift[:, None]) % whole[:, None], place
        )
        level = 0.5 + jax.random.beta(level_key, self.beta, self.beta, (batch, 1))
        return level * jnp.take_along_axis(audio, source, axis=1)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Add other clips of the batch to a clip, softer than it is.

    Rauch et al. 2025, Bird-MAE (arXiv:2504.12880).

    Attributes:
      share: of the clips that something is added to.
      most: up to so many others are added, each number equally likely.
      low, high: how many dB softer each is, uniform.
    """

    share: float = 0.3
    most: int = 3
    low: float = 5.0
    high: float = 25.0

    def __post_init__(self):
        if not 0 <= self.share <= 1 or self.most < 1 or self.low > self.high:
            raise ValueError(
                f"Mixture: share={self.share}, most={self.most}, low={self.low}, high={self.high}; "
                "wanted a share from 0 to 1, at least one other, and low <= high."
            )

    def __call__(self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray) -> Wave:
        """Return the mixtures; samples from `length` on stay as they are."""
        batch, samples = audio.shape
        share_key, count_key, other_key, level_key = jax.random.split(key, 4)
        mixed = jax.random.bernoulli(share_key, self.share, (batch,))
        count = jnp.where(mixed, jax.random.randint(count_key, (batch,), 1, self.most + 1), 0)
        inside = before(length, samples)
        signal = jnp.where(inside, audio, 0)
        power = jnp.sum(signal**2, 1) / jnp.maximum(length, 1)
        total = audio
        for number in range(self.most):
            shift = jax.random.randint(
                jax.random.fold_in(other_key, number), (batch,), 1, max(batch, 2)
            )
            other = (jnp.arange(batch) + shift) % batch
            softer = jax.random.uniform(
                jax.random.fold_in(level_key, number), (batch,), minval=self.low, maxval=self.high
            )
            gain = jnp.sqrt(power / jnp.maximum(power[other], 1e-10)) * 10 ** (-softer / 20)
            gain = jnp.where(number < count, gain, 0)
            total = total + jnp.where(inside, gain[:, None] * signal[other], 0)
        return total
