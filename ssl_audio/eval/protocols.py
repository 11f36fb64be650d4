"""How a task turns vectors into a score: a case of vectors and what they should be, and its outcome.

`controlled` puts the vectors of a perfect, a random or a constant model into a case: each protocol must then
give 1, chance and chance. Others are in `word_protocols.py` and `robustness.py`. Called by `tasks.py`.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from ssl_audio.data.source import Source
from ssl_audio.eval import base, few_shot, metrics
from ssl_audio.eval.knn import Knn
from ssl_audio.eval.listening import Listening
from ssl_audio.eval.probe import Probe

CONTROLS = ("perfect", "random", "constant")
WIDTH = 64  # of a random or constant model's vectors
QUERIES = 500  # most clips that are looked up
Z = 1.959964  # deviations of a normal distribution that hold 95 % of it


@dataclasses.dataclass(frozen=True)
class Case:
    """What a model said of a task's clips.

    Attributes:
      vectors: name → [rows, D]; scores compare vectors by cosine or learn from them.
      ideal: name → [rows, K]: what a model would say that knows the answers.
      truth: what else the score needs.
    """

    vectors: Mapping[str, np.ndarray]
    ideal: Mapping[str, np.ndarray]
    truth: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The score of a case.

    Attributes:
      value: the metric; the protocol's `best` is perfect.
      chance: what a model scores that knows nothing.
      count: of what was scored: clips, pairs, queries.
      interval: 95 % confidence, from and to.
      more: other numbers about the same vectors.
    """

    value: float
    chance: float
    count: int
    interval: tuple[float, float]
    more: Mapping[str, float] = dataclasses.field(default_factory=dict)


class Protocol(abc.ABC):
    """A frozen dataclass; `metric` and `needs` say what it measures and what of a model it asks."""

    metric: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ("clips",)
    learns: ClassVar[bool] = False  # from labelled clips of the set
    best: ClassVar[float | None] = 1.0  # value of a perfect model; None: there is no highest

    @property
    def about(self) -> str:
        """Return what there is to know about it in a table, as the prompt."""
        return ""

    @abc.abstractmethod
    def case(self, source: Source, listening: Listening, seed: int) -> Case:
        """Ask a model about a source."""

    @abc.abstractmethod
    def score(self, case: Case, seed: int) -> Outcome:
        """Return how good the answers are."""

    def controlled(self, case: Case, control: str, seed: int = 0) -> Case:
        """Return a case with the answers of a model that is "perfect", "random" or "constant"."""
        return controlled(case, control, seed)


def controlled(case: Case, control: str, seed: int = 0) -> Case:
    """Return a case with the vectors of a model that is "perfect", "random" or "constant"."""
    if control == CONTROLS[0]:
        return dataclasses.replace(case, vectors=case.ideal)
    rng = np.random.default_rng((seed, 21))
    made = {
        name: np.ones((len(x), WIDTH), np.float32)
        if control == CONTROLS[2]
        else rng.standard_normal((len(x), WIDTH), np.float32)
        for name, x in case.vectors.items()
    }
    return dataclasses.replace(case, vectors=made)


def one_hot(numbers: np.ndarray, count: int | None = None) -> np.ndarray:
    """Return float32 [n, K] with a one at each row's number."""
    return np.eye(int(numbers.max()) + 1 if count is None else count, dtype=np.float32)[numbers]


