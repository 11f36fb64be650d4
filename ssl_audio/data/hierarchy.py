"""Which classes imply which: an ontology like AudioSet's, and labels without those that they imply.

Called by the readers in `sets/` whose classes have the identifiers of such an ontology (mids).
"""

import functools
import logging
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ssl_audio.storage import opened

log = logging.getLogger(__name__)

NAME = "ontology.json"
MODES = ("check", "add", "ignore")
_WANTED = "an ontology like AudioSet's: a list of objects with `id`, `name` and `child_ids`"
_NAMED = 5  # pairs of classes that a message names

Numbers = tuple[int, ...]


class Gap(NamedTuple):
    """A label without one that it implies."""

    child: str
    parent: str
    clips: int


@dataclass(frozen=True)
class Ontology:
    """Classes and their parents.

    Attributes:
      path: of the file.
      names: identifier → name.
      parents: identifier → identifiers of its parents; none: a root.
    """

    path: pathlib.Path
    names: Mapping[str, str]
    parents: Mapping[str, tuple[str, ...]]

    def ancestors(self, identifier: str) -> frozenset[str]:
        """Return the identifiers of the classes that a class certainly implies.

        A class with several parents is under one of them, and the ontology does not say which: a growl is
        a dog's or a cat's. It implies what all of them imply or are: an animal. One with a single parent
        implies that and all that it implies.
        """
        return self._known[identifier]

    @functools.cached_property
    def _known(self) -> dict[str, frozenset[str]]:
        known: dict[str, frozenset[str]] = {}
        waiting = list(self.names)
        while waiting:
            later = []
            for one in waiting:
                above = self.parents.get(one, ())
                if any(parent not in known for parent in above):
                    later.append(one)
                    continue
                sets = [known[parent] | {parent} for parent in above]
                known[one] = frozenset.intersection(*sets) if sets else frozenset()
            if len(later) == len(waiting):
                few = ", ".join(repr(self.names[one]) for one in later[:_NAMED])
                raise opened.error(self.path, f"a circle of classes above {few}", _WANTED)
            waiting = later
        return known

    def implied(self, identifiers: Sequence[str]) -> tuple[Numbers, ...]:
        """Return, for each class of a vocabulary, the numbers of those of its classes that it implies.

        Classes that the ontology does not know imply none. Others that it knows and the vocabulary does
        not are passed through: a grandparent is implied whether or not the parent is a class.

        Raises:
          ValueError: the ontology knows none of the identifiers.
        """
        number = {identifier: i for i, identifier in enumerate(identifiers)}
        if number and not number.keys() & self.names.keys():
            few = ", ".join(list(number)[:_NAMED])
            raise opened.error(
                self.path, f"none of the {len(number)} classes ({few}, …)", "their ontology"
            )
        return tuple(
            tuple(sorted(number[a] for a in self._known.get(one, ()) if a in number))
            for one in identifiers
        )


def read(path: str | pathlib.Path) -> Ontology:
    """Read an ontology in the form of AudioSet's `ontology.json` (github.com/audioset/ontology).

    Raises:
      ValueError: no such file, not such a table, a child that is nowhere, a class that is its own ancestor.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"{path}: no such file; wanted {_WANTED}.")
    found: Any = opened.json_file(path, _WANTED, list)
    names: dict[str, str] = {}
    parents: dict[str, tuple[str, ...]] = {}
    for row in found:
        fields = row if isinstance(row, dict) else {}
        one, name, children = (fields.get(key) for key in ("id", "name", "child_ids"))
        if not (isinstance(one, str) and isinstance(name, str) and isinstance(children, list)):
            raise opened.error(path, opened.short(row), _WANTED)
        if one in names:
            raise opened.error(path, f"{one!r} twice", _WANTED)
        names[one] = name
        for child in children:
            parents[child] = (*parents.get(child, ()), one)
    if lost := [child for child in parents if child not in names]:
        raise opened.error(path, f"a child {lost[0]!r} that is no class", _WANTED)
    made = Ontology(path, names, parents)
    _ = made._known
    return made


def find(given: str, folders: Sequence[pathlib.Path]) -> Ontology | None:
    """Return the ontology of a path, or with none the `ontology.json` of the first folder that has it."""
    if given:
        return read(given)
    there = (folder / NAME for folder in folders)
    path = next((path for path in there if path.is_file()), None)
    return None if path is None else read(path)


def gaps(
    labels: Mapping[Numbers, int], implied: Sequence[Numbers], names: Sequence[str]
) -> list[Gap]:
    """Return the labels without one that they imply, those of most clips first.

    Args:
      labels: a clip's labels → the number of clips that have them.
      implied: of each class, what it implies: see `Ontology.implied`.
      names: of the classes.
    """
    found: dict[tuple[int, int], int] = {}
    for label, clips in labels.items():
        for child in label:
            for parent in implied[child]:
                if parent not in label:
                    found[child, parent] = found.get((child, parent), 0) + clips
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return [Gap(names[child], names[parent], clips) for (child, parent), clips in ordered]


def completed(label: Numbers, implied: Sequence[Numbers]) -> Numbers:
    """Return sorted labels and all that they imply."""
    return tuple(sorted({*label, *(parent for child in label for parent in implied[child])}))


def tell(found: Sequence[Gap], clips: int, mode: str, where: str) -> None:
    """Log the gaps of a collection: how many clips have one, and the most frequent.

    Args:
      found: what `gaps` returns.
      clips: that have any.
      mode: "add" if they were filled.
      where: the table.
    """
    if not found:
        return
    pairs = ", ".join(f"{g.child} without {g.parent} ({g.clips})" for g in found[:_NAMED])
    more = f" and {len(found) - _NAMED} other pairs" if len(found) > _NAMED else ""
    log.warning(
        "%s: %d clips have labels without those that they imply: %s%s; %s",
        where, clips, pairs, more, "added" if mode == "add" else "parents='add' adds them",
    )  # fmt: skip
