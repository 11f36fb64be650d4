"""A trained separator in use: parts of a recording that are asked for by class, by example or by a vector.

Kong et al. 2023 (arXiv:2305.07447); a recording goes through piece by piece.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.data.hierarchy import Ontology
from ssl_audio.inference.model import Model, silence
from ssl_audio.storage import written

GATE = 0.2  # probability from which on a segment is said to have a class
SECONDS = 2.0  # of a segment, where training does not say
WINDOWS = 8  # computed together
FRAME, QUIET = 0.1, 0.02  # s; frames of an example whose peak is no higher are left out


@dataclasses.dataclass(frozen=True, eq=False)
class Wanted:
    """One part to get out of a mixture.

    Attributes:
      name: of it.
      condition: what the network is given [C]; of a model that tags what it hears, its probabilities are
        multiplied by this, class by class, if `by_tags`.
      by_tags: see `condition`; segments in which no class reaches GATE are silent.
    """

    name: str
    condition: np.ndarray
    by_tags: bool = False


class Separated(NamedTuple):
    """A stretch of a recording [n, S], n channels, and its parts [Q, n, S]."""

    mixture: np.ndarray
    parts: np.ndarray


class Separator(Model):
    """Separate recordings of any length and number of channels; see `Model` for the fields.

    ```python
    separator = ssl_audio.load("runs/uss")
    wanted = [separator.of_classes("dog", ["dog"])]
    parts = separator.separate(waveform, 44_100, wanted)  # [1, S]
    ```
    """

    @property
    def samples(self) -> int:
        """Length of a segment, samples: as in training, else two seconds."""
        if self.objective.anchor is not None:
            return self.objective.anchor.samples
        trained = written.entry(self.config, "audio").get("samples")
        return trained or round(SECONDS * self.rate)

    @property
    def size(self) -> int:
        """Values of a condition, C."""
        return self.params["model"]["down_0"]["film_0"]["kernel"].shape[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes it can be asked for; none: it cannot be asked for classes."""
        if not self.objective.query.by_class:
            return ()
        found = written.labels(self.config)
        return found if len(found) == self.size else tuple(map(str, range(self.size)))

    def blank(self) -> dict[str, Any]:  # noqa: D102
        audio = written.entry(self.config, "audio").get("samples", self.samples)
        label = written.entry(self.config, "label").get("classes", 1)
        zeros = {"label": np.zeros((1, label), np.float32)}
        zeros["condition"] = np.zeros((1, self.size), np.float32)
        return silence(audio, channels=self.objective.channels) | zeros

    def of_classes(self, name: str, classes: Sequence[str]) -> Wanted:
        """Return the part in which any of some classes is heard.

        Raises:
          ValueError: a class that there is not.
        """
        labels = self.labels
        if not labels:
            raise ValueError(
                f"{self.origin or self._name}: it knows no classes; ask by an example or by a vector."
            )
        if unknown := [one for one in classes if one not in labels]:
            raise ValueError(
                f"class {unknown[0]!r}: the model has no such class; it has {', '.join(labels)}."
            )
        mask = np.array([label in classes for label in labels], np.float32)
        return Wanted(name, mask, by_tags=self.objective.query.heard)

    def of_example(self, name: str, waveform: Any, sample_rate: int) -> Wanted:
        """Return the part that sounds like an example, of any length: the mean of its segments' conditions.

        Raises:
          ValueError: a model whose conditions are not made of sound; a silent example.
        """
        if not self.objective.query.heard:
            raise ValueError(
                f"{self.origin or self._name}: its conditions are not made of sound; ask for classes, or "
                "train it with another query, as uss:query=soft,tagger=RUN."
            )
        sound = _loud(self.clips([waveform], sample_rate)[0], round(FRAME * self.rate))
        if not len(sound):
            raise ValueError(f"{name}: silent: no {FRAME:g} s of it has a peak above {QUIET:g}.")
        size = self.samples
        sound = np.tile(sound, -(-size // len(sound))) if len(sound) < size else sound
        pieces = [sound[i : i + size] for i in range(0, len(sound), size)]
        found = [self._condition(_padded(piece[None], size))[0] for piece in pieces]
        return Wanted(name, np.mean(found, axis=0))

    def of_vector(self, name: str, vector: Any) -> Wanted:
        """Return the part that a condition [C] stands for, as a text's embedding for which it was trained.

        Raises:
          ValueError: of another shape, or not finite.
        """
        vector = np.asarray(vector, np.float32)
        if vector.shape != (self.size,) or not np.isfinite(vector).all():
            raise ValueError(f"{name}: got shape {vector.shape}, wanted ({self.size},), finite.")
        return Wanted(name, vector)

    def separate(
        self, waveform: Any, sample_rate: int, wanted: Sequence[Wanted], *, overlap: float = 0.0
    ) -> np.ndarray:
        """Return the parts of a recording at `rate` Hz: [Q, S], or [Q, n, S] of n channels [n, S]."""
        sound = np.asarray(waveform)
        clips = self.clips(list(sound) if sound.ndim == 2 else [sound], sample_rate)
        found = [some.parts for some in self.stream([np.stack(clips)], wanted, overlap=overlap)]
        parts = np.concatenate(found, axis=-1)
        return parts if sound.ndim == 2 else parts[:, 0]

    def stream(
        self, pieces: Iterable[np.ndarray], wanted: Sequence[Wanted], *, overlap: float = 0.0
    ) -> Iterator[Separated]:
        """Yield a recording and its parts stretch by stretch, of which a few segments are in memory.

        Args:
          pieces: [n, S] at `rate` Hz of n channels, each of any length; one after the other they are the
            recording. A model of one channel separates each by itself.
          wanted: the parts.
          overlap: share of a segment, up to a half, in which it is faded into the next. 0: segments stand
            side by side, as published.

        Raises:
          ValueError: no parts, no such overlap, other channels than a model of several has.
        """
        if not wanted:
            raise ValueError("separate: nothing is asked for.")
        if not 0 <= overlap <= 0.5:
            raise ValueError(f"overlap: got {overlap:g}, wanted 0 to 0.5.")
        fade = round(overlap * self.samples)
        rise = ((np.arange(fade) + 1) / (fade + 1)).astype(np.float32)
        tail = None
        for window, count, last, parts in self._computed(pieces, wanted, self.samples - fade):
            parts = np.array(parts)
            if tail is not None and fade:
                parts[..., :fade] = tail * (1 - rise) + parts[..., :fade] * rise
            done = count if last else self.samples - fade
            tail = parts[..., done : done + fade]
            yield Separated(window[:, :done], parts[..., :done])

    def _computed(
        self, pieces: Iterable[np.ndarray], wanted: Sequence[Wanted], hop: int
    ) -> Iterator:
        """Yield windows [n, S], how much of each is sound, whether it is the last, and parts [Q, n, S]."""
        waiting = []
        for found in _windows(pieces, self.samples, hop):
            waiting.append(found)
            if len(waiting) == WINDOWS or found[2]:
                stack = np.stack([window for window, _, _ in waiting])
                full = np.zeros((WINDOWS, *stack.shape[1:]), np.float32)
                full[: len(stack)] = stack
                parts = [self._part(full, one) for one in wanted]
                for i, one in enumerate(waiting):
                    yield (*one, np.stack([part[i] for part in parts]))
                waiting = []

    def _part(self, sound: np.ndarray, wanted: Wanted) -> np.ndarray:
        """Return a part [W, n, S] of windows [W, n, S]."""
        count, channels, size = sound.shape
        condition = np.broadcast_to(wanted.condition, (count, self.size))
        on = np.ones(count, bool)
        if wanted.by_tags:
            condition = condition * self._condition(sound.mean(axis=1))
            on = condition.max(axis=-1) >= GATE
            if not on.any():
                return np.zeros_like(sound)
        several = self.objective.channels
        if several == 1:
            batch = sound.reshape(count * channels, size)
            condition = np.repeat(condition, channels, axis=0)
        elif several == channels:
            batch = np.moveaxis(sound, 1, 2)
        else:
            raise ValueError(f"separate: got {channels} channels, the model hears {several}.")
        given = {"audio": batch, "condition": np.asarray(condition, np.float32)}
        found = np.asarray(self._separate(self._on_device, self._extra_on_device, given))
        found = found.reshape(sound.shape) if several == 1 else np.moveaxis(found, 2, 1)
        return found * on[:, None, None]

    def _condition(self, clips: np.ndarray) -> np.ndarray:
        length = np.full(len(clips), clips.shape[1], np.int32)
        given = {"audio": np.asarray(clips, np.float32), "length": length}
        return np.asarray(self._conditions(self._on_device, self._extra_on_device, given))

    @functools.cached_property
    def _separate(self) -> Any:
        return jax.jit(self.objective.separate)

    @functools.cached_property
    def _conditions(self) -> Any:
        return jax.jit(lambda *given: jnp.asarray(self.objective.condition(*given)))


def families(ontology: Ontology, labels: Sequence[str], level: int = 0) -> dict[str, list[str]]:
    """Return node of an ontology → the classes of a model that are it, or below it by any path.

    Args:
      ontology: whose names are those of the classes.
      labels: of the model.
      level: 1: the nodes without parents; 2: their children; …; 0: all nodes.
    """
    children: dict[str, list[str]] = {}
    for child, parents in ontology.parents.items():
        for parent in parents:
            children.setdefault(parent, []).append(child)

    def below(node: str) -> set[str]:
        return {node}.union(*map(below, children.get(node, ())))

    nodes = [node for node in ontology.names if level == 0 or not ontology.parents.get(node)]
    for _ in range(level - 1):
        nodes = list(dict.fromkeys(child for node in nodes for child in children.get(node, ())))
    found = {}
    for node in nodes:
        names = {ontology.names[one] for one in below(node)}
        if inside := [label for label in labels if label in names]:
            found[ontology.names[node]] = inside
    return found


def _windows(
    pieces: Iterable[np.ndarray], size: int, hop: int
) -> Iterator[tuple[np.ndarray, int, bool]]:
    """Yield windows [n, size], how much of each is sound, and whether it is the last."""
    held = None
    for piece in pieces:
        held = piece if held is None else np.concatenate([held, piece], axis=1)
        begin = 0
        while held.shape[1] - begin > size:
            yield held[:, begin : begin + size], size, False
            begin += hop
        held = held[:, begin:]
    if held is None or not held.shape[1]:
        raise ValueError("separate: no sound.")
    yield _padded(held, size), held.shape[1], True


def _padded(sound: np.ndarray, size: int) -> np.ndarray:
    return np.pad(sound, ((0, 0), (0, size - sound.shape[1])))


def _loud(sound: np.ndarray, frame: int) -> np.ndarray:
    """Return sound [S] without the frames that are quiet."""
    frames = _padded(sound[None], -(-len(sound) // frame) * frame).reshape(-1, frame)
    kept = frames[np.abs(frames).max(axis=1) > QUIET]
    return kept.reshape(-1)
