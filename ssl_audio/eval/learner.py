"""Learn from the labels that a person gives, and say what to label next: the few-shot loop.

Used by the page of `ssl-audio label`, and by scripts: docs/few-shot.md.
"""

import math
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_audio.data.names import natural
from ssl_audio.eval import probe
from ssl_audio.eval.base import Fitted, statistics

HOWS = ("uncertain", "highest", "random")
STRENGTH = 100.0  # inverse strength of the penalty; smaller ones fit 10 to 50 labels worse
START = 20  # so many labels are of typical clips: little is known that could be doubted
NEAREST = 10  # neighbours that tell how typical a clip is
MOST = 200  # groups
LOOKED_AT = 2000  # vectors that typical ones are chosen from, drawn at random
POOL = 5  # times as many candidates as are asked for, one of which is taken from each group of them
LIKENESS = 0.98  # cosine from which on two clips count as the same, of the highest


class Learner:
    """A linear probe on vectors, trained again when labels have changed.

    Args:
      vectors: [N, D], of an index or of `Encoder.embed`.
      seed: of what is drawn.
      start: so many labels are asked for in typical places, before doubt counts.

    Attributes:
      labels: number of a vector → its label, any text.
    """

    def __init__(self, vectors: np.ndarray, *, seed: int = 0, start: int = START):
        if np.ndim(vectors) != 2 or not len(vectors):
            raise ValueError(f"vectors: got shape {np.shape(vectors)}, wanted [N, D], N above 0.")
        x = np.asarray(vectors, np.float32)
        if not np.isfinite(x).all():
            raise ValueError("vectors: NaN or infinite values.")
        self._centre, self._gain = statistics(x)
        self._x = (x - self._centre) * (self._gain / np.float32(math.sqrt(x.shape[1])))
        self._size = np.maximum(np.linalg.norm(self._x, axis=1), 1e-12)
        self._start = start
        self._random = np.random.default_rng(seed)
        self._fitted: tuple[np.ndarray, np.ndarray] | None = None
        self._scores: np.ndarray | None = None
        self.labels: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._x)

    @property
    def classes(self) -> list[str]:
        """The labels there are, in order: those of the columns of `scores`."""
        return sorted(set(self.labels.values()), key=natural)

    def set(self, i: int, label: str | None) -> None:
        """Label vector i; None takes its label away.

        Raises:
          ValueError: no such vector; a label that is empty or no text.
        """
        if not 0 <= i < len(self) or int(i) != i:
            raise ValueError(f"vector: got {i}, wanted 0 to {len(self) - 1}.")
        if label is not None and not (isinstance(label, str) and label.strip()):
            raise ValueError(f"label: got {label!r}, wanted text; None takes a label away.")
        if label is None:
            self.labels.pop(i, None)
        else:
            self.labels[i] = label.strip()
        self._fitted = self._scores = None

    def scores(self) -> np.ndarray:
        """Return the probabilities of the classes for all vectors [N, C]; with one class they are 1."""
        if self._scores is None and not self.labels:
            self._scores = np.zeros((len(self), 0), np.float32)
        elif self._scores is None:
            w, b = self._fit()
            self._scores = probe.softmax(self._x @ w + b)[0]
        return self._scores

    def next(self, count: int, how: str = "uncertain", label: str | None = None) -> list[int]:
        """Return which vectors without a label to label next: at most `count`, fewer if no more are left.

        Args:
          count: how many.
          how: "uncertain": the most probable two classes are nearly equally so, and no two are alike;
            before there are 20 labels and two classes, what is typical of all and like nothing that has a
            label. "highest": those that are most probably `label`, of nearly equal ones one. "random":
            any.
          label: of "highest".

        Raises:
          ValueError: no such way, or no such label.
        """
        if how not in HOWS:
            raise ValueError(f"how: got {how!r}, wanted one of {', '.join(HOWS)}.")
        if how == "highest" and label not in self.classes:
            known = ", ".join(self.classes) or "none yet"
            raise ValueError(f"label: got {label!r}, wanted a label that was given: {known}.")
        free = np.setdiff1d(np.arange(len(self)), list(self.labels))
        count = min(max(0, count), len(free))
        if not count:
            return []
        if how == "highest":
            order = np.argsort(-self.scores()[free, self.classes.index(str(label))], kind="stable")
            return self._unlike(free[order], count)
        if how == "random":
            return [int(i) for i in self._random.choice(free, count, replace=False)]
        if len(self.labels) < self._start or len(self.classes) < 2:
            return self._typical(free, count)
        best = np.partition(self.scores()[free], -2, axis=1)
        doubt = 1 - (best[:, -1] - best[:, -2])
        order = np.argsort(-doubt, kind="stable")[: max(LOOKED_AT, count)]
        some = self._unlike(free[order], POOL * count)
        return self._one_of_each(np.array(some), doubt[np.searchsorted(free, some)], count)

    def head(self) -> Fitted:
        """Return the probe as it is now; it reads vectors as they were given.

        Raises:
          ValueError: fewer than two classes.
        """
        if len(self.classes) < 2:
            got = ", ".join(self.classes) or "none"
            raise ValueError(f"classes: got {got}, wanted two: label some more.")
        w, b = self._fit()
        w = w / np.float32(math.sqrt(len(w)))
        labels = np.arange(len(self.classes))
        return probe.linear(w, b[0], self._centre, self._gain, labels)

    def save(
        self,
        folder: str | os.PathLike,
        model: Any,
        settings: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> pathlib.Path:
        """Write the probe as it is now, a folder that `ssl_audio.load` opens as a `Classifier`.

        Args:
          folder: to write.
          model: that made the vectors, as loaded.
          settings: of the index: `pool` and `layer`; without a pool they are of the space shared with
            words. None: vectors of `Encoder.embed`, divided by their length.
          about: what is known of it, kept in the config.

        Raises:
          ValueError: fewer than two classes; vectors of another length than the model's.
        """
        from ssl_audio.eval import save_probe

        fitted = self.head()
        how = _read_as(settings)
        about = {"labels": len(self.labels), **(about or {})}
        return save_probe.write(folder, model, fitted, self.classes, how, about)

    def _fit(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weights [D, C] and biases [1, C] for the vectors as they are kept."""
        from threadpoolctl import threadpool_limits

        if self._fitted is None:
            names, width = self.classes, self._x.shape[1]
            if len(names) < 2:
                self._fitted = np.zeros((width, len(names)), np.float32), np.zeros((1, len(names)))
                return self._fitted
            number = {name: k for k, name in enumerate(names)}
            rows = np.array(sorted(self.labels))  # in whatever order they were given
            y = np.array([number[self.labels[int(i)]] for i in rows])
            x, basis = self._x[rows], None
            with threadpool_limits(1, "blas"):
                if width > 2 * len(rows):
                    # The weights lie in the span of the labelled vectors.
                    basis = np.linalg.qr(x.T)[0]
                    x = x @ basis
                ((w, b),) = probe.logistic_path(x, y, (STRENGTH,))
                self._fitted = w if basis is None else basis @ w, b
        return self._fitted

    def _typical(self, free: np.ndarray, count: int) -> list[int]:
        """Return rows without a label from the densest places of the largest groups that have none.

        TypiClust (Hacohen et al. 2022, arXiv:2202.02794): of vectors at unit length, as many groups as there
        will be labels.
        """
        known, some = sorted(self.labels), self._random.permutation(free)[: max(LOOKED_AT, count)]
        if count >= len(some):
            return [int(i) for i in some]
        both = np.concatenate([some, known]).astype(int)
        x = self._x[both] / self._size[both, None]
        of = _groups(x, min(len(x), count + len(known), MOST), None)
        own, taken = of[: len(some)], np.bincount(of[len(some) :], minlength=len(x))
        sizes = np.bincount(own, minlength=len(x))
        chosen: list[int] = []
        for group in sorted(np.unique(own), key=lambda k: (taken[k], -sizes[k]))[:count]:
            members = np.flatnonzero(own == group)
            near = np.sort(_apart(x[members]), axis=1)[:, : NEAREST + 1].mean(axis=1)
            chosen.append(int(some[members[np.argmin(near)]]))
        more = [int(i) for i in some if int(i) not in chosen]  # with fewer groups
        return (chosen + more)[:count]

    def _one_of_each(self, rows: np.ndarray, doubt: np.ndarray, count: int) -> list[int]:
        """Return the row nearest to the centre of each of `count` groups of rows (k-means, weighted)."""
        x = self._x[rows]
        if count >= len(rows):
            return [int(i) for i in rows]
        weight = doubt + 1e-6
        of, chosen = _groups(x, count, weight), list[int]()
        for group in np.unique(of):
            members = np.flatnonzero(of == group)
            centre = np.average(x[members], axis=0, weights=weight[members])
            nearest = np.argmin(np.linalg.norm(x[members] - centre, axis=1))
            chosen.append(int(rows[members[nearest]]))
        more = [int(i) for i in rows if int(i) not in chosen]  # where vectors are the same
        return (chosen + more)[:count]

    def _unlike(self, rows: np.ndarray, count: int) -> list[int]:
        """Return the first rows like none before them and none with a label; if too few, the others too."""
        known, chosen, skipped = sorted(self.labels), list[int](), list[int]()
        for i in map(int, rows):
            if len(chosen) == count:
                break
            others = known + chosen
            near = self._x[others] @ self._x[i] > LIKENESS * self._size[others] * self._size[i]
            (skipped if np.any(near) else chosen).append(i)
        return (chosen + skipped)[:count]


def _groups(x: np.ndarray, count: int, weight: np.ndarray | None) -> np.ndarray:
    """Return the number of each row's group [n], of at most `count`, by k-means."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer different rows than groups
        kmeans: Any = KMeans  # its stubs know n_init='auto' alone
        return kmeans(count, n_init=1, random_state=0).fit_predict(x, sample_weight=weight)


def _apart(x: np.ndarray) -> np.ndarray:
    """Return the distances between rows [n, n]."""
    squares = np.sum(x**2, axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * x @ x.T, 0))


def _read_as(settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the options of `objectives.probe.Probe` for the vectors of an index."""
    if settings is None:
        return dict(unit=True)
    if settings.get("pool") is None:
        return dict(reads="embedding")
    return dict(pool=settings["pool"], layer=settings.get("layer", -1), unit=True)
