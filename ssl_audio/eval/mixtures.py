"""How well a separator gets each of two sounds out of their mixture: an evaluator of `train/loop.py`.

Kong et al. 2023 (arXiv:2305.07447): pairs of clips of different classes, at one energy.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.data import transforms
from ssl_audio.data.source import by_names, multi_hot
from ssl_audio.eval import inputs
from ssl_audio.objectives.separation import distortion, mixed
from ssl_audio.slots import AnySource
from ssl_audio.structs import TrainState

SILENT = 1e-8  # mean square; quieter segments cannot be brought to an energy


@dataclasses.dataclass(frozen=True)
class Gains:
    """Of each mixture, by how much the signal-to-distortion ratio rises, dB, and whose it is.

    Attributes:
      label: class of the wanted sound [P]; `other`: of that which it is mixed with.
      right: what is asked for is the wanted one.
      wrong: what is asked for is the other; measured against the wanted one, so that it should be below 0.
      half: half of the mixture, which knows nothing: 3 dB for sounds that do not resemble each other.
    """

    label: np.ndarray
    other: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    half: np.ndarray

    @property
    def scores(self) -> dict[str, float]:
        """Return the mean over classes of the means of each, and the median of all mixtures."""
        names = {"SDRi": self.right, "SDRi_wrong": self.wrong, "SDRi_half": self.half}
        found = {name: float(self.of_classes(gains).mean()) for name, gains in names.items()}
        return found | {"SDRi_median": float(np.median(self.right))}

    def of_classes(self, gains: np.ndarray) -> np.ndarray:
        """Return the mean of each class that there is, in the order of their numbers."""
        return np.array([gains[self.label == one].mean() for one in np.unique(self.label)])


@dataclasses.dataclass(frozen=True)
class Mixtures:
    """Mix clips of different classes, ask for each class, and compare.

    Attributes:
      source: labelled clips. Of several labels the first counts.
      samples: of a clip, before the objective cuts its segment out; shorter ones are repeated.
      classes: C.
      pairs: of clips; each makes two mixtures' worth, as either sound is asked for.
      batch_size: pairs computed together.
      seed: which clips are drawn.
    """

    source: AnySource
    samples: int
    classes: int
    pairs: int = 100
    batch_size: int = 10
    seed: int = 0

    def __post_init__(self):
        for name in ("samples", "classes", "pairs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"mixtures: {name}: wanted at least 1, got {getattr(self, name)}")

    def numbered(self, labels: tuple[str, ...]) -> "Mixtures":
        """Return the evaluator with the numbers that training has given these names of classes."""
        return dataclasses.replace(self, source=by_names(self.source, labels))

    def check(self, objective: Any, training: Any) -> None:
        """Open the clips and compare their labels with the number of classes; `training` has no say.

        Raises:
          ValueError: an objective without "separate"; see `inputs.check`; clips of one class only.
        """
        del training
        if "separate" not in objective.predictors():
            raise ValueError(f"mixtures: {type(objective).__name__} has no predictor 'separate'.")
        inputs.check(self.source, self.classes)
        self.drawn()

    def run(self, objective: Any, state: TrainState, mesh: jax.sharding.Mesh) -> dict[str, float]:
        """Return the scores of a training state; every host computes all of them."""
        del mesh
        return self.measure(objective, state.params, state.extra).scores

    def drawn(self) -> np.ndarray:
        """Return pairs of clips [pairs, 2] of different classes; the classes of the first take turns.

        Raises:
          ValueError: clips of one class only, or without a label.
        """
        metas = [self.source.meta(i) for i in range(len(self.source))]
        if missing := [meta["id"] for meta in metas if meta.get("label") in (None, ())]:
            raise ValueError(
                f"mixtures: clip {missing[0]} and {len(missing) - 1} others have no label."
            )
        labels = np.array([_first(meta["label"]) for meta in metas])
        kinds, rng = np.unique(labels), np.random.default_rng(self.seed)
        if len(kinds) < 2:
            raise ValueError("mixtures: all clips are of one class; wanted two classes or more.")
        found = []
        for i in range(self.pairs):
            first = kinds[i % len(kinds)]
            other = rng.choice(kinds[kinds != first])
            found.append([rng.choice(np.flatnonzero(labels == one)) for one in (first, other)])
        return np.array(found)

    def measure(self, objective: Any, params: Any, extra: Any) -> Gains:
        """Return what was gained in each mixture; pairs with a silent clip are left out.

        Raises:
          ValueError: all pairs have one.
        """
        pairs, program = self.drawn(), _program(objective)
        label, gains = [], []
        for begin in range(0, len(pairs), self.batch_size):
            some = pairs[begin : begin + self.batch_size]
            # The last batch is filled up, so that one program does for all.
            rows = np.resize(some, (self.batch_size, 2))
            clips = [self._batch(rows[:, side]) for side in (0, 1)]
            found = np.asarray(program(params, extra, *clips))[:, :, : len(some)]
            numbers = np.stack([np.argmax(clip["label"], -1) for clip in clips])[:, : len(some)]
            heard = found[3].min(0) > SILENT
            label.append(np.stack([numbers, numbers[::-1]])[:, :, heard])
            gains.append(found[:3, :, heard])
        label, gains = np.concatenate(label, -1), np.concatenate(gains, -1)
        if not gains.size:
            raise ValueError("mixtures: every pair has a silent clip; draw more pairs.")
        return Gains(*(x.reshape(-1) for x in (*label, *gains)))

    def _batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        audio, labels, rng = [], [], np.random.default_rng(0)
        for i in rows:
            example = self.source[int(i)]
            sound = np.asarray(example["audio"])
            sound = np.resize(sound, self.samples) if len(sound) < self.samples else sound
            audio.append(transforms.crop(sound, self.samples, "first", rng)[0])
            labels.append(multi_hot((_first(example["label"]),), self.classes))
        length = np.full(len(rows), self.samples, np.int32)
        return {"audio": np.stack(audio), "label": np.stack(labels), "length": length}


@functools.lru_cache(maxsize=4)
def _program(objective: Any) -> Any:
    """Return the compiled function of pairs: [right, wrong, half, least energy] x [of first, of second]."""

    def program(params, extra, first, second):
        clean = [objective.segments(extra, clip) for clip in (first, second)]
        conditions = [objective.condition(params, extra, clip) for clip in clean]
        sounds = jnp.stack([clip["audio"] for clip in clean], 1)  # [B, 2, S]
        mixtures = [
            jax.vmap(lambda two: mixed(two, 2, match=True)[0])(sounds[:, order])
            for order in (jnp.array([0, 1]), jnp.array([1, 0]))
        ]
        rows = []
        for side in (0, 1):
            target, mixture = sounds[:, side], mixtures[side]
            batch = {"audio": mixture, "length": clean[0]["length"]}
            plain = distortion(mixture, target)
            made = [
                objective.separate(params, extra, batch | {"condition": conditions[one]})
                for one in (side, 1 - side)
            ]
            gains = [distortion(found, target) - plain for found in (*made, mixture / 2)]
            rows.append(jnp.stack([*gains, jnp.mean(target**2, -1)]))
        return jnp.stack(rows, 1)

    return jax.jit(program)


def _first(label: Any) -> int:
    return int(label[0] if isinstance(label, tuple) else label)


def by_class(gains: Gains, names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return by name of each class: its mixtures, and the means of right, wrong and half."""
    found = {}
    for one in np.unique(gains.label):
        at = gains.label == one
        kinds = {"right": gains.right, "wrong": gains.wrong, "half": gains.half}
        means = {name: float(values[at].mean()) for name, values in kinds.items()}
        found[names[one]] = {"mixtures": float(at.sum())} | means
    return found
