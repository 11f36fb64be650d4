"""How good generated sound is, from embeddings, probabilities, spectra and codes as numpy arrays, in float64.

Called by `judge.py`, and by experiments that have embeddings of their own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST = 1e-6  # probability, where a logarithm is taken


class Gaussian(NamedTuple):
    """Mean [D] and covariance [D, D] of vectors."""

    mean: np.ndarray
    covariance: np.ndarray


def gaussian(x: np.ndarray) -> Gaussian:
    """Return the mean and the covariance (divided by n - 1) of vectors [n, D].

    Raises:
      ValueError: another shape, fewer than two vectors, or values that are not finite.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(
            f"embeddings: got shape {x.shape}, wanted [n, D] of at least two clips or frames."
        )
    if not np.isfinite(x).all():
        raise ValueError("embeddings: NaN or infinite values.")
    return Gaussian(x.mean(0), np.atleast_2d(np.cov(x, rowvar=False)))


def frechet(first: np.ndarray | Gaussian, second: np.ndarray | Gaussian) -> float:
    """Return the Fréchet distance of two sets of embeddings, [n, D] or already a `Gaussian`.

    |m - n|² + tr(S + T - 2 (S T)^½): of VGGish's vectors the Fréchet audio distance (Kilgour et al. 2019,
    arXiv:1812.08466). It falls as clips become more, also of the same distribution: compare
    numbers of equally many clips only.

    Raises:
      ValueError: vectors of different widths; see `gaussian`.
    """
    a, b = (x if isinstance(x, Gaussian) else gaussian(x) for x in (first, second))
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"embeddings: got widths {len(a.mean)} and {len(b.mean)}, wanted those of one model."
        )
    # The eigenvalues of S T are those of the symmetric S^½ T S^½, which are exact where few vectors make
    # S singular; a root of the product itself is not.
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ b.covariance @ root)
    shared = np.sum(np.sqrt(np.maximum(inner, 0)))
    apart = np.sum((a.mean - b.mean) ** 2)
    found = apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared
    return float(max(found, 0.0))


def each_frechet(clips: Sequence[np.ndarray], recorded: np.ndarray | Gaussian) -> np.ndarray:
    """Return the distance of each clip's frames [T, D] from recorded ones [n], to find the worst.

    Per-song FAD (Gui et al. 2024, arXiv:2311.01616). NaN for clips of a single frame.
    """
    wanted = recorded if isinstance(recorded, Gaussian) else gaussian(recorded)
    return np.array([frechet(x, wanted) if len(x) > 1 else np.nan for x in clips])


def divergence(wanted: np.ndarray, found: np.ndarray) -> float:
    """Return the mean over pairs of KL(wanted || found), of a tagger's probabilities [n, C], in nats.

    Summed over classes, each with 1e-6 added, whether they sum to 1 or not, as audiocraft does (Kreuk et al.
    2022, arXiv:2209.15352: PaSST's classes).

    Raises:
      ValueError: shapes that differ, no pairs, values outside 0 to 1.
    """
    p, q = (np.asarray(x, np.float64) for x in (wanted, found))
    if p.shape != q.shape or p.ndim != 2 or not p.size:
        raise ValueError(
            f"divergence: got shapes {p.shape} and {q.shape}, wanted [n, C] of pairs of clips."
        )
    if min(p.min(), q.min()) < 0 or max(p.max(), q.max()) > 1 + 1e-6:
        raise ValueError("divergence: wanted probabilities, from 0 to 1.")
    return float(np.mean(np.sum(p * np.log((p + LEAST) / (q + LEAST)), axis=1)))


def agreement(audio: np.ndarray, text: np.ndarray) -> float:
    """Return the mean cosine of clips and their own texts, [n, D] each: the CLAP score.

    Raises:
      ValueError: shapes that differ.
    """
    if audio.shape != text.shape or audio.ndim != 2 or not len(audio):
        raise ValueError(
            f"agreement: got audio {audio.shape} and text {text.shape}, wanted a text for each clip."
        )
    a, b = (np.asarray(x, np.float64) for x in (audio, text))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean(np.sum(a * b, axis=1) / np.maximum(lengths, 1e-12)))


def log_mel(sound: np.ndarray, rate: int, bins: int = 32) -> np.ndarray:
    """Return natural logarithms of mel magnitudes [T, F] of 32 ms frames, 8 ms apart, at least 1e-5."""
    import librosa

    size = round(0.032 * rate)
    padded = np.pad(sound, (0, max(0, size - len(sound))))
    power = librosa.feature.melspectrogram(
        y=padded, sr=rate, n_fft=size, hop_length=size // 4, n_mels=bins
    )
    return 0.5 * np.log(np.maximum(power, 1e-10)).T


def log_mel_distance(sound: np.ndarray, wanted: np.ndarray, rate: int, bins: int = 32) -> float:
    """Return the mean absolute difference of two clips' log-mels, see `log_mel`; the longer one is cut."""
    size = min(len(sound), len(wanted))
    ours, theirs = (log_mel(x[:size], rate, bins) for x in (sound, wanted))
    return float(np.mean(np.abs(ours - theirs)))


def code_usage(codes: np.ndarray, size: int) -> list[dict[str, float]]:
    """Return of each codebook the "share" of its codes that occur, and their "perplexity".

    Args:
      codes: int [n, Q], of Q books.
      size: codes of a book.

    Raises:
      ValueError: another shape, or codes outside 0 to size - 1.
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or not codes.size:
        raise ValueError(f"codes: got shape {codes.shape}, wanted [n, Q].")
    if codes.min() < 0 or codes.max() >= size:
        raise ValueError(f"codes: got {codes.min()} to {codes.max()}, wanted 0 to {size - 1}.")
    found = []
    for book in codes.T:
        p = np.bincount(book, minlength=size) / len(book)
        entropy = -np.sum(p[p > 0] * np.log(p[p > 0]))
        found.append({"share": float(np.mean(p > 0)), "perplexity": float(np.exp(entropy))})
    return found
