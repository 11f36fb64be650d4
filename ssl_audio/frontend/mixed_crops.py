"""The augmentations of BYOL-A (arXiv:2103.06695): a faint mixture with an earlier clip, a resized crop.

Frozen dataclasses, called by objectives inside `jit` on normalised log-mel. What they remember of earlier
clips is a tree of arrays that the objective keeps in `extra`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int, PRNGKeyArray, Spec

Memory = Any  # {"clips": [M, T, F], "count": int32, how many were ever put in}
TINY = float(jnp.finfo(jnp.float32).eps)


@dataclasses.dataclass(frozen=True)
class LogMixup:
    """Add an earlier clip to each clip, as energies: log((1 - share) e^x + share e^earlier).

    Niizumi et al. 2021, BYOL-A (arXiv:2103.06695), section 3.1. Clips mixed in come from earlier batches,
    not from their own; before there is any, a clip stays as it is.

    Attributes:
      most: upper end of the share, itself uniform from 0.
      clips: M, how many clips are remembered; a new one takes the place of the oldest.
    """

    most: float = 0.4
    clips: int = 2048

    def __post_init__(self):
        if not 0 <= self.most < 1 or self.clips < 1:
            raise ValueError(
                f"LogMixup: most={self.most}, clips={self.clips}; wanted a share from 0 to 1 and at "
                "least one clip."
            )

    def empty(self, spec: Spec) -> Memory:
        """Return a memory without clips, for those shaped like `spec`."""
        clips = jnp.zeros((self.clips, *spec.shape[1:]), jnp.float32)
        return {"clips": clips, "count": jnp.zeros((), jnp.int32)}

    def remember(self, memory: Memory, spec: Spec) -> Memory:
        """Return the memory with these clips in the places of the oldest.

        Raises:
          ValueError: the batch is larger than the memory.
        """
        if len(spec) > self.clips:
            raise ValueError(
                f"LogMixup: a batch of {len(spec)} clips does not fit a memory of clips={self.clips}."
            )
        spec = jax.lax.stop_gradient(spec.astype(jnp.float32))
        # Counted modulo a multiple of its size, so that the number stays small.
        place = (memory["count"] + jnp.arange(len(spec))) % self.clips
        count = memory["count"] + len(spec)
        count = jnp.where(count >= 2 * self.clips, count - self.clips, count)
        return {"clips": memory["clips"].at[place].set(spec), "count": count}

    def __call__(self, spec: Spec, memory: Memory, key: PRNGKeyArray) -> Spec:
        """Return the mixtures; each clip has a share and an earlier clip of its own."""
        share_key, clip_key = jax.random.split(key)
        there = jnp.minimum(memory["count"], self.clips)
        chosen = self.choose(spec, memory, there, clip_key)
        share = self.most * jax.random.uniform(share_key, (len(spec), 1, 1))
        mixed = log_mixed(spec, memory["clips"][chosen], share)
        return jnp.where(there > 0, mixed, spec)

    def choose(
        self, spec: Spec, memory: Memory, there: Int[Array, ""], key: PRNGKeyArray
    ) -> Int[Array, " B"]:
        """Return the number of an earlier clip for each clip, of the `there` first: any, equally likely."""
        del memory
        return jax.random.randint(key, (len(spec),), 0, jnp.maximum(there, 1))


@dataclasses.dataclass(frozen=True)
class KMix(LogMixup):
    """Add an earlier clip that is as unlike a clip as can be: of the cluster farthest from its own.

    Seth et al. 2023, SLICER (arXiv:2211.01519), k-mix. Clips are clustered by the direction of their mean
    spectrum, with spherical k-means. The published centres are found once, on a part of the data; these
    move with the memory: one iteration over all that it holds after every batch.

    Attributes:
      clusters: K.
      fewest: clips that must be remembered first; until then any is taken.
    """

    clusters: int = 4
    fewest: int = 128

    def __post_init__(self):
        super().__post_init__()
        if self.clusters < 1 or not 1 <= self.fewest <= self.clips:
            raise ValueError(
                f"KMix: clusters={self.clusters}, fewest={self.fewest}; wanted at least one cluster, and "
                f"from 1 to clips={self.clips}."
            )

    def empty(self, spec: Spec) -> Memory:
        """Return a memory without clips, and centres that mean nothing yet."""
        centres = jnp.zeros((self.clusters, spec.shape[2]), jnp.float32)
        return super().empty(spec) | {"centres": centres}

    def remember(self, memory: Memory, spec: Spec) -> Memory:
        """Return the memory with these clips in the places of the oldest, and the centres moved."""
        first = _direction(spec)[jnp.arange(self.clusters) % len(spec)]
        centres = jnp.where(memory["count"] == 0, first, memory["centres"])
        new = super().remember(memory, spec)
        known = _direction(new["clips"])
        own = self._members(known, centres, jnp.minimum(new["count"], self.clips))
        total = own.T @ known
        length = jnp.linalg.norm(total, axis=1, keepdims=True)
        # A cluster that has lost all clips stays where it is.
        centres = jnp.where(length > TINY, total / jnp.maximum(length, TINY), centres)
        return new | {"centres": jax.lax.stop_gradient(centres)}

    def choose(
        self, spec: Spec, memory: Memory, there: Int[Array, ""], key: PRNGKeyArray
    ) -> Int[Array, " B"]:
        """Return the number of an earlier clip for each clip: one of the farthest cluster that has any."""
        centres = memory["centres"]
        members = self._members(_direction(memory["clips"]), centres, there)
        own = jnp.argmax(_direction(spec) @ centres.T, axis=1)
        far = jnp.where(jnp.sum(members, 0) > 0, -(centres @ centres.T)[own], -jnp.inf)
        fits = members[:, jnp.argmax(far, axis=1)].T > 0
        draw = jax.random.uniform(key, fits.shape)
        chosen = jnp.argmax(jnp.where(fits, draw, -1.0), axis=1)
        return jnp.where(there < self.fewest, super().choose(spec, memory, there, key), chosen)

    def _members(
        self, known: Float[Array, "M F"], centres: Float[Array, "K F"], there: Int[Array, ""]
    ) -> Float[Array, "M K"]:
        """Return 1 where a remembered clip is in a cluster; 0 throughout where there is no clip."""
        own = jax.nn.one_hot(jnp.argmax(known @ centres.T, axis=1), self.clusters)
        return own * (jnp.arange(self.clips) < there)[:, None]


def _direction(spec: Float[Array, "B T F"]) -> Float[Array, "B F"]:
    """Return the mean over time of each spectrogram, scaled to length 1."""
    mean = jnp.mean(jax.lax.stop_gradient(spec), axis=1)
    return mean / jnp.maximum(jnp.linalg.norm(mean, axis=1, keepdims=True), TINY)


def log_mixed(x: Spec, other: Spec, share: Float[Array, "B 1 1"] | float) -> Spec:
    """Return log((1 - share) e^x + share e^other), with the least float added before the logarithm."""
    return jnp.log((1 - share) * jnp.exp(x) + share * jnp.exp(other) + TINY)


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """Cut a rectangle out of each spectrogram, laid in the middle of a larger empty one, and resize it.

    Niizumi et al. 2021, BYOL-A (arXiv:2103.06695), section 3.2: approximate shifts and stretches of pitch
    and of time. The result has the shape of the input; bicubic, corners on corners.

    Attributes:
      canvas: (frequency, time): sizes of the larger one, times those of the spectrogram; around it are 0s.
      frequency, time: the rectangle's sides are uniform between these, times those of the spectrogram, and
        at most as long as the canvas'; its place is uniform.
    """

    canvas: tuple[float, float] = (1.0, 1.5)
    frequency: tuple[float, float] = (0.6, 1.5)
    time: tuple[float, float] = (0.6, 1.5)

    def __post_init__(self):
        sides = (self.frequency, self.time)
        if min(self.canvas) < 1 or any(not 0 < low <= high for low, high in sides):
            raise ValueError(
                f"ResizedCrop: canvas={self.canvas}, frequency={self.frequency}, time={self.time}; wanted "
                "a canvas of at least 1, and ranges above 0 in ascending order."
            )

    def __call__(self, spec: Spec, key: PRNGKeyArray) -> Spec:
        """Return a crop of each clip, at the size of the clip."""
        batch, frames, bins = spec.shape
        time_key, frequency_key = jax.random.split(key)
        begin, size = self._side(time_key, batch, frames, self.canvas[1], self.time)
        spec = resized(spec, begin, size)
        begin, size = self._side(frequency_key, batch, bins, self.canvas[0], self.frequency)
        return jnp.swapaxes(resized(jnp.swapaxes(spec, 1, 2), begin, size), 1, 2)

    def _side(self, key, batch: int, there: int, canvas: float, scale: tuple[float, float]):
        """Return where a side of each rectangle begins, counted from the spectrogram, and how long it is."""
        size_key, place_key = jax.random.split(key)
        whole = int(there * canvas)
        size = jax.random.uniform(size_key, (batch,), minval=scale[0], maxval=scale[1]) * there
        size = jnp.clip(size.astype(jnp.int32), 1, whole)
        begin = jax.random.randint(place_key, (batch,), 0, whole - size + 1)
        return begin - (whole - there) // 2, size


def resized(
    x: Float[Array, "B T F"], begin: Int[Array, " B"], size: Int[Array, " B"]
) -> Float[Array, "B T F"]:
    """Stretch `size` rows from row `begin` on to all T rows, by cubic convolution (a = -0.75).

    The first and the last row of the stretch fall on those of the result. Rows outside x are 0; rows
    outside the stretch are not looked at: its ends are repeated.
    """
    rows = x.shape[1]
    # In whole numbers, so that rows which fall on rows are exactly those.
    steps = max(rows - 1, 1)
    left, rest = jnp.divmod(jnp.arange(rows)[None] * (size - 1)[:, None], steps)
    share = rest / steps
    total = jnp.zeros(x.shape, jnp.float32)
    for tap in range(-1, 3):
        row = jnp.clip(left + tap, 0, (size - 1)[:, None]) + begin[:, None]
        weight = _cubic(jnp.abs(share - tap)) * ((row >= 0) & (row < rows))
        found = jnp.take_along_axis(x, jnp.clip(row, 0, rows - 1)[:, :, None], axis=1)
        total = total + weight[:, :, None] * found
    return total


def _cubic(distance: Float[Array, "B T"], a: float = -0.75) -> Float[Array, "B T"]:
    """Return the weight of a row at this distance, 0 to 2 (Keys 1981)."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return jnp.where(distance <= 1, near, far)


@dataclasses.dataclass(frozen=True)
class MixedCrops:
    """Views of clips: a log-mixup with an earlier clip, then a resized crop, drawn anew for each view.

    Attributes:
      mixup, crop: the two parts.
    """

    mixup: LogMixup = LogMixup()
    crop: ResizedCrop = ResizedCrop()

    def empty(self, spec: Spec) -> Memory:
        """Return the memory to begin with; see `LogMixup.empty`."""
        return self.mixup.empty(spec)

    def remember(self, memory: Memory, spec: Spec) -> Memory:
        """Return the memory after a batch of clips, which were not yet augmented."""
        return self.mixup.remember(memory, spec)

    def __call__(self, spec: Spec, memory: Memory, key: PRNGKeyArray) -> Spec:
        """Return one view of each clip."""
        mixup_key, crop_key = jax.random.split(key)
        return self.crop(self.mixup(spec, memory, mixup_key), crop_key)
