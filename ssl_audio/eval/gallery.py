"""Find a clip in a gallery by what lies beside it: an evaluator of `train/loop.py` and `gallery_verb.py`.

Exact pairs (recall, median rank) and what has a label in common (precision, hit rate, NDCG), for queries of
one modality, of several, and for any share of a branch.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.data.captions import with_names
from ssl_audio.data.entries import Entry
from ssl_audio.data.labelled import first_rows
from ssl_audio.data.reading import examples
from ssl_audio.distributed import sharding
from ssl_audio.eval import inputs
from ssl_audio.eval.retrieval import ranks, recalls
from ssl_audio.inference import branches
from ssl_audio.slots import AnySource
from ssl_audio.structs import TrainState

log = logging.getLogger(__name__)

TOP = 10  # of a list of recommendations


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Rank all clips of a source for each of its clips.

    Attributes:
      source: clips, and what lies beside them.
      entries: of the batch, as in training; cut without chance.
      asked: queries: modalities that are merged, as "video+text".
      key: modality that is found. If it is also the query, a clip does not find itself.
      relevant: what clips have in common that fit: "label", or a column of the source's table; "": only pairs
        are scored.
      alphas: shares of the branch `class`; none: the vectors as they are.
      batch_size: clips at once.
      max_bad_share: of clips that cannot be read.
    """

    source: AnySource
    entries: dict[str, Entry]
    asked: tuple[str, ...]
    key: str = "audio"
    relevant: str = "label"
    alphas: tuple[float, ...] = ()
    batch_size: int = 32
    max_bad_share: float = 0.01

    def __post_init__(self):
        if not self.asked:
            raise ValueError("asked: wanted at least one query, as ('video', 'video+text').")

    def check(self, objective: Any, training: Any) -> None:
        """Open the clips and compare the modalities with the objective's.

        Raises:
          ValueError: no clip can be read, or the objective has no such modality.
        """
        del training
        there = set(modalities(objective))
        wanted = {self.key, *(part for name in self.asked for part in name.split("+"))}
        if unknown := sorted(wanted - there):
            raise ValueError(
                f"modality '{unknown[0]}': the towers are of {', '.join(sorted(there))}."
            )
        for alpha in self.alphas:
            for name in wanted:
                branches.shares(branches.names(objective, name), branches.CHOSEN, alpha)
        if self.relevant not in ("", "label") and not any(
            self._groups(self.source.meta(i)) for i in range(len(self.source))
        ):
            raise ValueError(
                f"relevant: no clip of {self.source.info.name} has anything in the column '{self.relevant}'; "
                "wanted one of its table, or '': only pairs are scored."
            )
        inputs.check_readable(self.source)

    def run(self, objective: Any, state: TrainState, mesh: jax.sharding.Mesh) -> dict[str, float]:
        """Return the scores of a training state; every host computes the same."""
        whole = jax.jit(lambda params: params, out_shardings=sharding.replicated(mesh))
        params = jax.device_get(whole(state.params))
        with jax.set_mesh(sharding.alone()):
            return self.scores(objective, params)

    def scores(self, objective: Any, params: Any) -> dict[str, float]:
        """Return the scores of every query, "QUERY/R@1", …; of shares of a branch, "QUERY/0.25/R@1", …"""
        vectors, groups = self.vectors(objective, params)
        found: dict[str, float] = {}
        keys = vectors[self.key]
        if len(keys) < 2:
            raise ValueError(f"{self.source.info.name}: a gallery of one clip; wanted 2 or more.")
        shared = None if groups is None else _common(groups)
        for name in self.asked:
            asked, itself = vectors[name], name == self.key
            if asked.shape != keys.shape:
                shown = f"{name} [{asked.shape[1]}] and {self.key} [{keys.shape[1]}]"
                raise ValueError(
                    f"asked: vectors of {shown} are of different spaces; wanted a query that the model was "
                    "trained to compare with them."
                )
            options: dict[str, tuple[np.ndarray, np.ndarray]] = {"": (asked, keys)}
            if self.alphas:
                order = branches.names(objective, self.key)
                options = {}
                for alpha in self.alphas:
                    share = branches.shares(order, branches.CHOSEN, alpha)
                    options[f"{alpha:g}/"] = branches.query(asked, share), keys
            for part, (one, other) in options.items():
                some = gallery(one @ other.T, shared, itself=itself)
                found |= {f"{name}/{part}{score}": value for score, value in some.items()}
        return found

    def vectors(
        self, objective: Any, params: Any
    ) -> tuple[dict[str, np.ndarray], list[frozenset[str]] | None]:
        """Return the unit vectors [n, D] of the key and of each query, and what the clips have in common."""
        wanted = dict.fromkeys((self.key, *self.asked))
        program = jax.jit(
            lambda params, batch: {name: embed(objective, params, batch, name) for name in wanted}
        )
        rows: list[dict[str, Any]] = []
        groups: list[frozenset[str]] = []
        found: list[dict[str, np.ndarray]] = []

        def flush() -> None:
            few = rows + rows[-1:] * (self.batch_size - len(rows))
            batch = {name: np.stack([row[name] for row in few]) for name in few[0]}
            some = program(params, batch)
            found.append({name: np.asarray(v)[: len(rows)] for name, v in some.items()})
            rows.clear()

        read: Any = examples(self.source, max_bad_share=self.max_bad_share)
        with contextlib.closing(read):
            for number, example in read:
                rows.append(self._row(example, number))
                groups.append(self._groups(example))
                if len(rows) == self.batch_size:
                    flush()
        if rows:
            flush()
        if not found:
            raise ValueError(f"{self.source.info.name}: no clip could be read.")
        if again := len(self.source) - len(np.unique(first_rows(self.source))):
            log.warning(
                "%s: %d rows name the sound of an earlier row: each is an item of its own, so that a "
                "query may find the other one first", self.source.info.name, again,
            )  # fmt: skip
        joined = {name: np.concatenate([some[name] for some in found]) for name in wanted}
        return joined, groups if self.relevant else None

    def _row(self, example: Any, number: int) -> dict[str, Any]:
        given = {
            **with_names(example, self.source.info.labels),
            "source": 0,
            "source_name": "",
            "number": number,
            "more": lambda: example,
        }
        row: dict[str, Any] = {}
        for entry in self.entries.values():
            row |= entry.draw(given, np.random.default_rng((0, number)))
        return row

    def _groups(self, example: Any) -> frozenset[str]:
        if not self.relevant:
            return frozenset()
        if self.relevant == "label":
            label = example.get("label")
            some = label if isinstance(label, tuple) else () if label is None else (label,)
            return frozenset(map(str, some))
        cell = (example.get("columns") or {}).get(self.relevant)
        several = cell if isinstance(cell, (list, tuple)) else str(cell or "").split(";")
        return frozenset(one for one in (str(value).strip() for value in several) if one)


