"""Who is tested on what, and choices made without the test clips. Called by `evaluate.py`.

A probe's options (regularisation, neighbours, layer) are chosen by cross-validation over groups
of the training clips alone.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

STRATA = 5  # folds made up where the data has none
PROTOCOLS = ("folds", "speakers", "official", "split")


class Classifier(Protocol):
    """A frozen dataclass with the values of one option to choose from, the simplest model first."""

    @property
    def choices(self) -> tuple[float, ...]:
        """Return the values."""
        ...

    def predict(self, x: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Return labels [choices, n] of all rows of x [n, p], learned from the rows `train` [n]."""
        ...


@dataclasses.dataclass(frozen=True)
class Split:
    """Test clips by name of the outer fold, and the groups that inner folds keep together."""

    tests: Mapping[str, np.ndarray]  # [n], True on test clips
    groups: np.ndarray  # [n]


@dataclasses.dataclass(frozen=True)
class Score:
    """The result of one outer fold."""

    fold: str
    accuracy: float
    clips: int
    layer: int  # number of the chosen one among those offered
    choice: float


def split(metas: Sequence[Mapping[str, Any]], protocol: str, seed: int = 0) -> Split:
    """Return what a protocol tests.

    Args:
      metas: `label` and, where known, `fold`, `split` and `group` of each clip. Folds that are made up
        keep the clips of a group together.
      protocol: "folds" (or "speakers", where a fold is a speaker) leaves each fold out in turn, and
        chooses by leaving out one of the others; data without folds gets five, stratified. "split"
        (or "official") tests the split "test", and chooses by five stratified folds of the rest.
      seed: of the synthetic folds.

    Raises:
      ValueError: unknown protocol; clips without a label; the data lacks what the protocol needs.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: got {protocol!r}, wanted one of {', '.join(PROTOCOLS)}.")
    wrong = [m["id"] for m in metas if not isinstance(m.get("label"), int)]
    if wrong:
        raise ValueError(
            f"a probe needs one label per clip; {wrong[0]} and {len(wrong) - 1} others have none or several. "
            "In a folder, the name of a clip's sub-folder is its label."
        )
    labels = np.array([m["label"] for m in metas])
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"a probe needs two classes or more; all {len(metas)} clips are of one. In a folder, each class "
            "is a sub-folder: CLASS/clip.wav, or train/CLASS/clip.wav and test/CLASS/clip.wav."
        )
    known = np.array([m.get("group", -1) for m in metas])
    groups = known if (known >= 0).all() else None
    if protocol in ("official", "split"):
        test = np.array([m.get("split") == "test" for m in metas])
        if not test.any() or test.all():
            raise ValueError(f"protocol {protocol!r}: the data has no splits 'train' and 'test'.")
        return Split({"test": test}, strata(np.where(test, -1, labels), seed, groups))
    folds = np.array([m.get("fold", 0) for m in metas])
    if len(np.unique(folds)) == 1:
        if protocol == "speakers":
            raise ValueError("protocol 'speakers': the data does not say who speaks.")
        folds = strata(labels, seed, groups)
    if len(np.unique(folds)) < 3:
        raise ValueError(f"protocol {protocol!r}: wanted at least 3 folds, got {np.unique(folds)}.")
    return Split({str(f): folds == f for f in np.unique(folds)}, folds)


def untaught(labels: np.ndarray, split: Split) -> dict[str, list[int]]:
    """Return, by name of the outer fold, the labels of its test clips that no training clip has."""
    missing = {
        fold: sorted({int(y) for y in labels[test]} - {int(y) for y in labels[~test]})
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


def nested(classifier: Any, x: np.ndarray, y: np.ndarray, split: Split) -> Iterator[Score]:
    """Yield the score of each outer fold, layer and option chosen within its training clips.

    The layer comes first, compared at the middle one of the choices; then the choice for that layer.

    Args:
      classifier: a `Classifier`.
      x: features [n, K, p] of K layers to choose from.
      y: labels [n].
      split: outer folds and groups.
    """
    from threadpoolctl import threadpool_limits

    choices = classifier.choices
    middle = dataclasses.replace(classifier, choices=(choices[len(choices) // 2],))
    known: dict[Any, np.ndarray] = {}

    def predict(model: Classifier, layer: int, train: np.ndarray) -> np.ndarray:
        # Leaving out fold a, then b, trains on the same clips as b, then a.
        key = len(model.choices), layer, np.packbits(train).tobytes()
        if key not in known:
            # OpenBLAS threads that wait for a busy core made small fits 400 times slower.
            with threadpool_limits(1, "blas"):
                known[key] = model.predict(x[:, layer], y, train)
        return known[key]

    def right(model: Classifier, layer: int, train: np.ndarray) -> np.ndarray:
        """Return how many training clips each choice gets right when their group is left out."""
        total = np.zeros(len(model.choices), int)
        for group in np.unique(split.groups[train]):
            held = train & (split.groups == group)
            total += np.sum(predict(model, layer, train & ~held)[:, held] == y[held], axis=1)
        return total

    for name, test in split.tests.items():
        train, layer, best = ~test, 0, 0
        if x.shape[1] > 1:
            layer = int(np.argmax([right(middle, k, train)[0] for k in range(x.shape[1])]))
        if len(choices) > 1:
            best = int(np.argmax(right(classifier, layer, train)))
        found = predict(classifier, layer, train)[best, test]
        yield Score(name, float(np.mean(found == y[test])), int(test.sum()), layer, choices[best])


def mean(scores: Iterable[Score]) -> float:
    """Return the mean of the folds' accuracies."""
    return float(np.mean([score.accuracy for score in scores]))


def standardise(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return x [n, p] with mean 0 and deviation 1 over the rows `train`; constants become 0."""
    centre = x[train].mean(axis=0, dtype=np.float64)
    scale = x[train].std(axis=0, dtype=np.float64)
    # A constant feature's deviation is rounding noise, not 0.
    steady = scale <= 1e-6 * np.maximum(np.abs(centre), 1e-6)
    return np.where(steady, 0, (x - centre) / np.where(steady, 1, scale)).astype(np.float32)
