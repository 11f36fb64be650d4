"""How honest are the scores of a classifier of ESC-10 before and after calibration, on clips of other folds?

    python experiments/predict/calibration.py

The classifier: logistic regression on mean and deviation of each log-mel band. In turn three folds train it,
one calibrates it and one tests. Once with one label per clip (temperature), once as ten yes-or-no questions.
"""

import csv
import os
import pathlib
from typing import Any

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from ssl_audio.data.decode import decode
from ssl_audio.eval.calibrate import fit, probabilities, quality
from ssl_audio.frontend.fbank import Fbank

RATE = 16_000


def main() -> None:
    """Print log loss and ECE of the test folds, before and after."""
    x, y, folds = features()
    hot = np.eye(10)[y]
    for several in (False, True):
        before, after = [], []
        for fold in range(1, 6):
            test, held = folds == fold, folds == 1 + fold % 5
            logits = learned(x, y, ~(test | held), several)
            found = fit(logits[held], hot[held], several)
            given, thresholds = logits[test], found.thresholds or None
            before.append(scored(given, hot[test], several, None))
            after.append(scored(found(given), hot[test], several, thresholds))
        print("ten yes or no" if several else "one label")
        for what, rows in (("  as it is  ", before), ("  calibrated", after)):
            means = {name: np.mean([row[name] for row in rows]) for name in rows[0]}
            print(what, ", ".join(f"{name} {value:.3f}" for name, value in means.items()))


def features() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features [400, 256], labels and folds of ESC-10."""
    root = pathlib.Path(os.environ["SSL_AUDIO_SHARED"], "data/esc10")
    with open(root / "meta.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    frontend = jax.jit(Fbank())
    found = []
    for row in rows:
        audio = decode(root / "audio" / row["filename"], RATE)
        spec = np.asarray(frontend(np.resize(audio, (1, 5 * RATE))))[0]
        found.append(np.concatenate([spec.mean(axis=0), spec.std(axis=0)]))
    names = sorted({row["category"] for row in rows})
    labels = np.array([names.index(row["category"]) for row in rows])
    return np.array(found), labels, np.array([int(row["fold"]) for row in rows])


def learned(x: np.ndarray, y: np.ndarray, train: np.ndarray, several: bool) -> np.ndarray:
    """Return the logits of all clips [n, 10]."""
    scaled = StandardScaler().fit(x[train]).transform(x)
    model = LogisticRegression(C=10.0, max_iter=2000)
    chosen = OneVsRestClassifier(model) if several else model
    return chosen.fit(scaled[train], y[train]).decision_function(scaled)


def scored(
    logits: np.ndarray, hot: np.ndarray, several: bool, thresholds: tuple[float, ...] | None
) -> dict[str, float]:
    """Return log loss and ECE; F1 of all classes together, or accuracy."""
    found = quality(logits, hot, several)
    if not several:
        return found | {"accuracy": float((logits.argmax(1) == hot.argmax(1)).mean())}
    yes = probabilities(logits, several=True) >= np.array(thresholds or [0.5] * 10)[None]
    none: Any = 0  # what a class that nothing was said to be scores
    return found | {"F1": float(f1_score(hot, yes, average="macro", zero_division=none))}


if __name__ == "__main__":
    main()
