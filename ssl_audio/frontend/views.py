"""Views of a clip: augmentations of which some change its waveform and others its spectrogram.

Frozen dataclasses, for use inside `jit`; every clip draws for itself. Objectives that compare views of a clip
(semi-supervised learning) make a spectrogram with `augmented`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.arrays import Array, Int, PRNGKeyArray, Spec, Wave
from ssl_audio.slots import AnyFrontend

SILENCE = -80.0  # dB, what `CutOut` fills with (Cances et al. 2022)


class View:
    """An augmentation in two halves, before and after the frontend, which are given the same key."""

    def waves(
        self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray
    ) -> tuple[Wave, Int[Array, "B"]]:
        """Return changed audio of the same shape, and its samples before the padding."""
        del key
        return audio, length

    def spec(self, spec: Spec, key: PRNGKeyArray, floor: float) -> Spec:
        """Return changed features.

        Args:
          spec: what the frontend returned.
          key: the same as for `waves`.
          floor: what silence is in it; see `floor`.
        """
        del key, floor
        return spec


@dataclasses.dataclass(frozen=True)
class OneOf(View):
    """Choose one of several views for each clip, all equally likely; each has a chance of its own to act.

    Cances et al. 2022 (arXiv:2102.08183): a weak and a strong pool of three.

    Attributes:
      members: the views.
    """

    members: tuple[View, ...]

    def __post_init__(self):
        if not self.members:
            raise ValueError("OneOf: members: got none, wanted at least one view.")

    def waves(  # noqa: D102
        self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray
    ) -> tuple[Wave, Int[Array, "B"]]:
        chosen, keys = self._drawn(len(audio), key)
        heard, count = audio, length
        for number, (member, own) in enumerate(zip(self.members, keys, strict=True)):
            other, size = member.waves(audio, length, own)
            mine = chosen == number
            heard = jnp.where(mine[:, None], other, heard)
            count = jnp.where(mine, size, count)
        return heard, count

    def spec(self, spec: Spec, key: PRNGKeyArray, floor: float) -> Spec:  # noqa: D102
        chosen, keys = self._drawn(len(spec), key)
        seen = spec
        for number, (member, own) in enumerate(zip(self.members, keys, strict=True)):
            mine = (chosen == number)[:, None, None]
            seen = jnp.where(mine, member.spec(spec, own, floor), seen)
        return seen

    def _drawn(self, batch: int, key: PRNGKeyArray) -> tuple[Int[Array, "B"], Any]:
        """Return the number of each clip's view, and a key for each view."""
        which, own = jax.random.split(key)
        chosen = jax.random.randint(which, (batch,), 0, len(self.members))
        return chosen, jax.random.split(own, len(self.members))


@dataclasses.dataclass(frozen=True)
class Occlusion(View):
    """Set a span of the waveform to 0; its length and place are uniform.

    Attributes:
      low, high: length, as a share of all samples, padding among them.
      chance: share of the clips that are changed.
    """

    low: float = 0.0
    high: float = 0.25
    chance: float = 1.0

    def __post_init__(self):
        _check(self, most=1.0)

    def waves(  # noqa: D102
        self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray
    ) -> tuple[Wave, Int[Array, "B"]]:
        batch, samples = audio.shape
        acts, size, place = jax.random.split(key, 3)
        hidden = _span(batch, samples, self.low, self.high, size, place)
        hidden &= jax.random.bernoulli(acts, self.chance, (batch, 1))
        return jnp.where(hidden, 0, audio), length


@dataclasses.dataclass(frozen=True)
class SpeedPerturbation(View):
    """Play a clip at another speed, by the nearest sample; the pitch changes too.

    Its sound alone is stretched. What becomes longer grows into the padding, and is cut at a random place if
    it is longer than the audio; what becomes shorter begins at a random place of where it was, with zeros
    before and after it.

    Attributes:
      low, high: the factor on the length, uniform.
      chance: share of the clips that are changed.
    """

    low: float = 0.5
    high: float = 1.5
    chance: float = 1.0

    def __post_init__(self):
        _check(self, least=0.01, most=100.0)

    def waves(  # noqa: D102
        self, audio: Wave, length: Int[Array, "B"], key: PRNGKeyArray
    ) -> tuple[Wave, Int[Array, "B"]]:
        batch, samples = audio.shape
        acts, speed, place = jax.random.split(key, 3)
        factor = jax.random.uniform(speed, (batch,), minval=self.low, maxval=self.high)
        factor = jnp.where(jax.random.bernoulli(acts, self.chance, (batch,)), factor, 1.0)
        size = jnp.maximum(jnp.floor(length * factor), 1).astype(jnp.int32)
        # Where the result begins in the stretched sound; below 0: zeros come first.
        least, most = jnp.minimum(size - length, 0), jnp.maximum(size - samples, 0)
        start = jax.random.randint(place, (batch,), least, most + 1)
        at = jnp.arange(samples)[None] + start[:, None]
        source = jnp.round(at / factor[:, None]).astype(jnp.int32)
        source = jnp.clip(source, 0, jnp.maximum(length - 1, 0)[:, None])
        inside = (at >= 0) & (at < size[:, None])
        heard = jnp.where(inside, jnp.take_along_axis(audio, source, axis=1), 0)
        return heard, jnp.clip(size - start, 1, samples).astype(length.dtype)


