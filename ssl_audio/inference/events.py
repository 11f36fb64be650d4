"""From scores along time to events with onset and offset: `Timeline`, then `Segmenter`.

Both take a recording piece by piece and hold little of it. Times are whole microseconds inside, shorter
than any sample, so comparisons of lengths are exact. Called by `eval/events.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

TICKS = 1_000_000  # in a second
JOINS = ("mean", "nearest")  # how scores of overlapping windows become one

Pieces = tuple[np.ndarray, np.ndarray]  # edges in ticks [M + 1], and the scores between them [M, C]


class Segment(NamedTuple):
    """A stretch in which a class is heard."""

    label: int  # number of the class
    start: float  # s
    end: float  # s
    score: float  # the highest inside


@dataclasses.dataclass(frozen=True)
class Rule:
    """When a class's scores are an event.

    Attributes:
      threshold: which an event's scores must reach somewhere.
      low: which they must reach everywhere; None: half of `threshold`.
      min_length: s; shorter events are left out.
      min_gap: s; events with a shorter gap between them are one. This comes before `min_length`.
    """

    threshold: float = 0.5
    low: float | None = None
    min_length: float = 0.0
    min_gap: float = 0.0

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not 0 <= value < np.inf:
                raise ValueError(f"{name.replace('_', '-')}: got {value:g}, wanted 0 or more.")
        if self.low is not None and self.low > self.threshold:
            raise ValueError(
                f"low: got {self.low:g}, wanted at most the threshold, {self.threshold:g}."
            )


@dataclasses.dataclass(frozen=True)
class Rules:
    """The rules of all classes, side by side: each attribute is [C], times in ticks."""

    threshold: np.ndarray
    low: np.ndarray
    min_length: np.ndarray
    min_gap: np.ndarray

    @classmethod
    def of(cls, rules: Sequence[Rule]) -> "Rules":
        """Return those of classes in the order of their numbers."""
        return cls(
            np.array([r.threshold for r in rules], np.float64),
            np.array([r.threshold / 2 if r.low is None else r.low for r in rules], np.float64),
            ticks([r.min_length for r in rules]),
            ticks([r.min_gap for r in rules]),
        )


def rules(labels: Sequence[str], usual: Rule, own: Mapping[str, Mapping[str, Any]]) -> list[Rule]:
    """Return the rule of each class: the usual one with its own settings.

    Raises:
      ValueError: a setting of a class that there is not, or one that cannot be.
    """
    if unknown := [name for name in own if name not in labels]:
        raise ValueError(
            f"class {unknown[0]!r}: the model has no such class; it has {', '.join(labels)}."
        )
    found = []
    for name in labels:
        try:
            found.append(dataclasses.replace(usual, **own.get(name, {})))
        except ValueError as error:
            raise ValueError(f"class {name!r}: {error}") from None
    return found


def ticks(seconds: Any) -> np.ndarray:
    """Return times as whole microseconds."""
    return np.rint(np.asarray(seconds, np.float64) * TICKS).astype(np.int64)


class Timeline:
    """Scores of windows, which may overlap, as scores that hold from one edge to the next.

    "mean": at each moment the mean of all windows that cover it; NaN where none does. "nearest": that of
    the window whose centre is nearest, which ends halfway to the next centre: as sharp as the hop is short.
    """

    def __init__(self, join: str = "mean"):
        if join not in JOINS:
            raise ValueError(f"join: got {join!r}, wanted one of {', '.join(JOINS)}.")
        self._join = join
        self._starts = self._ends = np.zeros(0, np.int64)
        self._values = np.zeros((0, 0), np.float32)
        self._now: int | None = None  # up to where the scores were handed on

    def add(self, starts: Any, ends: Any, values: np.ndarray) -> Pieces:
        """Take the next windows; return what no later window can change.

        Args:
          starts: s [N], in order, none before those of earlier calls.
          ends: s [N], likewise.
          values: scores [N, C].
        """
        begin, stop = ticks(starts), ticks(ends)
        if not len(begin):
            return self._none(values.shape[-1])
        self._values = np.concatenate([self._values.reshape(-1, values.shape[-1]), values])
        self._starts = np.concatenate([self._starts, begin])
        self._ends = np.concatenate([self._ends, stop])
        if (np.diff(self._starts) < 0).any() or (np.diff(self._ends) < 0).any():
            raise ValueError("windows: wanted starts and ends in order.")
        if (self._starts >= self._ends).any():
            raise ValueError("windows: wanted each to end after its start.")
        return self._until(int(self._starts[-1]), last=False)

    def finish(self) -> Pieces:
        """Return the rest."""
        if not len(self._starts):
            return self._none(self._values.shape[-1])
        return self._until(int(self._ends[-1]), last=True)

    def _none(self, classes: int) -> Pieces:
        return np.zeros(1, np.int64), np.zeros((0, classes), np.float32)

    def _until(self, stop: int, *, last: bool) -> Pieces:
        starts, ends, values = self._starts, self._ends, self._values
        now = int(starts[0]) if self._now is None else self._now
        if self._join == "nearest":
            centres = starts + ends
            between = (centres[:-1] + centres[1:]) // 4
            edges = np.concatenate([[now], between, [stop] if last else []]).astype(np.int64)
            found = values if last else values[:-1]
            kept = len(starts) - 1
        else:
            edges = np.unique(np.concatenate([starts, ends, [now, stop]]))
            edges = edges[(edges >= now) & (edges <= stop)]
            found = self._means(edges)
            kept = int(np.searchsorted(ends, stop, "right"))
        self._now = int(edges[-1])
        self._starts, self._ends, self._values = starts[kept:], ends[kept:], values[kept:]
        return edges, found

    def _means(self, edges: np.ndarray) -> np.ndarray:
        """Return the mean of the windows over each piece between edges; NaN: there is none."""
        # Starts and ends are in order, so the windows over a piece stand one after the other.
        first = np.searchsorted(self._ends, edges[:-1], "right")
        stop = np.searchsorted(self._starts, edges[:-1], "right")
        count = np.maximum(stop - first, 0)
        total = np.zeros((len(edges) - 1, self._values.shape[1]), np.float64)
        for k in range(int(count.max(initial=0))):
            some = count > k
            total[some] += self._values[first[some] + k]
        with np.errstate(invalid="ignore"):
            return np.where(count[:, None] > 0, total / count[:, None], np.nan).astype(np.float32)


class Median:
    """Replaces each score by the median of those around it in time: steps stay, what is short goes.

    Args:
      pieces: how many, an odd number; beyond the ends lie the scores mirrored.
    """

    def __init__(self, pieces: int):
        if pieces < 1 or pieces % 2 == 0:
            raise ValueError(f"median: got {pieces} pieces, wanted an odd number.")
        self._half = pieces // 2
        self._edges = np.zeros(0, np.int64)  # of the pieces that were not handed on
        self._values = np.zeros((0, 0), np.float32)  # theirs, and of `half` pieces before them
        self._before = 0  # how many of those there are

    def add(self, edges: np.ndarray, values: np.ndarray) -> Pieces:
        """Take the next pieces, of equal lengths; return those that are certain."""
        if len(values):
            self._edges = np.concatenate([self._edges[:-1], edges])
            self._values = np.concatenate([self._values.reshape(-1, values.shape[1]), values])
        return self._next(len(self._values) - self._before - self._half)

    def finish(self) -> Pieces:
        """Return the rest."""
        return self._next(len(self._values) - self._before)

    def _next(self, count: int) -> Pieces:
        if count <= 0:
            return np.zeros(1, np.int64), self._values[:0]
        size, first = len(self._values), self._before
        at = np.arange(first - self._half, first + count + self._half) % (2 * size)
        around = self._values[np.where(at < size, at, 2 * size - 1 - at)]
        wide = np.lib.stride_tricks.sliding_window_view(around, 2 * self._half + 1, axis=0)
        found = self._edges[: count + 1], np.median(wide, axis=-1).astype(np.float32)
        drop = max(0, first + count - self._half)
        self._edges, self._values = self._edges[count:], self._values[drop:]
        self._before = first + count - drop
        return found


class Segmenter:
    """Scores along time → events: hysteresis, then gaps that are closed, then events too short left out.

    An event is a longest stretch whose scores are all at least `low` and somewhere at least `threshold`.
    A moment without a score belongs to none. The events do not depend on how the scores are divided into
    pieces.
    """

    def __init__(self, rules: Rules):
        self._rules = rules
        self._now = np.iinfo(np.int64).min
        # Stretches above `low` whose event may still grow: class, start, end, highest score.
        self._open = _Runs.none()

    def add(self, edges: np.ndarray, values: np.ndarray) -> list[Segment]:
        """Take the next pieces; return the events that nothing later can change.

        Args:
          edges: ticks [M + 1], rising, from where the last ones ended or later.
          values: scores [M, C].
        """
        if not len(values):
            return []
        if edges[0] < self._now or (np.diff(edges) <= 0).any():
            raise ValueError("scores along time: wanted edges that rise.")
        self._open = self._open.with_more(_runs(edges, values, self._rules.low))
        self._now = int(edges[-1])
        return self._settle(final=False)

    def finish(self) -> list[Segment]:
        """Return the other events."""
        return self._settle(final=True)

    def _settle(self, *, final: bool) -> list[Segment]:
        rules, runs = self._rules, self._open
        going_on = (runs.end == self._now) & (not final)
        heard = runs.peak >= rules.threshold[runs.label]
        runs, going_on = runs[heard | going_on], going_on[heard | going_on]
        unsure = runs.peak < rules.threshold[runs.label]  # it goes on, and may get louder
        events = runs[~unsure].closed(rules.min_gap)
        # Where the next event of a class can begin at the earliest.
        earliest = np.full(len(rules.low), self._now)
        earliest[runs.label[unsure]] = runs.start[unsure]
        done = events.end + rules.min_gap[events.label] <= earliest[events.label]
        done &= events.end < self._now
        done |= final
        self._open = events[~done].with_more(runs[unsure])
        events = events[done]
        events = events[events.end - events.start >= rules.min_length[events.label]]
        found = zip(*(column.tolist() for column in dataclasses.astuple(events)), strict=True)
        return [Segment(label, a / TICKS, b / TICKS, peak) for label, a, b, peak in found]


@dataclasses.dataclass(frozen=True)
class _Runs:
    """Stretches, by class and then start; each attribute is [n]."""

    label: np.ndarray
    start: np.ndarray  # ticks
    end: np.ndarray
    peak: np.ndarray

    @classmethod
    def none(cls) -> "_Runs":
        whole = np.zeros(0, np.int64)
        return cls(whole, whole, whole, np.zeros(0, np.float64))

    def __getitem__(self, which: np.ndarray) -> "_Runs":
        return _Runs(*(getattr(self, f.name)[which] for f in dataclasses.fields(self)))

    def with_more(self, other: "_Runs") -> "_Runs":
        """Return both, those that touch as one."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        both = _Runs(*map(np.concatenate, pairs))
        return both[np.lexsort((both.start, both.label))].closed(None)

    def closed(self, gap: np.ndarray | None) -> "_Runs":
        """Return them with gaps shorter than those of the classes [C] closed; None: only of no length."""
        if not len(self.label):
            return self
        between = self.start[1:] - self.end[:-1]
        apart = between > 0 if gap is None else between >= gap[self.label[1:]]
        first = np.concatenate([[True], (self.label[1:] != self.label[:-1]) | apart])
        at = np.flatnonzero(first)
        last = np.concatenate([at[1:], [len(first)]]) - 1
        return _Runs(
            self.label[at], self.start[at], self.end[last], np.maximum.reduceat(self.peak, at)
        )


def _runs(edges: np.ndarray, values: np.ndarray, low: np.ndarray) -> _Runs:
    """Return the longest stretches of each class in which its scores are at least `low`."""
    on = np.zeros((values.shape[1], len(values) + 2), np.int8)
    on[:, 1:-1] = (values >= low).T  # not so for NaN
    change = np.diff(on, axis=1)
    label, first = np.nonzero(change == 1)
    stop = np.nonzero(change == -1)[1]
    if not len(label):
        return _Runs.none()
    # Every second part between these bounds is a stretch; a value more, as one may end with the last.
    flat = np.append(np.ascontiguousarray(values.T, np.float64), 0.0)
    bounds = np.stack([label * len(values) + first, label * len(values) + stop], 1).ravel()
    return _Runs(label, edges[first], edges[stop], np.maximum.reduceat(flat, bounds)[::2])


def segments(pieces: Pieces, rules: Rules) -> list[Segment]:
    """Return the events in the scores of a whole recording, in the order of their starts."""
    segmenter = Segmenter(rules)
    found = [*segmenter.add(*pieces), *segmenter.finish()]
    return sorted(found, key=lambda segment: (segment.start, segment.label))
