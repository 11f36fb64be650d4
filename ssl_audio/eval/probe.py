"""Linear probe: logistic regression on standardised features, for `evaluate.py`."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from ssl_audio.eval.base import Fitted, standardise, statistics

DIRECTIONS = 64  # principal directions in which the curvature is known beforehand


@dataclasses.dataclass(frozen=True)
class Probe:
    """Logistic regression with an L2 penalty, on standardised features divided by sqrt(p).

    Of clips with one label multinomial; with several, a regression for each class.

    The division makes a clip's squared length about 1 whatever the number p of features, so that the
    same penalties suit all.

    Attributes:
      choices: inverse strengths C of the penalty |w|^2 / (2 C) on the summed loss, strongest first.
      iterations: of L-BFGS, at most, for each.
    """

    several: ClassVar[bool] = True

    choices: tuple[float, ...] = (0.1, 0.5, 2.0, 10.0, 50.0, 200.0, 1000.0)
    iterations: int = 1000

    def predict(self, x: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Return labels [choices, n] of all rows of x [n, p], learned from the rows `train` [n].

        Of multi-hot y [n, C], logits [choices, n, C].
        """
        z, labels, _, fits = self._fits(x, y, train, len(self.choices))
        if y.ndim == 2:
            return np.stack([z @ w + b for w, b in fits])
        return np.stack([labels[np.argmax(z @ w + b, axis=1)] for w, b in fits])

    def fit(self, x: np.ndarray, y: np.ndarray, train: np.ndarray, best: int) -> Fitted:
        """Return the regression that `predict` uses for choice number `best`, as a head."""
        _, labels, basis, fits = self._fits(x, y, train, best + 1)
        *_, (w, b) = fits
        w = (w if basis is None else basis @ w) / np.float32(np.sqrt(x.shape[1]))
        centre, gain = statistics(x[train])
        return linear(w, b[0], centre, gain, labels)

    def _fits(self, x: np.ndarray, y: np.ndarray, train: np.ndarray, count: int):
        """Return the rows [n, q], the labels, what leads from q features to p, and the first fits."""
        z = standardise(x, train) / np.float32(np.sqrt(x.shape[1]))
        basis = None
        if z.shape[1] > 2 * train.sum():
            # The weights lie in the span of the training rows, so coordinates in it are enough.
            basis = np.linalg.qr(z[train].T)[0]
            z = z @ basis
        labels, known = np.arange(y.shape[-1]), y[train]
        if y.ndim == 1:
            labels, known = np.unique(y[train], return_inverse=True)
        fits = logistic_path(z[train], known, self.choices[:count], self.iterations)
        return z, labels, basis, fits


def linear(
    w: np.ndarray, b: np.ndarray, centre: np.ndarray, gain: np.ndarray, labels: np.ndarray
) -> Fitted:
    """Return weights [p, C] and biases [C] on standardised features as a head."""
    head = dict(kind="classify:Classifier", classes=len(labels), pool="mean", eps=None)
    dense = {"kernel": np.asarray(w, np.float32), "bias": np.asarray(b, np.float32)}
    params = dict(head={"linear": {"dense": dense}}, centre=centre, gain=gain)
    return Fitted(head, params, labels)


def logistic_path(
    x: np.ndarray, y: np.ndarray, choices: Sequence[float], iterations: int = 1000
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield weights [p, C] and biases [C] that minimise the penalised loss, one for each choice.

    scikit-learn's problem (`LogisticRegression`), solved in other variables: in the first principal
    directions of x, and on average in the others, the loss is about equally curved in each. L-BFGS
    then needs some 20 iterations where features as they come need hundreds. Each fit starts
    from the one before it. It ends when the loss is within some hundredths of its minimum.

    Args:
      x: features [n, p] with mean 0, float32.
      y: numbers of the classes [n], 0 to C - 1; or multi-hot [n, C], for C regressions of yes or no.
      choices: inverse strengths of the penalty |w|^2 / (2 choice), which spares the biases.
      iterations: at most, for each choice.
    """
    from scipy.optimize import minimize
    from sklearn.utils.extmath import randomized_svd

    rows, width = x.shape
    hot = y.astype(np.float32) if y.ndim == 2 else np.eye(int(y.max()) + 1, dtype=np.float32)[y]
    classes = hot.shape[1]
    likelihood = _each if y.ndim == 2 else _one_of
    count = min(DIRECTIONS, rows, width)
    quick: Any = dict(n_iter=1, random_state=0)  # roughly is good enough
    _, size, directions = randomized_svd(x, count, **quick)
    w, b = np.zeros((width, classes), np.float32), np.zeros((1, classes), np.float32)
    for choice in choices:
        p = likelihood(x @ w + b, hot)[0]
        curvature = float(np.mean(p * (1 - p)))  # per clip, class and squared length
        scale = (1 / np.sqrt(1 / choice + curvature * size**2)).astype(np.float32)
        bias_scale = np.float32(1 / np.sqrt(1 / choice + curvature * rows))

        def rescale(a, along, rest):
            """Multiply by `along` in the principal directions and by `rest` across them."""
            return rest * a + directions.T @ ((along - rest)[:, None] * (directions @ a))

        def natural(v, scale=scale, bias_scale=bias_scale):
            v = v.reshape(width + 1, classes).astype(np.float32)
            return rescale(v[:-1], scale, scale[-1]), bias_scale * v[-1:]

        def loss(v, scale=scale, bias_scale=bias_scale, choice=choice):
            w, b = natural(v)
            p, log_likelihood = likelihood(x @ w + b, hot)
            total = np.vdot(w, w) / (2 * choice) - log_likelihood
            slope = x.T @ (p - hot) + w / np.float32(choice)
            bias_slope = bias_scale * np.sum(p - hot, axis=0, keepdims=True)
            found = np.concatenate([rescale(slope, scale, scale[-1]), bias_slope])
            return float(total), found.ravel().astype(np.float64)

        start = np.concatenate([rescale(w, 1 / scale, 1 / scale[-1]), b / bias_scale])
        options = dict(maxiter=iterations, gtol=1e-2, ftol=1e-6)
        found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
        w, b = natural(found.x)
        yield w, b


def _one_of(logits: np.ndarray, hot: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the probabilities [n, C] of clips with one label, and the log likelihood."""
    p, logp = softmax(logits)
    return p, float(np.sum(hot * logp, dtype=np.float64))


def _each(logits: np.ndarray, hot: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the probabilities [n, C] where each class is a question of its own, and the log likelihood."""
    p = (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)
    return p, float(np.sum(hot * logits - np.logaddexp(0, logits), dtype=np.float64))


def softmax(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities [n, C] and their logarithms."""
    logits = logits - logits.max(axis=1, keepdims=True)
    e = np.exp(logits)
    total = e.sum(axis=1, keepdims=True)
    return e / total, logits - np.log(total)
