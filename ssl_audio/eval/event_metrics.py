"""How well events were found: event-based F1 with a collar, segment-based F1 and PSDS, by sed_scores_eval.

That library refuses classes without an event in the truth. They are told apart here: their false alarms
count in the micro average and are said, and no class mean has a 0 or a 1 for them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio.data.annotated import united
from ssl_audio.data.annotations import Event, needs

WHAT = "event metrics"
COLLAR = 0.2  # s
OFFSET_SHARE = (
    0.2  # of an event's length, by which its offset may be off if that is more than the collar
)
SEGMENT = 1.0  # s; of segment-based F1 (Mesaros et al. 2016, "Metrics for Polyphonic SED")
# Scenarios of DCASE 2021 to 2023, task 4: quick reaction, and telling classes apart.
PSDS = {
    "psds1": dict(dtc_threshold=0.7, gtc_threshold=0.7, alpha_st=1.0, max_efpr=100.0),
    "psds2": dict(
        dtc_threshold=0.1, gtc_threshold=0.1, cttc_threshold=0.3, alpha_ct=0.5, alpha_st=1.0,
        max_efpr=100.0,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Counts:
    """What became of the events, or of the segments, of a class."""

    right: int
    wrong: int  # found, but not in the truth
    missed: int

    @property
    def f1(self) -> float | None:
        """F1; None: there is no event of the class in the truth."""
        events = self.right + self.missed
        return 2 * self.right / (2 * self.right + self.wrong + self.missed) if events else None


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Scores of events against the truth.

    Attributes:
      counts: by class, of those that occur in the truth or were found.
      psds: by scenario, over the classes that occur; empty: no scores along time were given.
      classes: number of the model's classes.
      collar: s.
      segments: as `counts`, of segments of 1 s; a class is active in those that an event of it touches.
    """

    counts: Mapping[str, Counts]
    psds: Mapping[str, float]
    classes: int
    collar: float
    segments: Mapping[str, Counts]

    @property
    def occurring(self) -> list[str]:
        """The classes with an event in the truth."""
        return [name for name, c in self.counts.items() if c.right + c.missed]

    @property
    def total(self) -> Counts:
        """The sums over all classes, those that do not occur included."""
        return _total(self.counts)

    @property
    def macro_f1(self) -> float | None:
        """Mean F1 of the classes that occur."""
        return _mean(self.counts)

    @property
    def segment_total(self) -> Counts:
        """The sums of segments over all classes."""
        return _total(self.segments)

    @property
    def segment_f1(self) -> float | None:
        """F1 over the segments of all classes."""
        return self.segment_total.f1

    @property
    def segment_macro_f1(self) -> float | None:
        """Mean segment-based F1 of the classes that occur."""
        return _mean(self.segments)

    def as_dict(self) -> dict[str, Any]:
        """Return all as plain numbers, for JSON."""
        total = self.total
        return dict(
            f1_micro=total.f1, f1_macro=self.macro_f1, collar=self.collar, **dataclasses.asdict(total),
            f1_segment_micro=self.segment_f1, f1_segment_macro=self.segment_macro_f1, segment=SEGMENT,
            **self.psds, classes=self.classes, classes_in_truth=len(self.occurring),
            per_class={
                n: {**dataclasses.asdict(c), "f1": c.f1, "f1_segment": self.segments[n].f1}
                for n, c in self.counts.items()
            },
        )  # fmt: skip

    def lines(self) -> list[str]:
        """Return what is said to people."""
        there, total = self.occurring, self.total
        absent = {n: c.wrong for n, c in self.counts.items() if n not in there}
        lines = [
            f"events against the truth, onsets within {self.collar * 1000:g} ms, offsets within that or "
            f"{OFFSET_SHARE:.0%} of the length:",
            f"  F1 {_said(total.f1)} over all events, {_said(self.macro_f1)} as mean of the "
            f"{len(there)} of {self.classes} classes that occur",
            f"  {total.right} right, {total.wrong} false alarms, {total.missed} missed",
        ]
        lines.append(
            f"  segments of {SEGMENT:g} s: F1 {_said(self.segment_f1)} over all, "
            f"{_said(self.segment_macro_f1)} as mean of the classes that occur"
        )
        if self.psds:
            said = ", ".join(f"{k.upper()} {v:.3f}" for k, v in self.psds.items())
            lines.append(f"  {said}, over the same {len(there)} classes")
        if absent:
            some = ", ".join(f"{n} {k}" for n, k in absent.items())
            lines.append(
                f"  false alarms of classes that do not occur, in no class mean and no PSDS: {some}"
            )
        wide = max(map(len, there), default=0)
        for name in there:
            c = self.counts[name]
            errors = f"right {c.right}, false alarms {c.wrong}, missed {c.missed}"
            lines.append(f"  {name:{wide}}  F1 {_said(c.f1)}  {errors}")
        return lines


def _total(counts: Mapping[str, Counts]) -> Counts:
    some = [dataclasses.astuple(one) for one in counts.values()]
    return Counts(*map(sum, zip(*some, strict=True))) if some else Counts(0, 0, 0)


def _mean(counts: Mapping[str, Counts]) -> float | None:
    found = [f1 for one in counts.values() if (f1 := one.f1) is not None]
    return float(np.mean(found)) if found else None


def _said(value: float | None) -> str:
    return "not defined (no event in the truth)" if value is None else f"{value:.3f}"


