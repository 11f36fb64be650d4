"""Who is tested on what, and choices made without the test clips. Called by `evaluate.py`.

A probe's options (regularisation, neighbours, layer) are chosen by cross-validation over groups
of the training clips alone.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ssl_audio.data.source import Source, multi_hot
from ssl_audio.eval import metrics

STRATA = 5  # folds made up where the data has none
TESTS = ("test", "eval")  # names of the split that is tested
PROTOCOLS = ("folds", "speakers", "official", "split")


class Classifier(Protocol):
    """A frozen dataclass with the values of one option to choose from, the simplest model first."""

    @property
    def choices(self) -> tuple[float, ...]:
        """Return the values."""
        ...

    def predict(self, x: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Return labels [choices, n] of all rows of x [n, p], learned from the rows `train` [n].

        Of clips with several labels y is multi-hot [n, C], and the result logits [choices, n, C]; those
        that can do so have a true attribute `several`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A head that a classifier has trained, for `eval.save_probe`.

    Attributes:
      head: its config.
      params: its `head`, and `centre` and `gain` of what it reads; see `objectives.probe.Probe`.
      labels: numbers of the classes, in the order of its logits [C].
    """

    head: Mapping[str, Any]
    params: Mapping[str, Any]
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Split:
    """Test clips by name of the outer fold, and the groups that inner folds keep together."""

    tests: Mapping[str, np.ndarray]  # [n], True on test clips
    groups: np.ndarray  # [n]

    @property
    def training(self) -> np.ndarray:
        """The clips [n] that a probe may learn from which is kept: all, where each fold is tested in turn."""
        tests = list(self.tests.values())
        return ~tests[0] if len(tests) == 1 else np.ones(len(self.groups), bool)


@dataclasses.dataclass(frozen=True)
class Score:
    """The result of one outer fold."""

    fold: str
    scores: Mapping[str, float]  # "accuracy"; of clips with several labels "mAP" and more
    clips: int
    layer: int  # number of the chosen one among those offered
    choice: float

    @property
    def accuracy(self) -> float:
        """Share of clips whose class is right."""
        return self.scores["accuracy"]


def split(
    metas: Sequence[Mapping[str, Any]], protocol: str, seed: int = 0, *, several: bool = False
) -> Split:
    """Return what a protocol tests.

    Args:
      metas: `label` and, where known, `fold`, `split` and `group` of each clip. Folds that are made up
        keep the clips of a group together.
      protocol: "folds" (or "speakers", where a fold is a speaker) leaves each fold out in turn, and
        chooses by leaving out one of the others; data without folds gets five, stratified. "split"
        (or "official") tests the split "test" (or "eval"), and chooses by five stratified folds of the rest.
      seed: of the synthetic folds.
      several: clips may have several labels; folds that are made up then do not share out the classes.

    Raises:
      ValueError: unknown protocol; clips without a label; the data lacks what the protocol needs.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: got {protocol!r}, wanted one of {', '.join(PROTOCOLS)}.")
    wrong = [m["id"] for m in metas if not isinstance(m.get("label"), int)]
    if several and (missing := [m["id"] for m in metas if m.get("label") is None]):
        raise ValueError(f"clip {missing[0]} and {len(missing) - 1} others have no labels.")
    if wrong and not several:
        raise ValueError(
            f"a probe needs one label per clip; {wrong[0]} and {len(wrong) - 1} others have none or several. "
            "In a folder, the name of a clip's sub-folder is its label. Several labels: ssl-audio finetune."
        )
    labels = np.array([0 if several else m["label"] for m in metas])
    if len(np.unique(labels)) < 2 and not several:
        raise ValueError(
            f"a probe needs two classes or more; all {len(metas)} clips are of one. In a folder, each class "
            "is a sub-folder: CLASS/clip.wav, or train/CLASS/clip.wav and test/CLASS/clip.wav."
        )
    known = np.array([m.get("group", -1) for m in metas])
    groups = known if (known >= 0).all() else None
    if protocol in ("official", "split"):
        test = np.array([m.get("split") in TESTS for m in metas])
        if not test.any() or test.all():
            raise ValueError(f"protocol {protocol!r}: the data has no splits 'train' and 'test'.")
        return Split({"test": test}, strata(np.where(test, -1, labels), seed, groups))
    if 0 < len(without := [m["id"] for m in metas if m.get("fold") is None]) < len(metas):
        raise ValueError(
            f"{len(without)} of {len(metas)} clips have no fold, as {without[0]}; wanted one for each, or "
            "for none: then five are made up."
        )
    folds = np.array([0 if m.get("fold") is None else m["fold"] for m in metas])
    if len(np.unique(folds)) == 1:
        if protocol == "speakers":
            raise ValueError("protocol 'speakers': the data does not say who speaks.")
        folds = strata(labels, seed, groups)
    if len(np.unique(folds)) < 3:
        why = ""
        if groups is not None:
            count = len(np.unique(groups))
            why = f": clips are kept together in {count} group(s), by file, recording, speaker or the like"
        raise ValueError(
            f"protocol {protocol!r}: wanted at least 3 folds, got {len(np.unique(folds))}{why}. Add clips of "
            "other groups or folds, or name test clips in a column `split` and use --protocol split."
        )
    return Split({str(f): folds == f for f in np.unique(folds)}, folds)


def truth(source: Source, metas: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return the labels [n] of a source's clips; where they may have several, multi-hot [n, C], float32.

    Raises:
      ValueError: a clip without a label.
    """
    if missing := [m["id"] for m in metas if m.get("label") is None]:
        raise ValueError(f"clip {missing[0]} and {len(missing) - 1} others have no label.")
    if source.info.multilabel:
        return np.stack([multi_hot(m["label"], len(source.info.labels)) for m in metas])
    return np.array([m["label"] for m in metas])


