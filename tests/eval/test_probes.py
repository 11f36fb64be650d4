"""Probe, neighbours, and the choices made within the training clips."""

import dataclasses

import numpy as np
import pytest

from ssl_audio.eval import base
from ssl_audio.eval.base import Score, Split, nested, split, standardise
from ssl_audio.eval.knn import Knn
from ssl_audio.eval.probe import Probe, logistic_path

CLASSES, PER = 4, 30
LABELS = np.repeat(np.arange(CLASSES), PER)
FOLDS = np.tile(np.arange(5), CLASSES * PER // 5)
SPLIT = Split({str(f): f == FOLDS for f in range(5)}, FOLDS)


def blobs(width=6, spread=0.3, seed=0):
    """Return points around one corner per class: separable when `spread` is small."""
    rng = np.random.default_rng(seed)
    corners = rng.choice([-2.0, 2.0], (CLASSES, width))
    corners[:, :CLASSES] = np.eye(CLASSES) * 5
    return (corners[LABELS] + spread * rng.standard_normal((len(LABELS), width))).astype(np.float32)


@pytest.mark.parametrize("classifier", [Probe(), Knn()], ids=["probe", "knn"])
@pytest.mark.parametrize("width", [6, 400])
def test_separable_classes_are_told_apart(classifier, width):
    scores = list(nested(classifier, blobs(width)[:, None], LABELS, SPLIT))
    assert base.means(scores) == {"accuracy": 1.0}
    assert [s.fold for s in scores] == list("01234")
    assert [s.clips for s in scores] == [24] * 5


@pytest.mark.parametrize("classifier", [Probe(), Knn()], ids=["probe", "knn"])
def test_shuffled_labels_give_chance(classifier):
    labels = np.random.default_rng(1).permutation(LABELS)
    accuracy = base.means(list(nested(classifier, blobs()[:, None], labels, SPLIT)))["accuracy"]
    assert abs(accuracy - 1 / CLASSES) < 0.12


@pytest.mark.parametrize("width", [5, 200, 600])
def test_it_is_the_logistic_regression_of_scikit_learn(width):
    """Other variables, and coordinates in the span of the training rows, change only the speed."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    choices, train = (0.5, 20.0, 500.0), FOLDS > 0
    x = blobs(width, spread=0.9 * width**0.5 + 3)
    z = standardise(x, train).astype(np.float64) / np.sqrt(width)
    known = LABELS[train]

    def loss(w, b, c):
        logits = z[train] @ w + b
        right = logits[np.arange(len(known)), known]
        return np.sum(np.log(np.exp(logits).sum(1)) - right) + np.sum(w**2) / (2 * c)

    found = Probe(choices=choices).predict(x, LABELS, train)
    fits = logistic_path(z[train].astype(np.float32), known, choices)
    for c, labels, (w, b) in zip(choices, found, fits, strict=True):
        model = linear_model.LogisticRegression(C=c, max_iter=5000, tol=1e-8).fit(z[train], known)
        assert loss(w, b, c) <= loss(model.coef_.T, model.intercept_, c) + 0.05
        assert np.mean(labels == model.predict(z)) > 0.99
        assert np.mean(labels[~train] == LABELS[~train]) < 0.95  # not a trivial agreement


def test_probe_standardises_by_training_rows():
    x, train = blobs(), FOLDS > 0
    stretched = x * np.array([1e4, 1, 1e-4, 1, 1, 1], np.float32) + 7
    stretched[:, 5] = 3.3
    x[:, 5] = 0
    a, b = (Probe(choices=(1.0,)).predict(v, LABELS, train) for v in (x, stretched))
    assert np.array_equal(a, b)
    z = standardise(x + 100 * ~train[:, None], train)
    np.testing.assert_allclose(z[train].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z[train, :5].std(0), 1, atol=1e-5)
    assert not z[train, 5].any()


def test_neighbours_by_hand():
    angles = np.array([0.0, 0.1, 0.2, 3.0, 3.1, 0.05, 2.9])
    x = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32) * np.arange(1, 8)[:, None]
    x -= x[:5].mean(0)
    y = np.array([0, 1, 1, 2, 2, 9, 9])
    train = np.arange(7) < 5
    z = standardise(x, train)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    nearest = np.argsort(-(z @ z[:5].T), axis=1)
    one, all_five = Knn(choices=(1, 5)).predict(x, y, train)
    assert np.array_equal(one, y[nearest[:, 0]])
    assert np.array_equal(one[:5], y[:5])
    assert set(all_five) <= {1, 2}  # the label of one clip cannot win among five


@dataclasses.dataclass(frozen=True)
class Spy:
    """Remember the training rows; choice k predicts the label only where k says so."""

    seen: list = dataclasses.field(default_factory=list)
    choices: tuple = (0.0, 1.0, 2.0)

    def predict(self, x, y, train):
        self.seen.append(train.copy())
        # Choice 1 is right on folds 0 to 3, choice 2 on fold 4, choice 0 on half of all.
        right = np.stack([np.arange(len(y)) % 2 == 0, FOLDS != 4, FOLDS == 4])
        return np.where(right, y, -1)


def test_options_are_chosen_without_the_test_fold():
    spy = Spy()
    scores = list(nested(spy, blobs()[:, None], LABELS, SPLIT))
    # Fold 4 alone would have had choice 2; choosing on the other folds gives 1, and so 0 % there.
    assert [s.choice for s in scores] == [1.0] * 5
    assert scores[4] == Score("4", {"accuracy": 0.0}, 24, 0, 1.0)
    assert scores[0].accuracy == 1.0
    left_out = {tuple(np.unique(FOLDS[~train])) for train in spy.seen}
    assert left_out == {(a,) for a in range(5)} | {(a, b) for b in range(5) for a in range(b)}
    assert len(spy.seen) == len(left_out)  # each training set is used once
    assert all(np.isin(FOLDS, np.unique(FOLDS[~t])).sum() == (~t).sum() for t in spy.seen)


def test_labels_of_the_test_fold_cannot_change_its_predictions_or_choice():
    x = np.stack([blobs(spread=4.0, seed=s) for s in range(3)], axis=1)
    corrupt = np.where(FOLDS == 2, np.roll(LABELS, 50), LABELS)
    only = Split({"2": FOLDS == 2}, FOLDS)
    for classifier in (Probe(), Knn()):
        (clean,), (other,) = (nested(classifier, x, y, only) for y in (LABELS, corrupt))
        assert (clean.choice, clean.layer) == (other.choice, other.layer)
        assert clean.accuracy != other.accuracy


def test_the_best_layer_is_chosen():
    x = np.stack([blobs(spread=30.0), blobs(), blobs(spread=20.0)], axis=1)
    assert {s.layer for s in nested(Probe(), x, LABELS, SPLIT)} == {1}


def metas(**columns):
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return [{"id": f"c{i}", **dict(zip(names, row, strict=True))} for i, row in enumerate(rows)]


def test_folds_are_left_out_in_turn():
    found = split(metas(label=[0, 1] * 6, fold=[1, 1, 2, 2, 7, 7] * 2), "folds")
    assert list(found.tests) == ["1", "2", "7"]
    assert np.flatnonzero(found.tests["7"]).tolist() == [4, 5, 10, 11]


def test_data_without_folds_gets_five_stratified_ones():
    labels = [0] * 10 + [1] * 20
    found = split(metas(label=labels), "folds", seed=3)
    for test in found.tests.values():
        assert [np.sum(test[:10]), np.sum(test[10:])] == [2, 4]
    assert len(found.tests) == 5
    again = split(metas(label=labels), "folds", seed=3).groups
    assert np.array_equal(found.groups, again)
    assert not np.array_equal(found.groups, split(metas(label=labels), "folds", seed=4).groups)


def test_official_split_tests_its_own_clips():
    found = split(metas(label=[0, 1] * 20, split=["test"] * 10 + ["train"] * 30), "official")
    assert list(found.tests) == ["test"]
    assert np.flatnonzero(found.tests["test"]).tolist() == list(range(10))
    counts = np.unique(found.groups[10:], return_counts=True)[1]
    assert counts.tolist() == [6] * 5


@pytest.mark.parametrize(
    ("columns", "protocol", "message"),
    [
        (dict(label=[0, 1]), "random", "wanted one of folds, speakers"),
        (dict(label=[0, 1]), "official", "no splits"),
        (dict(label=[0, 1], split=["test"] * 2), "split", "no splits"),
        (dict(label=[0, 1]), "speakers", "does not say who speaks"),
        (dict(label=[0, 1], fold=[1, 2]), "folds", "at least 3 folds"),
        (
            dict(label=[0, 1, 0, 1], fold=[1, 2, 3, None]),
            "folds",
            "1 of 4 clips have no fold, as c3; wanted one for each",
        ),
        (dict(label=[0, 1], group=[3, 3]), "folds", r"got 1: clips are kept together in 1 group"),
        (dict(label=[0, None, (1, 2)]), "folds", "c1 and 1 others.*ssl-audio finetune"),
    ],
)
def test_unusable_protocols_are_refused(columns, protocol, message):
    with pytest.raises(ValueError, match=message):
        split(metas(**columns), protocol)
