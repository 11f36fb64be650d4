"""Whether a clip is still itself when it is changed, and how even vectors lie. Called by `tasks.py`."""

import dataclasses
from typing import Any

import numpy as np

from ssl_audio.data.derived import Changed, Fewer
from ssl_audio.data.source import Source
from ssl_audio.eval import base, retrieval
from ssl_audio.eval.listening import Listening
from ssl_audio.eval.protocols import Case, Outcome, Protocol, unit, wilson
from ssl_audio.slots import AnySource


@dataclasses.dataclass(frozen=True)
class Robust(Protocol):
    """Find a clip among others by a changed version of it: recall at 1; equal vectors count as chance.

    Also the mean cosine of both, and of all clips uniformity (Wang and Isola 2020, arXiv:2005.10242) and
    effective rank (Roy and Vetterli 2007), of features with mean 0.
    """

    change: Any  # a Change
    most: int = 200  # clips

    metric = "R@1"

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        some: AnySource = Fewer(source, self.most, seed)
        (a, x), (b, z) = listening.clips(some), listening.clips(Changed(some, self.change, seed))
        both = np.intersect1d(a, b)
        vectors = {"clean": x[np.isin(a, both)], "changed": z[np.isin(b, both)]}
        return Case(vectors, dict.fromkeys(vectors, np.eye(len(both), dtype=np.float32)), {})

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        clean, changed = case.vectors["clean"], case.vectors["changed"]
        if len(clean) < 2:
            raise ValueError(f"{len(clean)} clip, wanted two or more to look one up among.")
        centre, gain = base.statistics(clean)
        # Constant features say nothing, and have no gain.
        a, b = (unit((x - centre) * gain) for x in (clean, changed))
        own = np.arange(len(a))
        found = float(np.mean(retrieval.recall(np.round(b @ a.T, 5), own, 1)))
        more = dict(cosine=float(np.mean(np.sum(a * b, axis=1))), **health(clean - centre))
        return Outcome(found, 1 / len(a), len(a), wilson(found, len(a)), more)


def health(x: np.ndarray) -> dict[str, float]:
    """Return uniformity (0: all alike; lower is more even) and effective rank of vectors [n, D], mean 0."""
    z = unit(x)
    apart = np.maximum(0, 2 - 2 * (z @ z.T))[np.triu_indices(len(z), 1)]
    size = np.linalg.svd(x, compute_uv=False) ** 2
    share = size[size > 0] / max(size.sum(), 1e-30)
    rank = float(np.exp(-np.sum(share * np.log(share)))) if len(share) else 0.0
    return dict(uniformity=float(np.log(np.mean(np.exp(-2 * apart)))), effective_rank=rank)
