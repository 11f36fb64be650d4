"""How good scores [n, C] are, given labels: numbers [n] or multi-hot [n, C]. In float64.

Called by `evaluate.py`. Classes without a positive clip (for AUC and d': also those without a
negative one) have no value and are left out of means over classes; the result is NaN if none is left.
"""

import warnings
from typing import Any

import numpy as np

Scores = Any  # anything numpy can read: [n, C], higher means likelier
Labels = Any  # [n] class numbers, or [n, C] of 0 and 1


def accuracy(scores: Scores, labels: Labels) -> float:
    """Return the share of clips whose best class is right (is one of theirs); see `top_k`."""
    return top_k(scores, labels, 1)


def top_k(scores: Scores, labels: Labels, k: int = 5) -> float:
    """Return the share of clips that have a right class among the k best.

    Of classes with equal scores those with the lower number come first, as with argmax.

    Raises:
      ValueError: k is not between 1 and C; see `checked`.
    """
    s, hot = checked(scores, labels)
    if not 1 <= k <= s.shape[1]:
        raise ValueError(f"top_k: got k={k}, wanted 1 to {s.shape[1]}, the number of classes.")
    best = np.argsort(-s, axis=1, kind="stable")[:, :k]
    return float(np.mean(np.take_along_axis(hot, best, axis=1).any(axis=1)))


def balanced_accuracy(scores: Scores, labels: Labels) -> float:
    """Return the unweighted mean over classes of the share of their clips whose best class they are.

    Of clips with several labels each counts: the share of its clips for which the class comes first.
    """
    s, hot = checked(scores, labels)
    best = s.argmax(axis=1)
    recall = [np.mean(best[hot[:, c]] == c) for c in np.flatnonzero(hot.any(axis=0))]
    return _mean(np.array(recall))


def classes(labels: Labels) -> int:
    """Return how many classes of multi-hot labels [n, C] have a clip: those that means are over."""
    return int(np.asarray(labels, bool).any(axis=0).sum())


def average_precision(scores: Scores, labels: Labels) -> np.ndarray:
    """Return each class's average precision [C], sum of (R_k - R_{k-1}) P_k over thresholds.

    Clips with equal scores share a threshold. NaN for classes without a positive clip.
    """
    from sklearn.metrics import average_precision_score

    s, hot = checked(scores, labels)
    found = np.full(s.shape[1], np.nan)
    for c in np.flatnonzero(hot.any(axis=0)):
        found[c] = average_precision_score(hot[:, c], s[:, c])
    return found


def mean_average_precision(scores: Scores, labels: Labels) -> float:
    """Return mAP (cmAP): the unweighted mean of `average_precision` over classes."""
    return _mean(average_precision(scores, labels))


def micro_average_precision(scores: Scores, labels: Labels) -> float:
    """Return the average precision of all pairs of a clip and a class in one list, at common thresholds.

    Classes without a clip take part: their pairs are wrong ones. NaN when no clip has a label.
    """
    from sklearn.metrics import average_precision_score

    s, hot = checked(scores, labels)
    return float(average_precision_score(hot.ravel(), s.ravel())) if hot.any() else float("nan")


def roc_auc(scores: Scores, labels: Labels) -> np.ndarray:
    """Return each class's area under the ROC curve [C]; ties count half.

    NaN for classes whose clips are all positive or all negative.
    """
    from sklearn.metrics import roc_auc_score

    s, hot = checked(scores, labels)
    found = np.full(s.shape[1], np.nan)
    for c in np.flatnonzero(hot.any(axis=0) & ~hot.all(axis=0)):
        found[c] = roc_auc_score(hot[:, c], s[:, c])
    return found


def macro_auc(scores: Scores, labels: Labels) -> float:
    """Return the unweighted mean of `roc_auc` over classes."""
    return _mean(roc_auc(scores, labels))


def d_prime(scores: Scores, labels: Labels) -> float:
    """Return d' = sqrt(2) * probit(macro AUC): of the mean over classes, as AudioSet and FSD50K do.

    Fonseca et al. 2022 (arXiv:2010.00475) section 4. Infinite when every class is perfect.
    """
    return float(_d_prime(macro_auc(scores, labels)))


def mean_d_prime(scores: Scores, labels: Labels) -> float:
    """Return the mean over classes of sqrt(2) * probit(AUC). A perfect class makes it infinite."""
    return _mean(_d_prime(roc_auc(scores, labels)))


def lwlrap(scores: Scores, labels: Labels) -> float:
    """Return the label-weighted label-ranking average precision.

    For each pair of a clip and one of its labels: the share of true labels among those that score at
    least as high. The mean over all pairs, so that a clip counts as often as it has labels
    (scikit-learn's `label_ranking_average_precision_score` counts each clip once).
    Fonseca et al. 2019 (DCASE task 2). NaN when no clip has a label.
    """
    s, hot = checked(scores, labels)
    pairs = []
    for row, true in zip(s, hot, strict=True):
        mine = row[true]
        above = np.sort(row)[None] >= mine[:, None]
        pairs.append(np.sum(mine[None] >= mine[:, None], axis=1) / np.sum(above, axis=1))
    return _mean(np.concatenate(pairs))


def equal_error_rate(scores: Scores, labels: Labels) -> float:
    """Return the error rate at which misses and false alarms are equally frequent.

    Every pair of a clip and a class is a trial, target or not, at one threshold for all, as in
    verification: trials [n] with labels 0 and 1 are `scores[:, None], labels[:, None]`. Between two
    thresholds both rates are interpolated linearly (the straight line of the ROC curve).
    NaN when all trials are targets or none is.
    """
    from sklearn.metrics import roc_curve

    s, hot = checked(scores, labels)
    if hot.all() or not hot.any():
        return float("nan")
    false_alarm, hit, _ = roc_curve(hot.ravel(), s.ravel(), drop_intermediate=False)
    gap = 1 - hit - false_alarm  # falls from 1 to -1, in steps
    after = int(np.argmax(gap <= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(false_alarm[after - 1] + share * (false_alarm[after] - false_alarm[after - 1]))


def checked(scores: Scores, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Return scores as float64 [n, C] and labels as booleans [n, C].

    Raises:
      ValueError: shapes that do not fit, no clips, scores that are not finite, labels that are
        neither class numbers below C nor multi-hot.
    """
    s, y = np.asarray(scores, np.float64), np.asarray(labels)
    if s.ndim != 2 or not s.size:
        raise ValueError(f"scores: got shape {s.shape}, wanted [n, C] with at least one clip.")
    if not np.isfinite(s).all():
        raise ValueError("scores: NaN or infinite.")
    if y.shape == s.shape:
        if not np.isin(y, (0, 1)).all():
            raise ValueError("labels [n, C]: wanted only 0 and 1.")
        return s, y.astype(bool)
    if y.shape != s.shape[:1]:
        raise ValueError(f"labels: got shape {y.shape}, wanted [{s.shape[0]}] or {s.shape}.")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= s.shape[1]:
        raise ValueError(f"labels [n]: wanted whole numbers from 0 to {s.shape[1] - 1}.")
    return s, np.arange(s.shape[1]) == y[:, None]


def _d_prime(auc: Any) -> np.ndarray:
    from scipy.special import ndtri

    return np.sqrt(2) * ndtri(auc)


def _mean(values: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of no values, whose mean is NaN
        return float(np.nanmean(values))
