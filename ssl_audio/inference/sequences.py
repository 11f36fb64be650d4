"""A model of lists of items, as playlists, in use: vectors of lists, and what goes with a list.

Also item vectors from anywhere, as a folder that such models begin from.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config
from ssl_audio.data.sequences import Items
from ssl_audio.inference.model import Model, check_finite
from ssl_audio.storage import exported, written

Lists = Sequence[Sequence[Any]]  # of ids
BATCH = 128  # lists that are embedded together


class SequenceModel(Model):
    """A trained model of lists; `load` returns it.

    ```
    model = ssl_audio.load("runs/playlists")
    vectors = model.embed(lists)                                # lists of ids → [n, D]
    model.recommend(["id 1", "id 2"], lists, vectors, count=10) # ids of items that go with them
    ```
    """

    @functools.cached_property
    def entry(self) -> Items:
        """The entry of a batch that knows the items."""
        return config.build(written.entry(self.config, "items"), "data", path="data.entries.items")

    @property
    def items(self) -> tuple[str, ...]:
        """The ids of the items, in the order of their vectors."""
        return self.entry.known

    @property
    def item_vectors(self) -> np.ndarray:
        """The items' own vectors [V, D]."""
        return np.asarray(self.params["items"]["table"])

    @property
    def rate(self) -> int:
        """Of no meaning: there is no sound."""
        return int(self.config.get("data", {}).get("rate", 16_000))

    def blank(self) -> dict[str, Any]:
        """Return a batch of one list, as long as in training."""
        return {
            "items": np.zeros((1, self.entry.length), np.int32),
            "items_length": np.full(1, self.entry.length, np.int32),
        }

    def embed(self, lists: Lists) -> np.ndarray:
        """Return a vector for each list of ids [n, D]; a list's never depends on the others.

        Raises:
          ValueError: no list, an empty one, an id that is not known (where the model refuses those).
        """
        numbers = self.numbers(lists)
        vectors: list[np.ndarray] = [np.zeros(0, np.float32)] * len(numbers)
        # By length, so that few programs are compiled: each for the next power of two.
        order = sorted(range(len(numbers)), key=lambda i: len(numbers[i]))
        for first in range(0, len(order), BATCH):
            some = order[first : first + BATCH]
            longest = max(len(numbers[i]) for i in some)
            items = np.zeros((BATCH, 1 << (longest - 1).bit_length()), np.int32)
            length = np.ones(BATCH, np.int32)
            for row, i in enumerate(some):
                items[row, : len(numbers[i])] = numbers[i]
                length[row] = len(numbers[i])
            batch = {"items": jnp.asarray(items), "items_length": jnp.asarray(length)}
            found = np.asarray(self._embed(self._on_device, self._extra_on_device, batch))
            for row, i in enumerate(some):
                vectors[i] = found[row]
        stacked = np.stack(vectors).astype(np.float32)
        check_finite(stacked)
        return stacked

    def numbers(self, lists: Lists) -> list[np.ndarray]:
        """Return the numbers of each list's items, whole lists; see `embed`."""
        if isinstance(lists, str) or not len(lists):
            raise ValueError(f"lists: got {lists!r}, wanted at least one list of ids.")
        for i, one in enumerate(lists):
            if isinstance(one, str) or not len(one):
                raise ValueError(f"lists: number {i} is {one!r}, wanted a list of ids.")
        return [self.entry.numbers(one, f"list {i}") for i, one in enumerate(lists)]

    def recommend(
        self,
        items: Sequence[Any],
        lists: Lists,
        vectors: np.ndarray | None = None,
        *,
        count: int = 10,
        neighbours: int = 20,
    ) -> list[tuple[str, float]]:
        """Return the items, with scores, that the lists most like these items have and they lack.

        Args:
          items: ids.
          lists: that recommendations are taken from.
          vectors: of those lists, where they are known: `embed` of them.
          count: how many at most.
          neighbours: how many lists.
        """
        known = self.embed(lists) if vectors is None else vectors
        return recommended(self.embed([items])[0], items, known, lists, count, neighbours)

    @functools.cached_property
    def _embed(self) -> Any:
        return jax.jit(self.objective.predictors()["embed_items"])


def recommended(
    vector: np.ndarray,
    items: Sequence[Any],
    vectors: np.ndarray,
    lists: Lists,
    count: int,
    neighbours: int,
) -> list[tuple[str, float]]:
    """Return what `SequenceModel.recommend` does, for the vector [D] of any model or baseline.

    An item's score is the sum of the cosines of the nearest lists that have it.
    """
    cosine = _unit(vectors) @ _unit(vector[None])[0]
    scores: dict[str, float] = {}
    own = set(items)
    for i in np.argsort(-cosine, kind="stable")[:neighbours]:
        for name in dict.fromkeys(lists[i]):
            if name not in own:
                scores[name] = scores.get(name, 0.0) + max(0.0, float(cosine[i]))
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:count]


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def mean(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean [n, D] of each list's item vectors [N, D]: the baseline without an order."""
    return np.stack([some.mean(0) for some in vectors])


class Sif:
    """Means weighted by rarity, less their common direction (Arora et al. 2017, "A simple but tough-to-beat
    baseline for sentence embeddings").

    Args:
      table: of item vectors [V, D].
      lists: numbers of the items of each list, which frequencies and the direction are of.
      a: an item counts a / (a + its frequency).
    """

    def __init__(self, table: np.ndarray, lists: Sequence[np.ndarray], a: float = 1e-3):
        counts = np.bincount(np.concatenate(lists), minlength=len(table))
        self._table = table * (a / (a + counts / counts.sum()))[:, None]
        _, _, directions = np.linalg.svd(mean([self._table[one] for one in lists]), False)
        self._common = directions[0]

    def __call__(self, lists: Sequence[np.ndarray]) -> np.ndarray:
        """Return the vector of each list [n, D]."""
        x = mean([self._table[one] for one in lists])
        return x - np.outer(x @ self._common, self._common)


def write_items(
    folder: str | pathlib.Path, ids: Sequence[str], vectors: np.ndarray, *, whiten: bool = True
) -> pathlib.Path:
    """Write item vectors of any model as a folder that `playlists:items=FOLDER` begins from.

    Args:
      folder: to write.
      ids: of the items.
      vectors: [V, D], as `embed` of any encoder gives them.
      whiten: bring every value to mean 0 and deviation 1 over the items, and the vectors to length near 1, so
        that the recurrent layers can read them; False: as they are.

    Raises:
      ValueError: another number of ids, an id twice, values that are not finite.
    """
    vectors = np.asarray(vectors, np.float32)
    names = tuple(str(one) for one in ids)
    if vectors.ndim != 2 or len(vectors) != len(names) or len(set(names)) != len(names):
        raise ValueError(
            f"write_items: got {len(names)} ids ({len(set(names))} different) and vectors {vectors.shape}; "
            "wanted a vector [D] for each, and no id twice."
        )
    if not np.isfinite(vectors).all():
        raise ValueError("write_items: NaN or infinite values among the vectors.")
    if whiten:
        deviation = np.maximum(vectors.std(0), 1e-6)
        vectors = (vectors - vectors.mean(0)) / deviation / np.sqrt(vectors.shape[1])
    items = dict(kind="lookup", count=len(names), width=vectors.shape[1])
    options: Mapping[str, Any] = dict(
        objective=dict(kind="skip_gram", items=items),
        data=dict(entries=dict(items=dict(kind="sequences:Items", names=list(names)))),
    )
    table = {"table": vectors}
    params = {"items": table, "context": {"table": np.zeros_like(vectors)}}
    return exported.write(folder, params, options)
