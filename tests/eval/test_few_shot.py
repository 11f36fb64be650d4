"""Draws of a few clips per class."""

import numpy as np
import pytest

from ssl_audio.eval.base import Split
from ssl_audio.eval.few_shot import NearestMean, draw, few_shot

LABELS = np.repeat(np.arange(3), 20)
FOLDS = np.tile(np.arange(4), 15)
SPLIT = Split({str(f): f == FOLDS for f in range(4)}, FOLDS)


def blobs(spread):
    rng = np.random.default_rng(0)
    return (8 * np.eye(3)[LABELS] + spread * rng.standard_normal((60, 3))).astype(np.float32)


def test_a_draw_has_so_many_of_each_class_and_no_test_clip():
    allowed = FOLDS != 2
    chosen = draw(LABELS, allowed, 4, (0, 1))
    assert np.bincount(LABELS[chosen]).tolist() == [4, 4, 4]
    assert not chosen[~allowed].any()
    assert np.array_equal(chosen, draw(LABELS, allowed, 4, (0, 1)))
    assert not np.array_equal(chosen, draw(LABELS, allowed, 4, (0, 2)))
    with pytest.raises(ValueError, match="class 0 has 15 clips to learn from, 16 were wanted"):
        draw(LABELS, allowed, 16, (0, 1))


def test_separable_classes_need_one_clip():
    records = few_shot(blobs(0.1), LABELS, SPLIT, shots=1, draws=2)
    assert {r["classifier"] for r in records} == {"linear", "knn", "prototype"}
    assert all(r["accuracy"] == 1.0 for r in records)
    assert [r["interval"] for r in records if r["fold"] == "mean"] == [0.0] * 3


def test_mean_and_confidence_interval_over_draws():
    only = {"prototype": NearestMean()}
    records = few_shot(blobs(6.0), LABELS, SPLIT, shots=2, draws=5, seed=3, classifiers=only)
    draws, mean = records[:-1], records[-1]
    assert [r["fold"] for r in draws] == ["0", "1", "2", "3", "0"]
    found = np.array([r["accuracy"] for r in draws])
    assert 0 < found.std() and mean["accuracy"] == pytest.approx(found.mean())
    # Student's t with 4 degrees of freedom leaves 2.5 % above 2.776.
    assert mean["interval"] == pytest.approx(2.776 * found.std(ddof=1) / 5**0.5, rel=1e-3)
    assert records == few_shot(
        blobs(6.0), LABELS, SPLIT, shots=2, draws=5, seed=3, classifiers=only
    )


def test_draws_of_shots_are_positive():
    with pytest.raises(ValueError, match="got 0 and 3"):
        few_shot(blobs(1.0), LABELS, SPLIT, shots=0, draws=3)


def test_the_nearest_mean_by_hand():
    x = np.array([[1, 0], [3, 0], [0, 2], [0, 4], [9, 1], [1, 5]], np.float32)
    y, train = np.array([7, 7, 4, 4, 0, 0]), np.arange(6) < 4
    assert NearestMean().predict(x, y, train).tolist() == [[7, 7, 4, 4, 7, 4]]