def unit(x: np.ndarray) -> np.ndarray:
    """Return rows [n, D] of length 1; zeros stay."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def wilson(value: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean of `count` values from 0 to 1 (Wilson 1927).

    Of values between 0 and 1 it is wider than need be: their variance is at most that of yes and no.
    """
    middle = (value + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * np.sqrt(value * (1 - value) / count + Z**2 / (4 * count**2))
    # Rounding must not leave the value itself outside.
    return max(0.0, min(value, float(middle - half))), min(1.0, max(value, float(middle + half)))


def halves(
    score: Callable[[np.ndarray], float],
    groups: np.ndarray,
    seed: int,
    times: int = 50,
    most: float = 1.0,
) -> tuple[float, float]:
    """Return the 95 % interval of a score of rows [n], from halves of their `groups` [n].

    The delete-half jackknife (Shao and Wu 1989): scores of halves vary about the whole's as that about the
    truth. Rows drawn with replacement would not do: two copies of a clip are alike, and raise such scores.
    """
    rng = np.random.default_rng((seed, 22))
    order = np.argsort(groups, kind="stable")
    _, starts = np.unique(groups[order], return_index=True)
    parts = np.split(order, starts[1:])
    whole, found = score(np.arange(len(groups))), []
    for _ in range(times):
        drawn = rng.permutation(len(parts))[: max(1, len(parts) // 2)]
        found.append(score(np.sort(np.concatenate([parts[k] for k in drawn]))))
    half = Z * float(np.sqrt(np.nanmean((np.array(found) - whole) ** 2)))
    return whole - half, min(most, whole + half)


def heard(source: Source, listening: Listening) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Return numbers, vectors and metas of the clips that could be read."""
    numbers, x = listening.clips(source)
    return numbers, x, [source.meta(int(i)) for i in numbers]


@dataclasses.dataclass(frozen=True)
class Linear(Protocol):
    """Logistic regression on frozen features, its penalty chosen within the training clips.

    Accuracy, and of clips with several labels mAP: means over the folds. Chance is what a probe scores that
    always says the most frequent class of its training clips; of mAP, the classes' mean share.
    """

    split: str = "folds"  # see `eval.base.split`

    metric = "accuracy"
    learns = True

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        _, x, metas = heard(source, listening)
        y = base.truth(source, metas)
        split = base.split(metas, self.split, seed, several=source.info.multilabel)
        ideal = y if y.ndim == 2 else one_hot(y)
        return Case({"clips": x}, {"clips": ideal}, dict(y=y, split=split))

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        return probed(self._classifier(), case.vectors["clips"], **case.truth, seed=seed)

    def _classifier(self) -> Any:
        return Probe()


@dataclasses.dataclass(frozen=True)
class Nearest(Linear):
    """The label most common among the nearest training clips; see `Linear`."""

    def _classifier(self) -> Any:
        return Knn()


def probed(
    classifier: Any,
    x: np.ndarray,
    y: np.ndarray,
    split: base.Split,
    seed: int,
    units: np.ndarray | None = None,
) -> Outcome:
    """Return how well a classifier tells labels [n] or [n, C] of test clips; see `Linear`.

    `units` [n]: what is drawn anew for the interval of mAP; default: each row.
    """
    search = base.Nested(classifier, x[:, None], y, split)
    folds = [(np.flatnonzero(split.tests[name]), found) for name, found, *_ in search.predictions()]
    count = sum(len(rows) for rows, _ in folds)
    if y.ndim == 1:
        value = float(np.mean([np.mean(found == y[rows]) for rows, found in folds]))
        chance = float(np.mean([_majority(y, split.tests[name]) for name in split.tests]))
        return Outcome(value, chance, count, wilson(value, count))
    rows = np.concatenate([rows for rows, _ in folds])
    logits = np.concatenate([found for _, found in folds])
    fold = np.repeat(np.arange(len(folds)), [len(rows) for rows, _ in folds])

    def mean(picked: np.ndarray) -> float:
        parts = [picked[fold[picked] == k] for k in range(len(folds))]
        maps = [metrics.mean_average_precision(logits[p], y[rows[p]]) for p in parts if len(p)]
        return float(np.nanmean(maps))

    shares = [y[r].mean(axis=0) for r, _ in folds]
    chance = float(np.mean([share[share > 0].mean() for share in shares]))
    groups = np.arange(len(rows)) if units is None else units[rows]
    interval = halves(mean, groups, seed)
    return Outcome(mean(np.arange(len(rows))), chance, count, interval)


def _majority(y: np.ndarray, test: np.ndarray) -> float:
    """Return the accuracy of always saying the most frequent training label; of several such, their mean."""
    labels, counts = np.unique(y[~test], return_counts=True)
    return float(np.mean([np.mean(y[test] == label) for label in labels[counts == counts.max()]]))


@dataclasses.dataclass(frozen=True)
class Few(Protocol):
    """The class whose mean of a few clips is nearest, over draws; for sets with equally large classes."""

    shots: int = 5
    draws: int = 20
    split: str = "folds"

    metric = "accuracy"
    learns = True

    @property
    def about(self) -> str:  # noqa: D102
        return f"{self.shots} clips of each class, {self.draws} draws"

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        return Linear(self.split).case(source, listening, seed)

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        y, split = case.truth["y"], case.truth["split"]
        *_, mean = few_shot.few_shot(
            case.vectors["clips"], y, split, shots=self.shots, draws=self.draws, seed=seed,
            classifiers={"prototype": few_shot.NearestMean()},
        )  # fmt: skip
        value, half = mean["accuracy"], mean["interval"]
        interval = max(0.0, value - half), min(1.0, value + half)
        return Outcome(value, 1 / len(np.unique(y)), self.draws, interval)


@dataclasses.dataclass(frozen=True)
class Lookup(Protocol):
    """Clips of the same class by example: mAP over queries, whose own fold is left out.

    The fold holds takes of the same recording; of a single fold, only the query itself is left out. Cosine of
    features with mean 0 and deviation 1 over all clips.
    """

    metric = "mAP"

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        numbers, x, metas = heard(source, listening)
        y = base.truth(source, metas)
        fold = np.array([m.get("fold", i) for i, m in zip(numbers, metas, strict=True)])
        fold = numbers if len(np.unique(fold)) == 1 else fold
        return Case({"clips": x}, {"clips": one_hot(y)}, dict(y=y, fold=fold))

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        from sklearn.metrics import average_precision_score

        y, fold = case.truth["y"], case.truth["fold"]
        z = _cosine(case.vectors["clips"])
        rng = np.random.default_rng((seed, 23))
        queries = rng.permutation(len(y))[:QUERIES]
        found, shares = [], []
        for i in queries:
            others = fold != fold[i]
            same = y[others] == y[i]
            if same.any():
                # Rounding must not put clips with equal vectors in an order.
                near = np.round(z[others] @ z[i], 5)
                found.append(average_precision_score(same, near))
                shares.append(same.mean())
        if not found:
            raise ValueError("no two clips of one class, in different folds where there are folds.")
        value = float(np.mean(found))
        return Outcome(value, float(np.mean(shares)), len(found), wilson(value, len(found)))


def _cosine(x: np.ndarray) -> np.ndarray:
    return unit(base.standardise(x, np.ones(len(x), bool)))


@dataclasses.dataclass(frozen=True)
class Clusters(Protocol):
    """k-means with as many clusters as classes: mutual information with the classes, adjusted for chance."""

    metric = "AMI"

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        _, x, metas = heard(source, listening)
        y = base.truth(source, metas)
        return Case({"clips": x}, {"clips": one_hot(y)}, dict(y=y))

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        from sklearn.cluster import KMeans
        from sklearn.metrics import adjusted_mutual_info_score
        from threadpoolctl import threadpool_limits

        y, x = case.truth["y"], case.vectors["clips"]
        z = base.standardise(x, np.ones(len(x), bool))
        count = min(len(np.unique(y)), len(np.unique(z, axis=0)))
        tries: Any = 10
        with threadpool_limits(1):  # threads that wait for a busy core are slower than none
            found = KMeans(count, n_init=tries, random_state=seed).fit_predict(z)

        def score(rows: np.ndarray) -> float:
            return float(adjusted_mutual_info_score(y[rows], found[rows]))

        rows = np.arange(len(y))
        return Outcome(score(rows), 0.0, len(y), halves(score, rows, seed, times=20))


@dataclasses.dataclass(frozen=True)
class Same(Protocol):
    """Whether two clips are of one class (speaker), by cosine: 1 - equal error rate, half is chance."""

    pairs: int = 5_000

    metric = "1 - EER"

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        return Clusters().case(source, listening, seed)

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        y, z = case.truth["y"], _cosine(case.vectors["clips"])
        rng = np.random.default_rng((seed, 24))
        first = rng.integers(len(y), size=20 * self.pairs)
        second = rng.integers(len(y), size=len(first))
        same, other = y[first] == y[second], first != second
        half = self.pairs // 2
        kept = np.concatenate([np.flatnonzero(same & other)[:half], np.flatnonzero(~same)[:half]])
        first, second, target = first[kept], second[kept], same[kept].astype(int)
        near = np.round(np.sum(z[first] * z[second], axis=1), 5)
        if not 0 < target.mean() < 1:
            raise ValueError(
                "no two clips of one class, or all of one class; wanted both kinds of pairs."
            )

        def score(clips: np.ndarray) -> float:
            inside = np.isin(first, clips) & np.isin(second, clips)
            if not 0 < target[inside].sum() < inside.sum():
                return float("nan")
            return 1 - metrics.equal_error_rate(near[inside, None], target[inside, None])

        # Pairs share clips, and are not independent: the interval is of halves of the clips.
        clips = np.arange(len(y))
        return Outcome(score(clips), 0.5, len(target), halves(score, clips, seed))


@dataclasses.dataclass(frozen=True)
class Moments(Protocol):
    """Which classes sound in each tenth of a second, by logistic regression on features along time: mAP.

    The last third of the recordings is tested. A moment has a class that sounds in half of it or more.
    """

    spacing: float = 0.1  # s

    metric = "mAP"
    needs = ("moments",)
    learns = True

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        clips, moments, x = listening.moments(source, self.spacing)
        y = np.zeros((len(clips), len(source.info.labels)), np.float32)
        for clip in np.unique(clips):
            rows = np.flatnonzero(clips == clip)
            start = moments[rows] * self.spacing
            for first, last, label in source[int(clip)]["events"]:
                inside = np.minimum(last, start + self.spacing) - np.maximum(first, start)
                y[rows[inside >= self.spacing / 2], label] = 1
        test = clips >= 2 * len(source) / 3
        split = base.Split({"test": test}, clips % 3)
        return Case({"moments": x}, {"moments": y}, dict(y=y, split=split, units=clips))

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        probe = dataclasses.replace(Probe(), choices=(1.0, 30.0))
        return probed(probe, case.vectors["moments"], **case.truth, seed=seed)