@dataclasses.dataclass(frozen=True)
class CutOut(View):
    """Fill a rectangle of the spectrogram with silence; its sides and place are uniform.

    Attributes:
      low, high: each side, as a share of the frames or bins.
      chance: share of the clips that are changed.
    """

    low: float = 0.1
    high: float = 0.5
    chance: float = 1.0

    def __post_init__(self):
        _check(self, most=1.0)

    def spec(self, spec: Spec, key: PRNGKeyArray, floor: float) -> Spec:  # noqa: D102
        batch, frames, bins = spec.shape
        acts, *keys = jax.random.split(key, 5)
        time = _span(batch, frames, self.low, self.high, keys[0], keys[1])
        freq = _span(batch, bins, self.low, self.high, keys[2], keys[3])
        hidden = time[:, :, None] & freq[:, None, :]
        hidden &= jax.random.bernoulli(acts, self.chance, (batch, 1, 1))
        return jnp.where(hidden, floor, spec)


def augmented(
    frontend: AnyFrontend,
    view: View | None,
    audio: Wave,
    length: Int[Array, "B"],
    key: PRNGKeyArray | None,
) -> tuple[Spec, Int[Array, "B"]]:
    """Return a frontend's features of one view of each clip, and its samples before the padding.

    Without a view, or without a key, the features of the clips as they are.
    """
    if view is None or key is None:
        return frontend(audio, length), length
    audio, length = view.waves(audio, length, key)
    return view.spec(frontend(audio, length), key, floor(frontend)), length


def floor(frontend: AnyFrontend, decibels: float = SILENCE) -> float:
    """Return what a level in dB is in the features that a frontend returns; not in dB: 0.

    `decibels` of a frontend is a straight line, so two of its points tell.
    """
    if not hasattr(frontend, "decibels"):
        return 0.0
    at_0, at_1 = frontend.decibels(np.asarray([0.0, 1.0])).tolist()
    return (decibels - at_0) / (at_1 - at_0)


def published(strength: str) -> dict[str, Any]:
    """Return the options of the weak or strong pool of Cances et al. 2022 (arXiv:2102.08183), for a config.

    Raises:
      ValueError: another strength.
    """
    weak = strength == "weak"
    if not weak and strength != "strong":
        raise ValueError(f"strength: got {strength!r}, wanted weak or strong.")
    chance = 0.5 if weak else 1.0
    ranges = dict(
        Occlusion=(0.0, 0.25 if weak else 0.75),
        SpeedPerturbation=(0.5, 1.5) if weak else (0.25, 1.75),
        CutOut=(0.1, 0.5) if weak else (0.5, 1.0),
    )
    members = tuple(
        dict(kind=f"views:{name}", low=low, high=high, chance=chance)
        for name, (low, high) in ranges.items()
    )
    return dict(kind="views:OneOf", members=members)


def _span(
    batch: int, size: int, low: float, high: float, long: PRNGKeyArray, place: PRNGKeyArray
) -> Array:
    """Return a mask [batch, size], True on one span per row, of a uniform share of it."""
    share = jax.random.uniform(long, (batch, 1), minval=low, maxval=high)
    width = jnp.round(share * size)
    start = jnp.floor(jax.random.uniform(place, (batch, 1)) * (size - width + 1))
    position = jnp.arange(size)[None]
    return (position >= start) & (position < start + width)


def _check(view: Any, least: float = 0.0, most: float = 1.0) -> None:
    """Raise ValueError unless a view's range and chance make sense."""
    name = type(view).__name__
    if not least <= view.low <= view.high <= most:
        raise ValueError(
            f"{name}: low={view.low:g}, high={view.high:g}; wanted {least:g} <= low <= high <= {most:g}."
        )
    if not 0 <= view.chance <= 1:
        raise ValueError(f"{name}: chance is {view.chance:g}; wanted 0 to 1.")