def modalities(objective: Any) -> list[str]:
    """Return what an objective's towers take: those of a fused tower, too."""
    inner = [name for t in objective.towers.values() for name in getattr(t, "towers", ())]
    return [*objective.towers, *inner]


def embed(objective: Any, params: Any, batch: Mapping[str, Any], name: str) -> Any:
    """Return the unit vectors of a query, "video" or "video+text".

    By the tower that takes all of them, with the others' place left empty; else the normalised sum of the
    vectors of each.
    """
    parts = name.split("+")
    for tower, made in objective.towers.items():
        inner = set(getattr(made, "towers", ()))
        if inner.issuperset(parts):
            seen = {k: v for k, v in batch.items() if k not in inner or k in parts}
            return objective.embed(tower, params, seen)
    several = [_part(objective, params, batch, part) for part in parts]
    widths = {z.shape[-1] for z in several}
    if len(widths) > 1:
        raise ValueError(
            f"asked: {name}: vectors of {sorted(widths)} numbers are of different spaces; wanted modalities "
            "that were trained to be compared."
        )
    total = sum(several)
    return total / jnp.linalg.norm(total, axis=-1, keepdims=True)


def _part(objective: Any, params: Any, batch: Mapping[str, Any], name: str) -> Any:
    if name in objective.towers:
        return objective.embed(name, params, batch)
    return embed(objective, params, batch, name)


