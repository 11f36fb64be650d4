"""What vectors of lists know: probing tasks, and recommendation by neighbours; for any model or baseline.

Tasks are those of sentence embeddings (Conneau et al. 2018, arXiv:1805.01070) as playlists have them
(Papreja et al. 2019, arXiv:1907.01098).
"""

import collections
import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio.data.sequences import Items
from ssl_audio.distributed import sharding
from ssl_audio.inference.sequences import SequenceModel, recommended
from ssl_audio.slots import AnySource
from ssl_audio.structs import TrainState

Lists = Sequence[Sequence[Any]]  # of ids
Embed = Callable[[Lists], np.ndarray]  # lists → [n, D]
CONTENT = 10  # items that the task "content" tells apart
BINS = 4  # of lengths


@dataclasses.dataclass(frozen=True)
class Task:
    """Lists to be told apart by their vectors.

    Attributes:
      lists: n of them.
      classes: of each [n].
      groups: which lists are made of the same one [n], so that they are on the same side of the split.
      chance: what the most frequent class would get right.
    """

    lists: Lists
    classes: np.ndarray
    groups: np.ndarray

    @property
    def chance(self) -> float:
        """Share of the most frequent class."""
        return float(np.unique(self.classes, return_counts=True)[1].max() / len(self.classes))


