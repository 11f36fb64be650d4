"""Audio and text side by side: retrieval in both directions, zero-shot scores, the modality gap.

On unit vectors as numpy arrays; called by `audio_text.py`. The rank of an item is the number of others
that score higher plus half of those that score the same, and recall is what is to be expected where items of
equal score stand in random order, so that equal captions neither help nor harm.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_audio.data.labelled import first_rows

KS = (1, 5, 10)

log = logging.getLogger(__name__)


def ranks(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return the rank [n], from 0, of one relevant column in each row of scores [n, m]."""
    own = np.take_along_axis(scores, relevant[:, None], axis=1)
    higher, same = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    return higher + (same - 1) / 2


def recall(scores: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Return how surely a relevant column of each row of scores [n, m] is among the k best.

    Columns with the same score stand in random order, and the result [n] is the mean over these orders: 1 and
    0 where there are no such columns. All scores equal give k / m, which is chance.

    Args:
      scores: similarities, higher is better.
      relevant: number of the relevant column [n], or of several [n, p], of which one is enough.
      k: how many are looked at.
    """
    own = np.take_along_axis(scores, relevant.reshape(len(scores), -1), axis=1)
    best = own.max(axis=1, keepdims=True)
    higher, same = (scores > best).sum(axis=1), (scores == best).sum(axis=1)
    places = np.clip(k - higher, 0, same)  # among the first k, for those as good as the best
    mine, missed = (own == best).sum(axis=1), np.ones(len(scores))
    for i in range(own.shape[1]):  # each of them in turn misses all the places
        missed *= np.where(
            i < mine, np.maximum(same - places - i, 0) / np.maximum(same - i, 1), 1.0
        )
    return 1 - missed


def retrieval(audio: np.ndarray, text: np.ndarray, per_clip: int = 1) -> dict[str, float]:
    """Return recalls, mAP@10 and median rank in both directions.

    Args:
      audio: unit vectors [n, D].
      text: [n * per_clip, D]: all captions of the first clip, of the second, …
      per_clip: captions of each clip. From audio, recall counts the best of them; mAP@10 sorts the
        ranks of all: the i-th best at rank r adds i / (r + 1) if r < 10, and the sum is divided by
        their number.

    Raises:
      ValueError: shapes that do not fit.
    """
    clips = len(audio)
    if not clips or text.shape != (clips * per_clip, audio.shape[1]):
        raise ValueError(
            f"retrieval: got audio {audio.shape} and text {text.shape} with {per_clip} captions each."
        )
    scores = text @ audio.T
    to_audio = ranks(scores, np.repeat(np.arange(clips), per_clip))
    own = np.arange(clips * per_clip).reshape(clips, per_clip)
    to_text = np.stack([ranks(scores.T, own[:, i]) for i in range(per_clip)], axis=1)
    best = np.sort(to_text, axis=1)
    found = recalls(scores, np.repeat(np.arange(clips), per_clip), "text_to_audio_")
    found |= _places("text_to_audio", to_audio[:, None])
    return found | recalls(scores.T, own, "audio_to_text_") | _places("audio_to_text", best)


def together(
    source: Any, numbers: np.ndarray, texts: Sequence[Sequence[str]]
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Return which of some rows of a source are its clips [m], and the captions of each clip.

    Rows that name the same stretch of sound are one clip with the captions of all: it is found by each of
    them, where several alike would compete for the first place.

    Args:
      source: of clips with captions.
      numbers: of its rows that could be read [n].
      texts: captions of each [n].
    """
    found: dict[int, tuple[int, dict[str, None]]] = {}
    for at, (first, some) in enumerate(
        zip(first_rows(source)[numbers].tolist(), texts, strict=True)
    ):
        found.setdefault(first, (at, {}))[1].update(dict.fromkeys(some))
    return np.array([at for at, _ in found.values()]), [tuple(said) for _, said in found.values()]


def recalls(scores: np.ndarray, relevant: np.ndarray, prefix: str = "") -> dict[str, float]:
    """Return R@1, R@5 and R@10, the mean of `recall`, under names that begin with `prefix`."""
    return {f"{prefix}R@{k}": float(np.mean(recall(scores, relevant, k))) for k in KS}


def _places(name: str, each: np.ndarray) -> dict[str, float]:
    place = np.arange(1, each.shape[1] + 1)
    precision = np.where(each < 10, place / (each + 1), 0).sum(axis=1) / each.shape[1]
    return {
        f"{name}_mAP@10": float(np.mean(precision)),
        f"{name}_median_rank": float(np.floor(np.median(each[:, 0])) + 1),
    }


def modality_gap(first: np.ndarray, second: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return how far two modalities lie apart (SLAP, arXiv:2506.17815, section 4).

    "centroid_distance" between the means of unit vectors [n, D]; "separability": the accuracy of a
    logistic regression that tells them apart, on a random fifth that it has not seen; 0.5 is no gap. It
    is left out of fewer than five.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    distance = float(np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)))
    x = np.concatenate([first, second])
    y = np.repeat([0, 1], [len(first), len(second)])
    if min(len(first), len(second)) < 5:
        log.warning("modality gap: no separability, as there are fewer than 5 clips")
        return {"centroid_distance": distance}
    split: Any = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=y)
    accuracy = LogisticRegression(max_iter=1000).fit(split[0], split[2]).score(split[1], split[3])
    return {"centroid_distance": distance, "separability": float(accuracy)}


def pair_accuracy(audio: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> float:
    """Return the share of clips [n, D] closer to their caption than to its reversal; ties count half.

    As `ZSTE` asks "u before v" against "v before u" (arXiv:2408.09269; the battery here is our own).
    """
    lead = np.sum(audio * right, axis=1) - np.sum(audio * wrong, axis=1)
    return float(np.mean((lead > 0) + 0.5 * (lead == 0)))


def spread(vectors: Sequence[np.ndarray]) -> float:
    """Return the least deviation of modalities' unit vectors [n, D], times sqrt(D).

    1 for directions drawn at random, 0 for a collapse; below 0.1 is an alarm.
    """
    return min(float(np.mean(np.std(v, axis=0)) * v.shape[1] ** 0.5) for v in vectors)
