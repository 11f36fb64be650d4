"""Group-masked corruption: hide rectangles of a spectrogram, or put others' sound there instead.

Atito et al. 2021, GMML (arXiv:2106.10147), as ASiT (arXiv:2211.13189) uses it. On pixels, not patches.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, PRNGKeyArray, Spec


@dataclasses.dataclass(frozen=True)
class GroupMask:
    """Cover a share of each spectrogram with random rectangles.

    Attributes:
      least, most: the share of a clip that is set to 0 is uniform between these.
      alien: probability that a clip is, instead, overlaid with parts of another one of the batch.
      alien_share: share that is then overlaid.
      side: largest side of a rectangle, as a share of the axis; sides are uniform below.
    """

    least: float = 0.5
    most: float = 0.7
    alien: float = 0.5
    alien_share: float = 0.3
    side: float = 0.3

    def __post_init__(self):
        if not 0 < self.least <= self.most < 1 or not 0 < self.side <= 1:
            raise ValueError(
                f"GroupMask: least={self.least}, most={self.most}, side={self.side}; wanted "
                "0 < least <= most < 1 and 0 < side <= 1."
            )
        if not 0 <= self.alien <= 1 or not 0 < self.alien_share < 1:
            raise ValueError(
                f"GroupMask: alien={self.alien}, alien_share={self.alien_share}; wanted a "
                "probability and a share between 0 and 1."
            )

    def __call__(
        self, spec: Spec, key: PRNGKeyArray
    ) -> tuple[Float[Array, "B T F"], Float[Array, "B T F"]]:
        """Return the corrupted spectrograms, and a mask that is 1 where they were changed."""
        batch = spec.shape[0]
        share_key, alien_key, other_key, draw_key = jax.random.split(key, 4)
        share = jax.random.uniform(share_key, (batch,), minval=self.least, maxval=self.most)
        alien = jax.random.bernoulli(alien_key, self.alien, (batch,)) & (batch > 1)
        share = jnp.where(alien, self.alien_share, share)
        shift = jax.random.randint(other_key, (batch,), 1, max(batch, 2))
        other = spec[(jnp.arange(batch) + shift) % batch]
        draw = jax.vmap(lambda key, share: self.rectangles(key, share, *spec.shape[1:]))
        mask = draw(jax.random.split(draw_key, batch), share)
        instead = jnp.where(alien[:, None, None], other, 0)
        return jnp.where(mask, instead, spec), mask.astype(spec.dtype)

    def rectangles(self, key: PRNGKeyArray, share: Float[Array, ""], frames: int, bins: int):
        """Return a mask [T, F] of random rectangles; they are added until they cover the share."""

        def more(carry):
            _, mask = carry
            return jnp.mean(mask.astype(jnp.float32)) < share

        def add(carry):
            key, mask = carry
            key, corner_key, side_key = jax.random.split(key, 3)
            corner = jax.random.uniform(corner_key, (2,))
            side = jax.random.uniform(side_key, (2,))
            inside = []
            for axis, size in enumerate((frames, bins)):
                first = jnp.floor(corner[axis] * size)
                length = 1 + jnp.floor(side[axis] * max(1.0, self.side * size))
                place = jnp.arange(size)
                inside.append((place >= first) & (place < first + length))
            return key, mask | (inside[0][:, None] & inside[1][None])

        return jax.lax.while_loop(more, add, (key, jnp.zeros((frames, bins), bool)))[1]
