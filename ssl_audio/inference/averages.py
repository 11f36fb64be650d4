"""What a classifier says of a clip's windows as what it says of the clip: means of logits or probabilities.

Used by `Classifier` and by the evaluator `eval/classify.py`, so that both give the same scores.
"""

from typing import Any

import numpy as np

AVERAGES = ("logits", "softmax", "sigmoid", "none")


def averaged(logits: np.ndarray, average: str) -> np.ndarray:
    """Return the logits [1, C] of a clip, float64, given those of its windows [n, C].

    Of probabilities those logits are returned whose "softmax" or "sigmoid" is their mean. They are computed
    from logarithms, so that probabilities near 0 and 1 stay finite and keep their order. "none": as given.
    """
    from scipy import special

    logsumexp: Any = special.logsumexp
    x = np.asarray(logits, np.float64)
    if average == "none":
        return x
    if average == "logits":
        return x.mean(axis=0, keepdims=True)
    if average == "softmax":
        return logsumexp(special.log_softmax(x, axis=1), axis=0, keepdims=True) - np.log(len(x))
    yes, no = (logsumexp(special.log_expit(sign * x), axis=0, keepdims=True) for sign in (1, -1))
    return yes - no
