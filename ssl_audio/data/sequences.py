"""Sequences of ids, as playlists: a table of them, synthetic ones, and the entry `Items` of a batch.

An item has no sound here: its vector is learned from the lists, or is any embedding of its sound.
"""

import collections
import functools
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ssl_audio.data import names as spelling
from ssl_audio.data import tables
from ssl_audio.data.containers import DecodeError
from ssl_audio.data.entries import Arrays, Entry, Shape
from ssl_audio.data.source import Example, SourceInfo
from ssl_audio.storage import opened

UNKNOWN = ("refuse", "skip")
CROPS = ("random", "first")


@dataclass(frozen=True)
class Sequences:
    """The lists of a table (CSV, TSV, JSON lines), in order; their examples have an empty sound.

    Columns: `items` (ids separated by ";", or a list in JSON), or `item`, with one row for each item and
    the list's `id` in it; `id`, `label`, `split` and `weight` where known.

    Attributes:
      path: of the table.
      split: keep this split only.
      labels: names in the order of their numbers; none: those there are, sorted.
      rate: of no meaning; it has to be that of `data.rate`.

    Raises ValueError on first use, naming file and line, when a row cannot be understood.
    """

    path: str
    split: str = ""
    labels: tuple[str, ...] = ()
    rate: int = 16_000

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is."""
        return SourceInfo(pathlib.Path(self.path).stem, self._read[1])

    def __len__(self) -> int:
        return len(self._read[0])

    def meta(self, i: int) -> Example:
        """Return all of list `i`."""
        return self._read[0][i]

    def __getitem__(self, i: int) -> Example:
        return {**self.meta(i), "audio": np.zeros(0, np.float32)}

    @functools.cached_property
    def _read(self) -> tuple[list[Example], tuple[str, ...]]:
        found: dict[str, dict] = {}
        path = pathlib.Path(self.path).expanduser()
        for row in tables.read(path):
            if "items" in row:
                given = spelling.text(row.get("id"))
                key, items = given or f"{path.stem}-{len(found):06d}", _items(row)
                if str(key) in found:
                    raise ValueError(f"{row.where}: id: {key!r} is that of an earlier list too")
            else:
                key, items = row["id"], [_name(row["item"], row.where, "item")]
            said = spelling.text(row.get("label"))
            known = found.setdefault(
                str(key),
                dict(rate=self.rate, id=str(key), items=[], said=said)
                | ({"split": str(row["split"])} if row.get("split") else {})
                | ({"weight": weight} if (weight := _weight(row)) is not None else {}),
            )
            known["items"] += items
            known["said"] = known["said"] or said
            if said not in ("", known["said"]):
                wanted = f"{known['said']!r}, as of the list's other rows"
                raise opened.error(f"{row.where}: label", repr(said), wanted)
        kept = [one for one in found.values() if self.split in ("", one.get("split", ""))]
        if not kept:
            splits = sorted({one.get("split", "") or "none" for one in found.values()})
            raise ValueError(
                f"{path}: no list has split={self.split!r}; there are {', '.join(splits)}"
            )
        there = {one["said"] for one in found.values() if one["said"]}
        names = self.labels or tuple(sorted(there))
        if other := sorted(there - set(names)):
            raise ValueError(f"{path}: label {other[0]!r} is not among labels={names}")
        for one in kept:
            label = one.pop("said")
            one |= {"label": names.index(label)} if label else {}
            one["items"] = tuple(one["items"])
        return kept, names


def _weight(row: tables.Row) -> float | None:
    return row.number("weight", float) if "weight" in row else None


def _items(row: tables.Row) -> list[str]:
    given = row["items"]
    some = given.split(";") if isinstance(given, str) else given
    if not isinstance(some, (list, tuple)):
        raise opened.error(f"{row.where}: items", repr(given), "ids separated by ';', or a list")
    found = [_name(one, row.where, "items") for one in some if str(one).strip()]
    if not found:
        raise opened.error(f"{row.where}: items", "none", "at least one id")
    return found


def _name(given: object, where: str, column: str) -> str:
    if isinstance(given, bool) or not isinstance(given, (str, int)) or not str(given).strip():
        raise opened.error(f"{where}: {column}", repr(given), "an id")
    return str(given).strip()


def vocabulary(lists: Sequence[Sequence[str]], least: int = 1) -> tuple[str, ...]:
    """Return the ids that occur at least so often, the most frequent first, equals in the order of names."""
    counts = collections.Counter(name for one in lists for name in one)
    kept = [name for name, count in counts.items() if count >= least]
    return tuple(sorted(kept, key=lambda name: (-counts[name], name)))


@dataclass(frozen=True)
class Chains:
    """Synthetic lists: every genre prefers items of its own, and an order of them.

    A list begins with the first item of its genre's circle, by chance `opens`, or with any of its genre. The
    next one is the successor of the item before in the circle, by chance `follow`; or else any item of the
    genre, or, by chance `stray`, of all genres.

    Attributes:
      size: how many lists; they depend on their number and `seed` alone.
      items: of all genres together; circles depend on `world` alone, so that other lists are like these.
      genres: of equal size; they take turns.
      shortest, longest: items of a list.
      follow, stray, opens: see above.
      seed, world: of the lists, and of the circles.
      rate: of no meaning.
    """

    size: int = 600
    items: int = 60
    genres: int = 6
    shortest: int = 10
    longest: int = 20
    follow: float = 0.8
    stray: float = 0.1
    opens: float = 0.9
    seed: int = 0
    world: int = 0
    rate: int = 16_000

    def __post_init__(self):
        if not 1 <= self.genres <= self.items or self.items % self.genres:
            raise ValueError(
                f"items {self.items}, genres {self.genres}: wanted as many of each genre, at least one"
            )
        if not 1 <= self.shortest <= self.longest or self.size < 1:
            raise ValueError(
                f"size, shortest, longest: wanted at least 1, and the shortest first; got {self.size}, "
                f"{self.shortest}, {self.longest}"
            )
        chances = (self.follow, self.stray, self.follow + self.stray, self.opens)
        if not all(0 <= chance <= 1 for chance in chances):
            raise ValueError(
                f"follow, stray, their sum, opens: wanted chances, 0 to 1; got {chances}"
            )

    @property
    def info(self) -> SourceInfo:
        """Return the names of the genres."""
        names = tuple(f"genre-{g}" for g in range(self.genres))
        return SourceInfo("chains", names, licence="CC0 1.0")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the ids of all items."""
        return tuple(f"item-{n:04d}" for n in range(self.items))

    def __len__(self) -> int:
        return self.size

    def meta(self, i: int) -> Example:
        """Return all of list `i`."""
        rng = np.random.default_rng((self.seed, 1, i))
        genre = i % self.genres
        count = int(rng.integers(self.shortest, self.longest + 1))
        chances = dict(follow=self.follow, stray=self.stray, opens=self.opens)
        numbers = chain(self._circles, genre, count, rng=rng, **chances)
        return {
            "rate": self.rate,
            "id": f"chain-{self.seed}-{i:06d}",
            "label": genre,
            "items": tuple(self.names[n] for n in numbers),
        }

    def __getitem__(self, i: int) -> Example:
        return {**self.meta(i), "audio": np.zeros(0, np.float32)}

    @functools.cached_property
    def _circles(self) -> np.ndarray:
        order = np.random.default_rng((self.world, 0)).permutation(self.items)
        return order.reshape(self.genres, -1)


