"""Fit a `Calibration` to a classifier's logits on labelled clips that it was not trained on.

Called where fine-tuning ends; `quality` says what it was worth.
"""

import numpy as np

from ssl_audio.inference.calibration import Calibration

FEWEST = 20  # clips; on fewer a temperature is mostly chance
FEW = 3  # clips of a class; on fewer its threshold stays one half
BINS = 15  # of the expected calibration error


def fit(logits: np.ndarray, labels: np.ndarray, several: bool) -> Calibration:
    """Return the calibration under which the labels are likeliest.

    One label per clip: a temperature (Guo et al. 2017, arXiv:1706.04599, section 4.2). Several: one scale and
    a bias per class (Platt scaling with one slope), and per class the threshold of the best F1. Both are
    held near to no change by a normal prior of deviation 1 on log scale and bias, which few clips, or clips
    that are all right, do not outweigh. On the clips given, the mean log loss is never above that of the
    logits as they are, nor F1 below that at one half.

    Args:
      logits: [n, C], as the model gives them.
      labels: [n, C], 1 where a clip has a class.
      several: whether a clip may have several.

    Raises:
      ValueError: fewer than 20 clips; other shapes; values that are not finite; a clip without its one
        label; not one class of which there are clips with it and clips without.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    _check(logits, labels, several)
    scale, bias = _likeliest(logits, labels, several)
    found = Calibration(scale, tuple(bias.tolist()) if several else (), (), len(logits))
    if several:
        values = probabilities(found(logits), several=True)
        thresholds = map(_best_threshold, values.T, labels.T)
        found = Calibration(scale, found.bias, tuple(thresholds), len(logits))
    return found


def probabilities(logits: np.ndarray, *, several: bool) -> np.ndarray:
    """Return the sigmoid or the softmax of logits [n, C]."""
    from scipy.special import expit, softmax

    return expit(logits) if several else softmax(logits, axis=-1)


def quality(logits: np.ndarray, labels: np.ndarray, several: bool) -> dict[str, float]:
    """Return the mean "log loss" and the "ECE" of logits that are calibrated already, or not at all.

    The ECE is the expected calibration error (Guo et al. 2017, equation 3) in 15 bins of equal width: of the
    best class of each clip, or, where there are several, of all classes of all clips: those of a class that
    no clip has are all without it.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    values = probabilities(logits, several=several)
    if several:
        confidence, right = values.ravel(), labels.ravel()
    else:
        best = values.argmax(axis=1)[:, None]
        confidence = np.take_along_axis(values, best, 1)[:, 0]
        right = np.take_along_axis(labels, best, 1)[:, 0]
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    sums = (np.bincount(bins, weights, BINS) for weights in (right, confidence))
    gaps = np.abs(np.subtract(*sums)).sum() / len(confidence)
    return {"log loss": _loss(logits, labels, several) / len(logits), "ECE": float(gaps)}


def _check(logits: np.ndarray, labels: np.ndarray, several: bool) -> None:
    if logits.ndim != 2 or logits.shape != labels.shape:
        raise ValueError(
            f"calibration: got logits {logits.shape} and labels {labels.shape}, wanted [clips, classes] both."
        )
    if len(logits) < FEWEST:
        raise ValueError(
            f"calibration: got {len(logits)} clips, wanted at least {FEWEST}: on fewer the scores would be "
            "fitted to chance. They stay as the model gives them."
        )
    if not (np.isfinite(logits).all() and np.isfinite(labels).all()):
        raise ValueError("calibration: logits or labels are NaN or infinite.")
    if not several and not np.allclose(labels.sum(axis=1), 1):
        raise ValueError("calibration: wanted one label for each clip.")
    share = labels.mean(axis=0)
    if not ((share > 0) & (share < 1)).any():
        raise ValueError(
            "calibration: every class has all of these clips or none: wanted clips of two classes."
        )


def _loss(logits: np.ndarray, labels: np.ndarray, several: bool) -> float:
    """Return minus the log likelihood of all clips; of all their classes where there are several."""
    from scipy.special import logsumexp

    if several:
        return float((np.logaddexp(0, logits) - labels * logits).sum())
    return float((logsumexp(logits, axis=1) - (labels * logits).sum(axis=1)).sum())


def _likeliest(logits: np.ndarray, labels: np.ndarray, several: bool) -> tuple[float, np.ndarray]:
    """Return scale and bias [C]; the bias is 0 where a clip has one label."""
    from scipy.optimize import minimize

    count = logits.shape[1] if several else 0

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = np.exp(x[0]), x[1:] if several else 0.0
        moved = logits * scale + bias
        rest = probabilities(moved, several=several) - labels
        slopes = [np.atleast_1d((rest * logits).sum() * scale), rest.sum(axis=0)[:count]]
        loss = _loss(moved, labels, several) + float(x @ x) / 2
        return loss, np.concatenate(slopes) + x

    start = np.zeros(1 + count)
    found = minimize(objective, start, jac=True, method="L-BFGS-B")
    # The prior is 0 at the start, so a lower sum is a lower loss too.
    x = found.x if np.isfinite(found.fun) and found.fun <= objective(start)[0] else start
    return float(np.exp(x[0])), x[1:]


def _best_threshold(values: np.ndarray, label: np.ndarray) -> float:
    """Return the threshold of the best F1 of one class [n]: half way to the next lower probability."""
    from sklearn.metrics import precision_recall_curve

    if not FEW <= (label > 0.5).sum() < len(label):
        return 0.5
    precision, recall, thresholds = precision_recall_curve(label > 0.5, values)
    total = precision + recall
    score = 2 * precision * recall / np.where(total == 0, 1, total)
    best = float(thresholds[int(np.argmax(score[:-1]))])
    below = values[values < best]
    return (best + float(below.max())) / 2 if len(below) else best