def _common(groups: Sequence[frozenset[str]]) -> np.ndarray:
    """Return which clips have something in common [n, n]."""
    names = {name: i for i, name in enumerate(sorted(set().union(*groups)))}
    table = np.zeros((len(groups), max(1, len(names))), np.float32)
    for row, some in enumerate(groups):
        table[row, [names[name] for name in some]] = 1
    return table @ table.T > 0


def gallery(
    scores: np.ndarray, fits: np.ndarray | None = None, *, itself: bool = False
) -> dict[str, float]:
    """Return how well items of a gallery are found.

    Args:
      scores: similarities of queries and items [n, n]; item i is query i's own.
      fits: which items fit a query beside its own [n, n]; None: only pairs are scored.
      itself: queries are the items: none finds itself, and there are no pairs.

    Returns:
      R@1, R@5, R@10: share of queries whose own item is among the first k, items of equal score in random
        order; median_rank, from 1.
      precision@10: share of fitting ones among the first 10; hit@10: share of queries with one there;
      NDCG@10: those, by rank; all as in the mean over random orders of items of equal score. The mean is over
      queries that anything fits.
    """
    scores = np.array(scores, np.float64)
    n = len(scores)
    if scores.shape != (n, n) or n < 2:
        raise ValueError(f"gallery: got scores {scores.shape}, wanted [n, n] of 2 or more.")
    found: dict[str, float] = {}
    if not itself:
        own = ranks(scores, np.arange(n))
        found = recalls(scores, np.arange(n))
        found["median_rank"] = float(np.floor(np.median(own)) + 1)
    if fits is None:
        return found
    fits = np.array(fits, bool)
    if itself:
        np.fill_diagonal(scores, -np.inf)
        np.fill_diagonal(fits, False)
    there = fits.sum(axis=1)
    asked = there > 0
    if not asked.any():
        return found
    top = min(TOP, n - itself)
    some = [_first(*row, top) for row in zip(scores[asked], fits[asked], strict=True)]
    right, hit = (np.array(values) for values in zip(*some, strict=True))
    gain = 1 / np.log2(np.arange(top) + 2)
    best = np.cumsum(gain)[np.minimum(there[asked], top) - 1]
    found[f"precision@{TOP}"] = float(right.mean())
    found[f"hit@{TOP}"] = float(hit.mean())
    found[f"NDCG@{TOP}"] = float(np.mean(right @ gain / best))
    return found


def _first(scores: np.ndarray, fits: np.ndarray, top: int) -> tuple[np.ndarray, float]:
    """Return how probably each of the first places [top] has a fitting item, and whether any has one.

    Args:
      scores: of the items [n]; those of equal score are in random order.
      fits: which fit [n].
      top: places.
    """
    order = np.argsort(-scores, kind="stable")
    value, right = scores[order], fits[order].astype(np.float64)
    begin = np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1]]))  # of equal ones
    size, good = np.diff(begin, append=len(value)), np.add.reduceat(right, begin)
    missed = 1.0
    for places, several, fitting in zip(np.clip(top - begin, 0, size), size, good, strict=True):
        drawn = np.arange(places)  # each of them in turn is one that does not fit
        missed *= np.prod(np.maximum(several - fitting - drawn, 0) / (several - drawn))
    return np.repeat(good / size, size)[:top], 1 - missed
