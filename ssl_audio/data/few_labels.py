"""A few labelled clips of a collection, and the rest of it without labels, for semi-supervised learning.

Two sources with the same numbers and another `part` share no clip. Which clip belongs where depends on the
seed and the collection alone.
"""

import collections
import dataclasses
import functools
from dataclasses import dataclass

import numpy as np

from ssl_audio.data.clip_columns import Coded, Example, distinct
from ssl_audio.data.source import SourceInfo, coded_labels
from ssl_audio.slots import AnySource

PARTS = ("labelled", "unlabelled")


@dataclass(frozen=True)
class FewLabels:
    """One of the two parts of a source's clips: so many of each class, or all others without their labels.

    The clips of each class are shuffled once with the seed, and the first are labelled: a share of each
    class, at least one clip, or the same number of each. Clips that have no label are unlabelled. (Cances et
    al. 2022, arXiv:2102.08183, section 4.)

    Attributes:
      source: clips of one label each.
      part: "labelled" or "unlabelled".
      share: of each class that is labelled; 0: `per_class` says how many are.
      per_class: labelled clips of each class; 0: `share` says how many are.
      seed: of the choice.

    Raises ValueError on first use when a class has too few clips, when clips have several labels, or when
    no clip is left for the part.
    """

    source: AnySource
    part: str
    share: float = 0.0
    per_class: int = 0
    seed: int = 1234

    def __post_init__(self):
        if self.part not in PARTS:
            raise ValueError(f"part: got {self.part!r}, wanted {' or '.join(PARTS)}")
        if bool(self.share) == bool(self.per_class):
            raise ValueError(
                f"share, per_class: got {self.share:g} and {self.per_class}; wanted one of them, the other 0"
            )
        if not 0 <= self.share <= 1 or self.per_class < 0 or self.seed < 0:
            raise ValueError(
                f"share, per_class, seed: wanted 0 to 1, at least 0, at least 0; got {self.share:g}, "
                f"{self.per_class}, {self.seed}"
            )

    @property
    def rate(self) -> int | None:
        """Return the rate that the source was asked for, Hz; None: it has one of its own."""
        return getattr(self.source, "rate", None)

    @property
    def info(self) -> SourceInfo:
        """Return what the collection is; it names the classes in both parts."""
        return dataclasses.replace(self.source.info, name=f"{self.source.info.name}, {self.part}")

    def __len__(self) -> int:
        return len(self._rows)

    def meta(self, i: int) -> Example:
        """Return all of example `i` but its audio, and but its label in the unlabelled part."""
        return self._seen(self.source.meta(int(self._rows[i])))

    def __getitem__(self, i: int) -> Example:
        return self._seen(self.source[int(self._rows[i])])

    def open(self, i: int) -> Example:
        """Return example `i`; of long sound what is not decoded yet, where the source has it."""
        get = getattr(self.source, "open", self.source.__getitem__)
        return self._seen(get(int(self._rows[i])))

    def coded_labels(self) -> Coded:
        """Return the number of each clip's label [N], and the labels that they number; None: hidden."""
        if self.part == "unlabelled":
            return np.zeros(len(self), np.int64), [None]
        codes, values = coded_labels(self.source)
        values, codes = distinct(values[code] for code in codes[self._rows].tolist())
        return codes, values

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        """Return the rows of the source that are in this part, in their order."""
        where = self.source.info.name
        codes, values = coded_labels(self.source)
        if any(isinstance(value, tuple) for value in values):
            raise ValueError(
                f"{where}: clips have several labels each; wanted one, as each class gets as many"
            )
        of_class = collections.defaultdict(list)
        for row, code in enumerate(codes.tolist()):
            of_class[values[code]].append(row)
        of_class.pop(None, None)
        if not of_class:
            raise ValueError(f"{where}: no clip has a label; few_labels wants some of each class")
        labelled = np.zeros(len(codes), bool)
        for number, rows in sorted(of_class.items()):
            count = self.per_class or max(1, round(self.share * len(rows)))
            if count > len(rows):
                name = repr(self.source.info.labels[number]) if self.source.info.labels else number
                raise ValueError(
                    f"{where}: class {name} has {len(rows)} clips, wanted {count} labelled; lower per_class"
                )
            order = np.random.default_rng((self.seed, number)).permutation(len(rows))
            labelled[np.asarray(rows)[order[:count]]] = True
        found = np.flatnonzero(labelled if self.part == "labelled" else ~labelled)
        if not len(found):
            raise ValueError(
                f"{where}: all {len(codes)} clips are labelled, none is left; lower share or per_class"
            )
        return found

    def _seen(self, example: Example) -> Example:
        if self.part == "labelled":
            return example
        return {key: value for key, value in example.items() if key != "label"}