def chain(
    circles: np.ndarray,
    genre: int,
    count: int,
    *,
    rng: np.random.Generator,
    follow: float,
    stray: float,
    opens: float,
) -> list[int]:
    """Return so many items of a Markov chain; see `Chains`.

    Args:
      circles: the items of each genre, in its order [genres, n]; an item may be in several.
      genre: whose.
      count: how many.
      rng: source of randomness.
      follow, stray: chances of the successor, and of any item of all.
      opens: chance that it begins with the first item.
    """
    own = circles[genre]
    place = 0 if rng.random() < opens else int(rng.integers(len(own)))
    found = [int(own[place])]
    while len(found) < count:
        chance = rng.random()
        if chance < stray:
            found.append(int(circles.ravel()[rng.integers(circles.size)]))
            continue
        last = np.flatnonzero(own == found[-1])
        if chance < stray + follow and len(last):
            found.append(int(own[(last[0] + 1) % len(own)]))
        else:
            found.append(int(own[rng.integers(len(own))]))
    return found


@dataclass(frozen=True)
class Items(Entry):
    """`items` int32 [length], the numbers of a list's ids, then zeros; `items_length` int32.

    Attributes:
      length: most items of a list.
      names: the ids that are known, in the order of their numbers.
      file: in place of `names`: of text, an id in each line.
      crop: which part of a longer list: "random" or "first".
      unknown: what becomes of other ids: "refuse", or "skip": they are left out.
    """

    length: int = 64
    names: tuple[str, ...] = ()
    file: str = ""
    crop: str = "random"
    unknown: str = "refuse"

    def __post_init__(self):
        for name, allowed in (("crop", CROPS), ("unknown", UNKNOWN)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wanted one of {allowed}")
        if self.length < 1:
            raise ValueError(f"length: wanted at least 1, got {self.length}")
        if bool(self.names) == bool(self.file):
            raise ValueError("names, file: wanted one of them, the ids in order")

    def spec(self) -> Mapping[str, tuple[Shape, np.dtype]]:  # noqa: D102
        whole = np.dtype(np.int32)
        return {"items": ((self.length,), whole), "items_length": ((), whole)}

    def draw(self, example: Example, rng: np.random.Generator) -> Arrays:  # noqa: D102
        if "items" not in example:
            raise ValueError(f"clip {example['id']}: no list of items; the source has none")
        numbers = self.numbers(example["items"], f"list {example['id']}")
        spare = max(0, len(numbers) - self.length)
        start = int(rng.integers(spare + 1)) if self.crop == "random" else 0
        numbers = numbers[start : start + self.length]
        found = np.zeros(self.length, np.int32)
        found[: len(numbers)] = numbers
        return {"items": found, "items_length": np.int32(len(numbers))}

    def numbers(self, items: Sequence[str], where: str) -> np.ndarray:
        """Return the numbers of ids.

        Raises:
          ValueError: an id is not known, and `unknown` is "refuse".
          DecodeError: none is known.
        """
        other = [name for name in items if name not in self._number]
        if other and self.unknown == "refuse":
            raise ValueError(
                f"{where}: item {other[0]!r} is not among the {len(self._number)} that are known (and "
                f"{len(other) - 1} others); unknown='skip' leaves them out"
            )
        found = [self._number[name] for name in items if name in self._number]
        if not found:
            raise DecodeError(f"{where}: none of its {len(items)} items is known")
        return np.array(found, np.int32)

    @functools.cached_property
    def known(self) -> tuple[str, ...]:
        """Return all ids, in the order of their numbers.

        Raises:
          ValueError: there is no such file, or an id is there twice.
        """
        if self.names:
            found = tuple(self.names)
        else:
            path = pathlib.Path(self.file).expanduser()
            if not path.is_file():
                raise ValueError(f"file: no such file: {path}; wanted text, an id in each line")
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            found = tuple(line.strip() for line in lines if line.strip())
        twice = [name for name, count in collections.Counter(found).items() if count > 1]
        if twice:
            raise ValueError(f"{self.file or 'names'}: id {twice[0]!r} is there twice")
        return found

    @functools.cached_property
    def _number(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.known)}