def measure(
    found: Mapping[str, Sequence[Event]],
    truth: Mapping[str, Sequence[Event]],
    durations: Mapping[str, float],
    labels: Sequence[str],
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    *,
    collar: float = COLLAR,
) -> Metrics:
    """Compare events of the same recordings.

    Args:
      found: recording → events that were found.
      truth: recording → events that there are. In both, those of a class that overlap or touch are one.
      durations: of the recordings, s.
      labels: names of the classes, in the order of their numbers.
      scores: recording → edges, s [M + 1], and scores [M, C] along time, for PSDS; None: no PSDS.
      collar: s.

    Raises:
      ValueError: other recordings in `truth` than in `found`; a class that is not among `labels`.
      RuntimeError: the extra `events` is not installed.
    """
    if found.keys() != truth.keys() or not found:
        raise ValueError(
            f"metrics: {len(found)} recordings and the truth of {len(truth)}: wanted the same."
        )
    for file, events in truth.items():
        if other := [e.label for e in events if e.label not in labels]:
            raise ValueError(
                f"{file}: the truth has class {other[0]!r}, which is none of the model's: "
                f"{', '.join(labels)}."
            )
    check_packages()
    truth = {file: _united(events, labels) for file, events in truth.items()}
    found = {file: _united(events, labels) for file, events in found.items()}
    there = [n for n in labels if any(e.label == n for events in truth.values() for e in events)]
    alarms = {n: sum(e.label == n for events in found.values() for e in events) for n in labels}
    counts = {n: Counts(0, k, 0) for n, k in alarms.items() if k and n not in there}
    segments = {n: Counts(0, _touched(found, n), 0) for n in counts}
    psds = {}
    if there:
        # Names of classes that cannot be mistaken for another column.
        number = {name: str(k) for k, name in enumerate(there)}
        known = {
            file: [(e.start, e.end, number[e.label]) for e in events]
            for file, events in truth.items()
        }
        lengths = {
            file: max([durations[file], *(e.end for e in (*found[file], *truth[file]))])
            for file in found
        }
        tables = {file: _active(found[file], lengths[file], number) for file in found}
        counts = _counts(tables, known, number, collar) | counts
        segments = _segments(tables, known, lengths, number) | segments
        if scores is not None:
            which = [labels.index(name) for name in there]
            psds = _psds(scores, known, lengths, which)
    by = ({n: some[n] for n in labels if n in some} for some in (counts, segments))
    of_events, of_segments = by
    return Metrics(of_events, psds, len(labels), collar, of_segments)


def _united(events: Sequence[Event], labels: Sequence[str]) -> list[Event]:
    """Return the events, those of a class that overlap or touch as one."""
    number = {name: k for k, name in enumerate(labels)}
    spans = united([(e.start, e.end, number[e.label]) for e in events])
    return [Event(start, end, labels[k]) for start, end, k in spans]


def _active(events: Sequence[Event], length: float, number: Mapping[str, str]) -> Any:
    """Return the library's table of a recording's events: a 1 from onset to offset of a class, else 0."""
    some = [e for e in events if e.label in number]
    edges = np.unique([0.0, length, *(t for e in some for t in (e.start, e.end))])
    on = np.zeros((len(edges) - 1, len(number)))
    for e in some:
        first, stop = np.searchsorted(edges, (e.start, e.end))
        on[first:stop, int(number[e.label])] = 1
    return _table(edges, on)


def _counts(tables, known, number, collar) -> dict[str, Counts]:
    collar_based = needs("sed_scores_eval.collar_based", WHAT)
    *_, stats = collar_based.fscore(
        tables, known, 0.5, onset_collar=collar, offset_collar=collar,
        offset_collar_rate=OFFSET_SHARE,
    )  # fmt: skip
    return _of_classes(stats, number)


def _segments(tables, known, lengths, number) -> dict[str, Counts]:
    segment_based = needs("sed_scores_eval.segment_based", WHAT)
    *_, stats = segment_based.fscore(tables, known, lengths, 0.5, segment_length=SEGMENT)
    return _of_classes(stats, number)


def _touched(found: Mapping[str, Sequence[Event]], label: str) -> int:
    """Return in how many segments a class was found."""
    count = 0
    for events in found.values():
        count += len({
            k
            for e in events
            if e.label == label
            for k in range(int(e.start / SEGMENT), int(np.ceil(e.end / SEGMENT)))
        })  # fmt: skip
    return count


def _of_classes(stats: Mapping[str, Any], number: Mapping[str, str]) -> dict[str, Counts]:
    """Return the library's numbers by class."""
    counts = {}
    for name, key in number.items():
        right, wrong, events = (int(stats[key][n]) for n in ("tps", "fps", "n_ref"))
        counts[name] = Counts(right, wrong, events - right)
    return counts


def _psds(scores, known, lengths, which) -> dict[str, float]:
    intersection_based = needs("sed_scores_eval.intersection_based", WHAT)
    tables = {
        file: _table(edges, np.nan_to_num(values[:, which].astype(np.float64)))
        for file, (edges, values) in scores.items()
    }
    found = {}
    for name, options in PSDS.items():
        if len(which) == 1:  # no other class to be mistaken for, which the library stumbles over
            options = {k: v for k, v in options.items() if k not in ("cttc_threshold", "alpha_ct")}
        found[name] = float(intersection_based.psds(tables, known, lengths, **options)[0])
    return found


def _table(edges: np.ndarray, values: np.ndarray) -> Any:
    scores = needs("sed_scores_eval.base_modules.scores", WHAT)
    return scores.create_score_dataframe(values, edges, list(map(str, range(values.shape[1]))))


def check_packages() -> None:
    """Raise RuntimeError unless what measures events is installed."""
    pandas = needs("pandas", WHAT)
    needs("sed_scores_eval", WHAT)
    if int(pandas.__version__.split(".")[0]) >= 3:
        raise RuntimeError(
            f"event metrics: sed_scores_eval fails with pandas {pandas.__version__}; it works with 2: "
            "pip install 'ssl_audio[events]'."
        )
