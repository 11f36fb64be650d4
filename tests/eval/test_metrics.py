"""Metrics against brute force and cases known by hand."""

import numpy as np
import pytest

from ssl_audio.eval import metrics


def draw(seed, ties, clips=40, classes=6):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((clips, classes))
    if ties:
        scores = np.round(scores)
    hot = rng.random((clips, classes)) < 0.3
    hot[0], hot[1] = True, False
    return scores, hot


def brute_average_precision(scores, hot):
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = scores >= threshold
        now = np.sum(hot & above) / np.sum(hot)
        total += (now - recall) * np.sum(hot & above) / np.sum(above)
        recall = now
    return total


def brute_auc(scores, hot):
    gaps = scores[hot][:, None] - scores[~hot][None]
    return np.mean((gaps > 0) + 0.5 * (gaps == 0))


def brute_lwlrap(scores, hot):
    pairs = []
    for clip in range(len(scores)):
        for label in np.flatnonzero(hot[clip]):
            ranked = [c for c in range(scores.shape[1]) if scores[clip, c] >= scores[clip, label]]
            pairs.append(np.mean([hot[clip, c] for c in ranked]))
    return np.mean(pairs)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_they_equal_brute_force(seed, ties):
    scores, hot = draw(seed, ties)
    columns = list(zip(scores.T, hot.T, strict=True))
    precision = [brute_average_precision(*c) for c in columns]
    auc = [brute_auc(*c) for c in columns]
    close = dict(rel=0, abs=1e-12)
    assert metrics.average_precision(scores, hot) == pytest.approx(precision, **close)
    assert metrics.mean_average_precision(scores, hot) == pytest.approx(np.mean(precision), **close)
    micro = brute_average_precision(scores.ravel(), hot.ravel())
    assert metrics.micro_average_precision(scores, hot) == pytest.approx(micro, **close)
    assert metrics.roc_auc(scores, hot) == pytest.approx(auc, **close)
    assert metrics.macro_auc(scores, hot) == pytest.approx(np.mean(auc), **close)
    assert metrics.lwlrap(scores, hot) == pytest.approx(brute_lwlrap(scores, hot), **close)


def test_lwlrap_counts_labels_and_not_clips():
    label_ranking = pytest.importorskip("sklearn.metrics").label_ranking_average_precision_score
    scores, hot = draw(0, False)
    weight = hot.sum(1)
    found = metrics.lwlrap(scores, hot)
    assert found == pytest.approx(label_ranking(hot, scores, sample_weight=weight), abs=1e-12)
    assert found != pytest.approx(label_ranking(hot[2:], scores[2:]), abs=1e-3)


def test_d_prime_of_two_normal_distributions():
    rng = np.random.default_rng(0)
    y = np.arange(40_000) % 2
    scores = rng.standard_normal((len(y), 1)) + 1.3 * y[:, None]
    assert metrics.d_prime(scores, y[:, None]) == pytest.approx(1.3, abs=0.03)
    # At that distance misses and false alarms are both Phi(-1.3 / 2).
    assert metrics.equal_error_rate(scores, y[:, None]) == pytest.approx(0.2578, abs=0.005)


def test_which_mean_d_prime_takes():
    scores = np.array([[4, 4], [3, 1], [2, 3], [1, 2.0]])
    hot = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])  # AUC 3/4 and 1/2
    probit = {0.625: 0.3186393639643751, 0.75: 0.6744897501960817, 0.5: 0.0}
    auc = metrics.roc_auc(scores, hot)
    assert auc.tolist() == [0.75, 0.5]
    assert metrics.d_prime(scores, hot) == pytest.approx(2**0.5 * probit[0.625], abs=1e-12)
    assert metrics.mean_d_prime(scores, hot) == pytest.approx(2**0.5 * probit[0.75] / 2, abs=1e-12)
    assert metrics.d_prime(hot, hot) == np.inf


