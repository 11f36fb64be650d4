"""Linear probe: multinomial logistic regression on standardised features, for `evaluate.py`."""

import dataclasses
import warnings

import numpy as np

from ssl_audio.eval.base import standardise


@dataclasses.dataclass(frozen=True)
class Probe:
    """Logistic regression with an L2 penalty.

    Attributes:
      choices: inverse strengths C of the penalty |w|^2 / (2 C) on the summed loss, strongest first.
      iterations: of L-BFGS, at most, for each.
    """

    choices: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    iterations: int = 1000

    def predict(self, x: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Return labels [choices, n] of all rows of x [n, p], learned from the rows `train` [n]."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        z = standardise(x, train)
        if z.shape[1] > train.sum():
            # The weights lie in the span of the training rows, so coordinates in it are enough.
            z = z @ np.linalg.qr(z[train].T)[0]
        # Each fit starts from the more penalised one before it.
        model = LogisticRegression(max_iter=self.iterations, warm_start=True)
        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for c in self.choices:
                found.append(model.set_params(C=c).fit(z[train], y[train]).predict(z))
        return np.stack(found)
