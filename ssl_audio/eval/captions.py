"""How good captions are: the words of templates exactly, and the metrics of aac-metrics.

Called by `ssl-audio caption --truth` and by the benchmark.
"""

import logging
import re
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_audio.data.text import split

METRICS = ("bleu_4", "rouge_l", "cider_d")  # in Python
JAVA = ("meteor", "spice")  # by programs in Java; SPIDEr is the mean of CIDEr-D and SPICE

_WORD = re.compile(r"\w")

log = logging.getLogger(__name__)


def plain(text: str) -> str:
    """Return a text's words with single spaces: lower case, without accents and signs."""
    return " ".join(word for word in split(text) if _WORD.match(word))


def exact(said: Sequence[str], truth: Sequence[Sequence[str]]) -> np.ndarray:
    """Return of each caption [n] 1 where it has the words of one of its clip's, else 0."""
    return np.array(
        [plain(one) in set(map(plain, some)) for one, some in zip(said, truth, strict=True)], float
    )


def balanced(said: Sequence[str], truth: Sequence[Sequence[str]]) -> float:
    """Return the mean over different captions of the share of their clips that have exactly its words."""
    right = exact(said, truth)
    kinds = np.array([plain(some[0]) for some in truth])
    return float(np.mean([right[kinds == kind].mean() for kind in np.unique(kinds)]))


def measured(said: Sequence[str], truth: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return "exact" and "exact_balanced", and, if aac-metrics is installed, its numbers."""
    check(said, truth)
    found = {"exact": float(exact(said, truth).mean()), "exact_balanced": balanced(said, truth)}
    try:
        return found | compared(said, truth)
    except RuntimeError as error:
        log.info("%s", error)
        return found


def check(said: Sequence[str], truth: Sequence[Sequence[str]]) -> None:
    """Raise ValueError unless each caption has one or more to compare it with."""
    if len(said) != len(truth) or not said or not all(truth):
        raise ValueError(
            f"captions: {len(said)}, and the words of {sum(map(bool, truth))} clips; wanted some for each."
        )


def compared(
    said: Sequence[str], truth: Sequence[Sequence[str]], *, java: bool = True
) -> dict[str, float]:
    """Return BLEU-4, ROUGE-L and CIDEr-D (0 to 10), and METEOR, SPICE and SPIDEr where Java can run them.

    Without `java` the first three only. By aac-metrics, on words as `plain` has them: its own tokenizer is a
    program in Java, too.

    Raises:
      RuntimeError: aac-metrics is not installed.
    """
    functional = library()
    candidates, references = list(map(plain, said)), [list(map(plain, some)) for some in truth]
    found: dict[str, float] = {}
    for name in METRICS if len(candidates) > 1 else METRICS[:2]:  # CIDEr counts words over clips
        found[name] = _one(functional, name, candidates, references)
    if not java:
        return found
    if shutil.which("java") is None:
        log.info("METEOR, SPICE and SPIDEr take Java, which is not there.")
        return found
    try:
        found |= {name: _one(functional, name, candidates, references) for name in JAVA}
    except Exception as error:  # programs that must be fetched first, another version of Java
        log.warning(
            "METEOR, SPICE and SPIDEr are left out (%s): they take Java 8 to 13 and what "
            "`aac-metrics-download` fetches.", " ".join(str(error).split())[:200],
        )  # fmt: skip
    if "spice" in found and "cider_d" in found:
        found["spider"] = (found["cider_d"] + found["spice"]) / 2
    return found


def library() -> Any:
    """Return the functions of aac-metrics.

    Raises:
      RuntimeError: it is not installed.
    """
    try:
        import aac_metrics.functional as functional
    except ImportError as error:
        raise RuntimeError(
            f"captions: BLEU, ROUGE and CIDEr are aac-metrics': pip install 'ssl_audio[caption]' ({error})."
        ) from None
    return functional


def _one(functional: Any, name: str, candidates: list[str], references: list[list[str]]) -> float:
    corpus, _ = getattr(functional, name)(candidates, references)
    return float(corpus[name])
