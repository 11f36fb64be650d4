"""Which part of a clip is taken for its source: anchors (Kong et al. 2023, arXiv:2305.07447).

Called by `separation.py`: a weak label says that a class is somewhere in a clip, not where.
"""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio.arrays import Array, Float, Int, Wave
from ssl_audio.objectives.base import Batch, Extra
from ssl_audio.objectives.queries import asked, frozen, inner
from ssl_audio.slots import AnyObjective


@dataclasses.dataclass(frozen=True)
class Anchor(abc.ABC):
    """Cut the segment out of each clip in which its class is most likely.

    Attributes:
      frames: of a segment, an even number.
      hop: samples of a frame.
    """

    frames: int = 200
    hop: int = 320

    def __post_init__(self):
        if self.frames < 2 or self.frames % 2 or self.hop < 1:
            raise ValueError(
                f"Anchor: frames {self.frames}, hop {self.hop}; wanted an even number of frames, and a hop "
                "of a sample or more."
            )

    def init(self, key: Array, batch: Batch) -> Extra:
        """Return state that does not learn."""
        del key, batch
        return {}

    @property
    def samples(self) -> int:
        """Return the samples of a segment."""
        return self.frames * self.hop

    @abc.abstractmethod
    def likely(self, extra: Extra, batch: Batch, key: Array | None) -> Float[Array, "B T"]:
        """Return how likely it is in each frame that the class of the clip is heard."""

    def __call__(self, extra: Extra, batch: Batch, key: Array | None = None) -> Wave:
        """Return segments [B, samples] of `batch["audio"]`; with a key as in training.

        Raises:
          ValueError: clips that are shorter than a segment.
        """
        audio = batch["audio"]
        last = audio.shape[1] // self.hop
        if last < self.frames:
            raise ValueError(
                f"anchor: clips have {audio.shape[1]} samples, and a segment {self.samples}; make "
                "data.entries.audio.samples larger, or frames smaller."
            )
        likely = jax.lax.stop_gradient(self.likely(extra, batch, key))[:, : last + 1]
        _, centre = anchors(likely, self.frames, last)
        return cut(audio, centre, self.frames, self.hop)[0]


@dataclasses.dataclass(frozen=True)
class Loudest(Anchor):
    """Where there is most sound: of clips that hold one source, and silence."""

    def likely(self, extra: Extra, batch: Batch, key: Array | None) -> Float[Array, "B T"]:  # noqa: D102
        del extra, key
        audio = batch["audio"]
        count = audio.shape[1] // self.hop
        frames = audio[:, : count * self.hop].reshape(len(audio), count, self.hop)
        return jnp.mean(frames**2, axis=-1)


@dataclasses.dataclass(frozen=True)
class Anywhere(Anchor):
    """At random: the published comparison. Without a key, in the middle."""

    def likely(self, extra: Extra, batch: Batch, key: Array | None) -> Float[Array, "B T"]:  # noqa: D102
        del extra
        audio = batch["audio"]
        count = audio.shape[1] // self.hop
        places = jnp.full(len(audio), count // 2)
        if key is not None:
            places = jax.random.randint(
                key, (len(audio),), self.frames // 2, count - self.frames // 2 + 1
            )
        near = jnp.abs(jnp.arange(count + 1)[None] - places[:, None])
        return jnp.maximum(0.0, 1 - near / count)


@dataclasses.dataclass(frozen=True)
class Heard(Anchor):
    """Where a frozen model of events hears a class of the clip best: `batch["label"]`.

    Attributes:
      model: an objective with a head that gives logits along time, as `ssl_audio.inference.frozen:Frozen` of
        a run of `events`, or of converted weights of Cnn14_DecisionLevelMax; at the separator's rate.
    """

    model: AnyObjective = None

    def init(self, key: Array, batch: Batch) -> Extra:  # noqa: D102
        return frozen(self.model, key, batch)

    def likely(self, extra: Extra, batch: Batch, key: Array | None) -> Float[Array, "B T"]:  # noqa: D102
        del key
        logits = along(self.model, extra, batch)
        # Of several labels that which is heard best at the moment.
        off = jnp.where(batch["label"][:, None] > 0, 0.0, -jnp.inf)
        columns = jax.nn.sigmoid(jnp.max(logits + off, axis=-1))
        made = inner(self.model)
        step = made.tokenizer.stride[1] * getattr(made.encoder, "joined", 1) * made.frontend.hop
        # A column holds until the next; the last one to the end.
        place = jnp.arange(batch["audio"].shape[1] // self.hop + 1) * self.hop // step
        return columns[:, jnp.minimum(place, columns.shape[1] - 1)]


def along(model: Any, extra: Extra, batch: Batch) -> Float[Array, "B M C"]:
    """Return the logits of each column of a frozen model of events, or of a tagger whose head can give them.

    Raises:
      ValueError: a model without a head.
    """
    if "frame_logits" in model.predictors():
        return asked(model, "frame_logits", extra, batch)
    made = inner(model)
    if not hasattr(made, "head"):
        raise ValueError(
            f"anchor: {type(made).__name__} has no head that hears classes along time; wanted a run of "
            "config events, or converted weights of Cnn14_DecisionLevelMax."
        )
    encoded = asked(model, "encode", extra, batch)
    return made.head.apply({"params": extra["params"]["head"]}, encoded, along=True)


def anchors(
    likely: Float[Array, "B T"], frames: int, last: int | None = None
) -> tuple[Float[Array, "B U"], Int[Array, " B"]]:
    """Return how likely a class is around each frame, and the frame around which it is most likely.

    Args:
      likely: probability of the class at each frame.
      frames: of a segment; its ends are repeated beyond those of the clip.
      last: frames of the clip, within which the whole segment is to lie; None: T.

    Returns:
      Means over `frames` [B, U], U is T, or T + 1 for an even number of them; the centres [B].
    """
    half = frames // 2
    padded = jnp.pad(likely, ((0, 0), (half, half)), mode="edge")
    total = jnp.cumsum(jnp.pad(padded, ((0, 0), (1, 0))), axis=1)
    scores = (total[:, frames:] - total[:, :-frames]) / frames
    best = jnp.argmax(scores, axis=1)
    return scores, jnp.clip(best, half, (last or likely.shape[1]) - half).astype(jnp.int32)


def cut(audio: Wave, centre: Int[Array, " B"], frames: int, hop: int) -> tuple[Any, Any, Any]:
    """Return the segment around each anchor, and the samples where it begins and ends."""
    half = frames // 2
    begin = (centre - half) * hop
    size = 2 * half * hop
    found = jax.vmap(lambda x, at: jax.lax.dynamic_slice(x, (at,), (size,)))(audio, begin)
    return found, begin, begin + size