def test_accuracy_and_top_k():
    scores = np.array([[1, 3, 2], [5, 5, 0], [0, 1, 2.0], [7, 8, 9]])
    labels = np.array([1, 1, 0, 1])
    assert metrics.accuracy(scores, labels) == 0.25  # of equal ones the first counts
    assert metrics.top_k(scores, labels, 2) == 0.75
    assert metrics.top_k(scores, labels, 3) == 1.0
    assert metrics.accuracy(scores, np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]])) == 0.5


def test_equal_error_rate_by_hand():
    def rate(scores, targets):
        return metrics.equal_error_rate(np.array(scores)[:, None], np.array(targets)[:, None])

    assert rate([4.0, 3, 2, 1], [1, 1, 0, 0]) == 0.0
    assert rate([4.0, 3, 2, 1], [1, 0, 1, 0]) == 0.5
    assert rate([4.0, 3, 2, 1], [0, 0, 1, 1]) == 1.0
    assert rate([1.0, 1, 1, 1], [0, 1, 1, 1]) == 0.5  # only a coin tells them apart
    # Threshold 3: a third missed, no alarm. Threshold 2: 0 missed, half alarms. Line between.
    assert rate([4.0, 3, 2, 2, 1], [1, 1, 1, 0, 0]) == pytest.approx(0.2)
    both = metrics.equal_error_rate([[4.0, 1], [2, 3]], [0, 1])
    assert both == rate([4.0, 1, 2, 3], [1, 0, 0, 1]) == 0.0


def test_classes_without_positive_clips_are_left_out():
    scores, hot = draw(1, False)
    hot[:, 2], hot[:, 4] = False, True
    rest = [0, 1, 3, 5]
    precision = metrics.average_precision(scores, hot)
    assert np.flatnonzero(np.isnan(precision)).tolist() == [2] and precision[4] == 1
    assert metrics.mean_average_precision(scores, hot) == np.mean(precision[[0, 1, 3, 4, 5]])
    assert np.flatnonzero(np.isnan(metrics.roc_auc(scores, hot))).tolist() == [2, 4]
    # In one list its pairs are wrong ones, which push right ones down.
    known = [0, 1, 3, 4, 5]
    less = metrics.micro_average_precision(scores, hot)
    assert less < metrics.micro_average_precision(scores[:, known], hot[:, known])
    assert metrics.macro_auc(scores, hot) == metrics.macro_auc(scores[:, rest], hot[:, rest])
    assert metrics.d_prime(scores, hot) == metrics.d_prime(scores[:, rest], hot[:, rest])


@pytest.mark.parametrize(
    "metric",
    ["mean_average_precision", "macro_auc", "d_prime", "mean_d_prime", "lwlrap"]
    + ["equal_error_rate", "micro_average_precision"],
)
def test_nothing_to_find_gives_nan(metric):
    assert np.isnan(getattr(metrics, metric)(np.ones((3, 2)), np.zeros((3, 2), int)))


def test_numbers_and_their_multi_hot_are_the_same():
    scores, _ = draw(2, True)
    labels = np.arange(40) % 6
    for name in ("accuracy", "top_k", "mean_average_precision", "macro_auc", "d_prime", "lwlrap"):
        metric = getattr(metrics, name)
        assert metric(scores, labels) == metric(scores.astype(np.float32), np.eye(6)[labels]), name


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.ones(3), [0, 1, 2], "wanted \\[n, C\\]"),
        (np.ones((0, 2)), [], "at least one clip"),
        ([[1, np.nan]], [0], "NaN or infinite"),
        (np.ones((2, 3)), [0, 1, 2], "wanted \\[2\\] or"),
        (np.ones((2, 3)), [0, 3], "from 0 to 2"),
        (np.ones((2, 3)), [0.0, 1.0], "whole numbers"),
        (np.ones((2, 2)), [[0, 2], [1, 0]], "only 0 and 1"),
    ],
)
def test_what_does_not_fit_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        metrics.lwlrap(scores, labels)


def test_k_beyond_the_classes_is_refused():
    with pytest.raises(ValueError, match="k=4, wanted 1 to 3"):
        metrics.top_k(np.ones((2, 3)), [0, 1], 4)