def untaught(labels: np.ndarray, split: Split) -> dict[str, list[int]]:
    """Return, by name of the outer fold, the labels of its test clips that no training clip has."""

    def classes(rows: np.ndarray) -> set[int]:
        return set(np.flatnonzero(rows.any(0)).tolist() if rows.ndim == 2 else rows.tolist())

    missing = {
        fold: sorted(classes(labels[test]) - classes(labels[~test]))
        for fold, test in split.tests.items()
    }
    return {fold: found for fold, found in missing.items() if found}


def strata(labels: np.ndarray, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Return folds 1 to 5 [n] that share out each label evenly, at random.

    Args:
      labels: [n].
      seed: of the chance.
      groups: [n], whose clips are in one fold: large ones are shared out first, each to the fold that has
        the fewest clips of its labels.
    """
    rng = np.random.default_rng(seed)
    folds = np.zeros(len(labels), int)
    if groups is not None and len(np.unique(groups)) < len(groups):
        kinds, y = np.unique(labels, return_inverse=True)
        names, g = np.unique(groups, return_inverse=True)
        per, have = np.zeros((len(names), len(kinds))), np.zeros((STRATA, len(kinds)))
        np.add.at(per, (g, y), 1)
        place = np.zeros(len(names), int)
        for group in sorted(rng.permutation(len(names)), key=lambda i: -per[i].sum()):
            share = per[group] / np.maximum(per.sum(0), 1)
            place[group] = int(np.lexsort((have.sum(1), have @ share))[0])
            have[place[group]] += per[group]
        return 1 + place[g]
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        folds[rows] = 1 + (np.arange(len(rows)) + rng.integers(STRATA)) % STRATA
    return folds


class Nested:
    """Choose layer and option within training clips, and remember what was learned on the way.

    The layer comes first, compared at the middle one of the choices; then the choice for that layer.

    Args:
      classifier: a `Classifier`.
      x: features [n, K, p] of K layers to choose from.
      y: labels [n], or multi-hot [n, C].
      split: outer folds and groups.
    """

    def __init__(self, classifier: Any, x: np.ndarray, y: np.ndarray, split: Split):
        self._classifier, self._x, self._y, self._split = classifier, x, y, split
        self._known: dict[Any, np.ndarray] = {}

    def scores(self) -> Iterator[Score]:
        """Yield the score of each outer fold, layer and option chosen within its training clips."""
        for name, found, layer, best in self.predictions():
            test = self._split.tests[name]
            scores = self._scored(found, self._y[test])
            yield Score(name, scores, int(test.sum()), layer, self._classifier.choices[best])

    def predictions(self) -> Iterator[tuple[str, np.ndarray, int, int]]:
        """Yield of each outer fold its name, labels [n] or logits [n, C] of its test clips, and two choices.

        Those are the numbers of the layer and of the option, chosen within the fold's training clips.
        """
        for name, test in self._split.tests.items():
            layer, best = self.choose(~test)
            yield name, self._predict(self._classifier, layer, ~test)[best, test], layer, best

    def choose(self, train: np.ndarray) -> tuple[int, int]:
        """Return the numbers of the layer and of the choice that do best within the clips `train` [n]."""
        choices, layer, best = self._classifier.choices, 0, 0
        middle = dataclasses.replace(self._classifier, choices=(choices[len(choices) // 2],))
        if self._x.shape[1] > 1:
            right = [self._right(middle, k, train)[0] for k in range(self._x.shape[1])]
            layer = int(np.argmax(right))
        if len(choices) > 1:
            best = int(np.argmax(self._right(self._classifier, layer, train)))
        return layer, best

    def _right(self, model: Classifier, layer: int, train: np.ndarray) -> np.ndarray:
        """Return how well each choice does on training clips when their group is left out.

        The number that are right; of clips with several labels the mAP over all of them.
        """
        groups, kept, truth = self._split.groups, [], []
        for group in np.unique(groups[train]):
            held = train & (groups == group)
            kept.append(self._predict(model, layer, train & ~held)[:, held])
            truth.append(self._y[held])
        found, y = np.concatenate(kept, axis=1), np.concatenate(truth)
        if y.ndim == 1:
            return np.sum(found == y, axis=1)
        return np.array([metrics.mean_average_precision(logits, y) for logits in found])

    @staticmethod
    def _scored(found: np.ndarray, y: np.ndarray) -> dict[str, float]:
        if y.ndim == 1:
            return {"accuracy": float(np.mean(found == y))}
        return {
            "mAP": metrics.mean_average_precision(found, y),
            "AUC": metrics.macro_auc(found, y),
            "d_prime": metrics.d_prime(found, y),
            "lwlrap": metrics.lwlrap(found, y),
            "classes": metrics.classes(y),
            "AUC_classes": metrics.divided_classes(y),
        }

    def _predict(self, model: Classifier, layer: int, train: np.ndarray) -> np.ndarray:
        from threadpoolctl import threadpool_limits

        # Leaving out fold a, then b, trains on the same clips as b, then a.
        key = len(model.choices), layer, np.packbits(train).tobytes()
        if key not in self._known:
            # OpenBLAS threads that wait for a busy core made small fits 400 times slower.
            with threadpool_limits(1, "blas"):
                self._known[key] = model.predict(self._x[:, layer], self._y, train)
        return self._known[key]


def nested(classifier: Any, x: np.ndarray, y: np.ndarray, split: Split) -> Iterator[Score]:
    """Yield the score of each outer fold; see `Nested`."""
    return Nested(classifier, x, y, split).scores()


def means(scores: Sequence[Score]) -> dict[str, float]:
    """Return the means of the folds' scores, by name."""
    return {
        name: float(np.mean([score.scores[name] for score in scores])) for name in scores[0].scores
    }


def standardise(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return x [n, p] with mean 0 and deviation 1 over the rows `train`; constants become 0."""
    centre, gain = statistics(x[train])
    return (x.astype(np.float32) - centre) * gain


def statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over the first axis and one over the deviation, float32; of constants 0.

    A saved probe does the same sum in float32, (x - centre) * gain, so its features are the same.
    """
    centre = x.mean(axis=0, dtype=np.float64)
    scale = x.std(axis=0, dtype=np.float64)
    # A constant feature's deviation is rounding noise, not 0.
    steady = scale <= 1e-6 * np.maximum(np.abs(centre), 1e-6)
    gain = np.where(steady, 0, 1 / np.where(steady, 1, scale))
    return centre.astype(np.float32), gain.astype(np.float32)