def tasks(lists: Lists, labels: Sequence[int | None], seed: int = 0) -> dict[str, Task]:
    """Return the tasks that these lists allow, by name.

    genre: the label; order: as it was or shuffled; swap: as it was, or two neighbours in the middle half
    swapped; length: in four parts; content: which of ten items of middling frequency a list has, of
    those that have exactly one.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Task] = {}
    known = [i for i, label in enumerate(labels) if label is not None]
    if _can_be_told([labels[i] for i in known]):
        found["genre"] = _task([lists[i] for i in known], [labels[i] for i in known])
    long = [one for one in lists if len(set(one)) > 2]
    for name, changed in (("order", _shuffled), ("swap", _swapped)):
        if len(long) > 1:
            both = [list(one) for one in long] + [changed(one, rng) for one in long]
            found[name] = Task(both, np.repeat([0, 1], len(long)), np.tile(_same(long), 2))
    lengths = np.array([len(one) for one in lists])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, BINS + 1)[1:-1]))
    if _can_be_told(bins := np.searchsorted(edges, lengths, side="right")):
        found["length"] = _task(lists, bins)
    counts: dict[str, int] = {}
    for one in lists:
        for name in set(one):
            counts[name] = counts.get(name, 0) + 1
    by_count = sorted(counts, key=lambda name: (counts[name], name))
    first = max(0, len(by_count) // 2 - CONTENT // 2)
    chosen = {name: i for i, name in enumerate(by_count[first : first + CONTENT])}
    within = [[chosen[name] for name in set(one) if name in chosen] for one in lists]
    single = [i for i, some in enumerate(within) if len(some) == 1]
    if _can_be_told([within[i][0] for i in single]):
        found["content"] = _task([lists[i] for i in single], [within[i][0] for i in single])
    return found


def _can_be_told(classes: Any) -> bool:
    """Tell whether there are two classes, of which one can be both learned from and tested."""
    return 1 < len(np.unique(classes)) < len(classes)


def _task(lists: Lists, classes: Any) -> Task:
    return Task(lists, np.asarray(classes), _same(lists))


def _same(lists: Lists) -> np.ndarray:
    """Return a number for each list, that of equal lists being the same."""
    numbers: dict[tuple[Any, ...], int] = {}
    return np.array([numbers.setdefault(tuple(one), len(numbers)) for one in lists])


def _shuffled(one: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    """Return a list in another order than its own."""
    while True:
        other = [one[i] for i in rng.permutation(len(one))]
        if other != list(one):
            return other


def _swapped(one: Sequence[Any], rng: np.random.Generator) -> list[Any]:
    """Return a list with two different neighbours swapped, in its middle half where there are some."""
    places = [i for i in range(len(one) - 1) if one[i] != one[i + 1]]
    middle = [i for i in places if len(one) // 4 <= i < len(one) - len(one) // 4 - 1] or places
    i = middle[int(rng.integers(len(middle)))]
    other = list(one)
    other[i], other[i + 1] = other[i + 1], other[i]
    return other


def probe(vectors: np.ndarray, task: Task, seed: int = 0, share: float = 0.3) -> float:
    """Return the accuracy of logistic regression on the share of the lists that it has not seen.

    Lists made of the same one are never on both sides, and every class is among those learned from. Values
    are standardised by those.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    groups = np.unique(task.groups)
    test, wanted = np.zeros(len(task.groups), bool), max(1, round(share * len(groups)))
    left = collections.Counter(task.classes.tolist())
    for group in np.random.default_rng(seed).permutation(groups):
        if not wanted:
            break
        own = task.groups == group
        held = collections.Counter(task.classes[own].tolist())
        if all(left[one] > count for one, count in held.items()):  # a class must be learned from
            left -= held
            test |= own
            wanted -= 1
    x = (vectors - vectors[~test].mean(0)) / np.maximum(vectors[~test].std(0), 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(C=0.1, max_iter=300).fit(x[~test], task.classes[~test])
    return float(np.mean(fitted.predict(x[test]) == task.classes[test]))


def recommendation(
    embed: Embed,
    lists: Lists,
    labels: Sequence[int | None],
    queries: Lists,
    wanted: Sequence[int | None],
    *,
    count: int = 10,
    neighbours: int = 20,
) -> dict[str, float]:
    """Return how well neighbours recommend: the last item of each query is hidden, and looked for.

    hit: share of the queries whose hidden item is among so many recommended; popular: the same, of the most
    frequent items of all lists, whatever the query; genre_precision: share of a query's nearest lists that
    have its label, where labels are known.
    """
    known = [(q, label) for q, label in zip(queries, wanted, strict=True) if len(set(q)) > 1]
    if not known:
        raise ValueError("recommendation: no query has two different items.")
    asked = [list(q[:-1]) for q, _ in known]
    vectors, own = embed(lists), embed(asked)
    counts: dict[str, int] = {}
    for one in lists:
        for name in one:
            counts[name] = counts.get(name, 0) + 1
    popular = sorted(counts, key=lambda name: (-counts[name], name))
    hits, common, right = [], [], []
    said = np.array([-1 if label is None else label for label in labels])
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    for (query, label), items, vector in zip(known, asked, own, strict=True):
        hidden = query[-1]
        if hidden in items:  # it would not be recommended
            continue
        found = recommended(vector, items, vectors, lists, count, neighbours)
        hits.append(hidden in [name for name, _ in found])
        common.append(hidden in [name for name in popular if name not in items][:count])
        if label is not None:
            nearest = np.argsort(-(unit @ vector), kind="stable")[:count]
            right.append(np.mean(said[nearest] == label))
    found = {"hit": float(np.mean(hits)), "popular": float(np.mean(common))} if hits else {}
    return found | ({"genre_precision": float(np.mean(right))} if right else {})


def scores(embed: Embed, made: Mapping[str, Task], seed: int = 0) -> dict[str, float]:
    """Return the accuracy of each task."""
    return {name: probe(embed(task.lists), task, seed) for name, task in made.items()}


@dataclasses.dataclass(frozen=True)
class SequenceTasks:
    """Probe the vectors of a source's lists: an evaluator of `train/loop.py`.

    Attributes:
      source: of lists.
      items: the entry that knows the items, as in training.
      most: lists that are taken, the first ones.
      seed: of the changed lists and of the splits.
    """

    source: AnySource
    items: Items
    most: int = 2000
    seed: int = 0

    def check(self, objective: Any, training: Any) -> None:
        """Open the lists, and look their items up.

        Raises:
          ValueError: there is no list, none that has two items, or one whose items are not known.
        """
        del objective, training
        lists, labels = self.lists
        for i, one in enumerate(lists):
            self.items.numbers(one, f"{self.source.info.name}, list {i}")
        if not tasks(lists, labels, self.seed):
            raise ValueError(
                f"{self.source.info.name}: its lists allow no task: too few, or all alike."
            )

    @property
    def lists(self) -> tuple[list[tuple[str, ...]], list[int | None]]:
        """Return the lists and their labels, without what training leaves out of them."""
        metas = [self.source.meta(i) for i in range(min(self.most, len(self.source)))]
        if not metas or "items" not in metas[0]:
            raise ValueError(f"{self.source.info.name}: its clips are no lists of items.")
        known, skips = set(self.items.known), self.items.unknown == "skip"
        kept = [
            tuple(name for name in meta["items"] if name in known or not skips) for meta in metas
        ]
        some = [(one, meta.get("label")) for one, meta in zip(kept, metas, strict=True) if one]
        if not some:
            raise ValueError(f"{self.source.info.name}: no list has an item that is known.")
        return [one for one, _ in some], [label for _, label in some]

    def run(self, objective: Any, state: TrainState, mesh: jax.sharding.Mesh) -> dict[str, float]:
        """Return the accuracy of each task, from a training state; every host computes the same."""
        whole = jax.jit(lambda params: params, out_shardings=sharding.replicated(mesh))
        entry = dict(kind="sequences:Items") | dataclasses.asdict(self.items)
        config = dict(data=dict(entries=dict(items=entry)))
        params = jax.device_get(whole(state.params))
        with jax.set_mesh(sharding.alone()):
            model = SequenceModel(objective, params, config)
            return scores(model.embed, tasks(*self.lists, self.seed), self.seed)
