"""k nearest neighbours by cosine similarity of standardised features. Called by `evaluate.py`."""

import dataclasses

import numpy as np

from ssl_audio.eval.base import standardise


@dataclasses.dataclass(frozen=True)
class Knn:
    """The label most common among the k nearest training clips; nearer ones count a little more.

    Attributes:
      choices: values of k.
    """

    choices: tuple[int, ...] = (20, 10, 5, 3, 1)

    def predict(self, x: np.ndarray, y: np.ndarray, train: np.ndarray) -> np.ndarray:
        """Return labels [choices, n] of all rows of x [n, p], learned from the rows `train` [n]."""
        z = standardise(x, train)
        z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        similar = z @ z[train].T
        labels, known = np.unique(y[train], return_inverse=True)
        most = min(max(self.choices), similar.shape[1])
        nearest = np.argsort(-similar, axis=1, kind="stable")[:, :most]
        weight = 1 + np.take_along_axis(similar, nearest, axis=1)
        votes = weight[:, :, None] * np.eye(len(labels), dtype=np.float32)[known[nearest]]
        return np.stack([labels[np.argmax(votes[:, :k].sum(axis=1), axis=1)] for k in self.choices])
