"""Accuracy learned from a few clips of each class, drawn again and again. Called by `evaluate.py`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio.eval.base import Classifier, Split, standardise
from ssl_audio.eval.knn import Knn
from ssl_audio.eval.probe import Probe


@dataclasses.dataclass(frozen=True)
class NearestMean:
    """The class whose mean is nearest by cosine (prototypes of Snell et al. 2017, arXiv:1703.05175).

    There is nothing to choose; `choices` has one value.
    """

    choices: tuple[float, ...] = (0.0,)

    def predict(self, x: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Return labels [1, n] of all rows of x [n, p], learned from the rows `train` [n]."""
        z = standardise(x, train)
        labels = np.unique(y[train])
        means = np.stack([z[train & (y == label)].mean(axis=0) for label in labels])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return labels[np.argmax(z @ means.T, axis=1)][None]


# With so few clips nothing can be chosen: one neighbour, one penalty.
CLASSIFIERS: Mapping[str, Classifier] = {
    "linear": Probe(choices=(10.0,)),
    "knn": Knn(choices=(1,)),
    "prototype": NearestMean(),
}


def draw(y: np.ndarray, allowed: np.ndarray, shots: int, seed: Sequence[int]) -> np.ndarray:
    """Return which clips [n] to learn from: `shots` of each class, at random among `allowed` [n].

    Raises:
      ValueError: a class has fewer clips.
    """
    rng, chosen = np.random.default_rng(seed), np.zeros(len(y), bool)
    for label in np.unique(y):
        rows = np.flatnonzero(allowed & (y == label))
        if len(rows) < shots:
            raise ValueError(
                f"shots: class {label} has {len(rows)} clips to learn from, {shots} were wanted."
            )
        chosen[rng.choice(rows, shots, replace=False)] = True
    return chosen


def few_shot(
    x: np.ndarray,
    y: np.ndarray,
    split: Split,
    *,
    shots: int,
    draws: int,
    seed: int = 0,
    classifiers: Mapping[str, Classifier] = CLASSIFIERS,
) -> list[dict[str, Any]]:
    """Return a record of each classifier and draw, and of the draws' mean.

    Draw r learns from clips that are no test clips of outer fold r (counted round), and is tested on
    all that are. The draws are the same for every x with the same labels.

    Args:
      x: features [n, p].
      y: labels [n].
      split: outer folds.
      shots: clips of each class to learn from.
      draws: how often.
      seed: of the draws.
      classifiers: by name; the first of their choices counts.

    Returns:
      Records with `accuracy`; that of the mean also has `interval`, half the width of its 95 %
      confidence interval (Student's t over draws; NaN for a single draw).

    Raises:
      ValueError: shots or draws below 1; a class with too few clips.
    """
    from scipy.stats import t as student
    from threadpoolctl import threadpool_limits

    if min(shots, draws) < 1:
        raise ValueError(f"shots and draws: got {shots} and {draws}, wanted 1 or more.")
    tests = list(split.tests.items())
    records = []
    for name, classifier in classifiers.items():
        what, found = dict(classifier=name, shots=shots), []
        for number in range(draws):
            fold, test = tests[number % len(tests)]
            train = draw(y, ~test, shots, (seed, number))
            with threadpool_limits(1, "blas"):
                right = classifier.predict(x, y, train)[0, test] == y[test]
            found.append(float(np.mean(right)))
            records.append(what | dict(draw=number, fold=fold, accuracy=found[-1]))
        half = float("nan")
        if draws > 1:
            half = float(student.ppf(0.975, draws - 1) * np.std(found, ddof=1) / draws**0.5)
        mean = dict(fold="mean", accuracy=float(np.mean(found)), interval=half, draws=draws)
        records.append(what | mean)
    return records
