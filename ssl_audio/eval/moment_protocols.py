"""Protocols on scenes with events at known times: found by a probe, or asked for in words.

Called by `tasks.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ssl_audio.data.annotations import Event
from ssl_audio.data.source import Source
from ssl_audio.eval import event_metrics
from ssl_audio.eval.listening import Absent, Listening
from ssl_audio.eval.probe import Probe
from ssl_audio.eval.protocols import Case, Outcome, Protocol, halves

TEMPLATES = ("This is a sound of {}.",)
# How scores along time become events: the best of these within the training recordings is taken.
SMOOTHS = (0.0, 0.25, 0.75)  # s, the median over so long
THRESHOLDS = (0.5, 0.35, 0.2)
EVENTS, SEGMENTS, PSDS = "event F1", "segment F1", "PSDS1"
DIGITS = 5  # of scores: rounding must not decide between equal ones


def listed(source: Source, clip: int, spacing: float, least: float) -> list[Event]:
    """Return the events of a scene, their edges rounded to moments of `spacing` s, one moment at least.

    What is shorter than `least` s, cut off by the scene's end, is no event.
    """
    names, example = source.info.labels, source[clip]
    most = max(1, round(len(example["audio"]) / example["rate"] / spacing))
    found = []
    for start, end, label in example["events"]:
        if end - start >= least:
            first = min(round(start / spacing), most - 1)
            stop = max(first + 1, min(round(end / spacing), most))
            found.append(Event(first * spacing, stop * spacing, names[label]))
    return found


def active(
    source: Source, clips: np.ndarray, moments: np.ndarray, spacing: float, least: float
) -> tuple[np.ndarray, dict[int, list[Event]]]:
    """Return float32 [n, C], 1 where an event lies, and the events of each scene; see `listed`.

    Args:
      source: of scenes with `events`.
      clips, moments: numbers of the scene and of the moment of each row.
      spacing, least: s.
    """
    y = np.zeros((len(clips), len(source.info.labels)), np.float32)
    events = {int(c): listed(source, int(c), spacing, least) for c in np.unique(clips)}
    for clip, some in events.items():
        for e in some:
            middle = (moments + 0.5) * spacing
            inside = (clips == clip) & (e.start < middle) & (middle < e.end)
            y[inside, source.info.labels.index(e.label)] = 1
    return y, events


@dataclasses.dataclass(frozen=True)
class Detection(Protocol):
    """Onset and offset of events in scenes, by logistic regression on features along time.

    The last third of the scenes is tested. How scores are smoothed, and from which on a class is heard, is
    chosen on a third of the others by a regression on the rest. Nothing found is an F1 of 0: chance.

    Attributes:
      report: "event F1" (onset within 200 ms, offset within that or 20 % of the length), "segment F1" (of
        1 s), both over all classes, or "PSDS1".
      spacing: of moments, s; the truth has its edges on them, too.
      least: see `listed`.
    """

    report: str = EVENTS
    spacing: float = 0.05
    least: float = 0.2

    needs = ("moments",)
    learns = True

    @property
    def metric(self) -> str:  # type: ignore[override]  # depends on what is reported
        """Return its name."""
        return self.report

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        try:
            event_metrics.check_packages()
        except RuntimeError as error:
            raise Absent(str(error)) from None
        clips, moments, x = listening.moments(source, self.spacing)
        y, events = active(source, clips, moments, self.spacing, self.least)
        known = dict(y=y, clips=clips, events=events, labels=source.info.labels)
        return Case({"moments": x}, {"moments": y}, known | dict(count=len(source)))

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        del seed
        clips, truth, labels = (case.truth[name] for name in ("clips", "events", "labels"))
        test = clips >= 2 * case.truth["count"] / 3
        tune = ~test & (clips % 3 == 0)
        if not (test.any() and tune.any() and any(truth[int(c)] for c in np.unique(clips[test]))):
            raise ValueError(
                f"{len(truth)} scenes, wanted at least 6, with events in the last third."
            )
        scores = self._scores(case, ~test & ~tune)
        best = max(
            ((s, t) for s in SMOOTHS for t in THRESHOLDS),
            key=lambda how: self._measured(scores, clips, tune, truth, labels, how).total.f1 or 0.0,
        )
        scores = self._scores(case, ~test)
        found = self._measured(scores, clips, test, truth, labels, best, psds=True)
        each = [
            self._measured(scores, clips, clips == c, truth, labels, best, psds=self.report == PSDS)
            for c in np.unique(clips[test])
        ]
        more = {EVENTS: found.total.f1, SEGMENTS: found.segment_f1, PSDS: found.psds["psds1"]}
        value = float(more.pop(self.report) or 0.0)
        more |= {"PSDS2": found.psds["psds2"], "smooth": best[0], "threshold": best[1]}
        total = found.segment_total if self.report == SEGMENTS else found.total
        count = total.right + total.missed
        return Outcome(value, 0.0, count, self._interval(each, value), more)

    def _interval(self, each: Sequence[event_metrics.Metrics], value: float) -> tuple[float, float]:
        """Return the 95 % interval, from halves of the scenes; of PSDS, from the scenes' own."""

        def score(rows: np.ndarray) -> float:
            some = [each[i] for i in rows]
            if self.report == PSDS:
                own = [m.psds["psds1"] for m in some if m.psds]
                return float(np.mean(own)) if own else 0.0
            counts = [m.total if self.report == EVENTS else m.segment_total for m in some]
            right, wrong, missed = (
                sum(getattr(c, n) for c in counts) for n in ("right", "wrong", "missed")
            )
            return 2 * right / max(1, 2 * right + wrong + missed)

        rows = np.arange(len(each))
        low, high = halves(score, rows, 0)
        apart = value - score(rows)  # of PSDS, whose whole is no mean of the scenes'
        return max(0.0, low + apart), min(1.0, high + apart)

    def _scores(self, case: Case, train: np.ndarray) -> np.ndarray:
        """Return probabilities [n, C], learned from the rows `train`."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1, "blas"):
            (logits,) = Probe(choices=(30.0,)).predict(
                case.vectors["moments"], case.truth["y"], train
            )
        return (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)

    def _measured(
        self,
        scores: np.ndarray,
        clips: np.ndarray,
        rows: np.ndarray,
        truth: Mapping[int, Sequence[Event]],
        labels: Sequence[str],
        how: tuple[float, float],
        *,
        psds: bool = False,
    ) -> event_metrics.Metrics:
        """Return how good the events in some rows' scores are; `how`: smoothing (s), threshold."""
        from ssl_audio.inference.events import Median, Rule, Rules, segments, ticks

        smooth, threshold = how
        rules = Rules.of([Rule(threshold, threshold)] * len(labels))
        pieces = 1 + 2 * round((smooth / self.spacing - 1) / 2) if smooth > self.spacing else 1
        found, along, lengths = {}, {}, {}
        for clip in np.unique(clips[rows]):
            values = scores[clips == clip]
            edges = np.arange(len(values) + 1) * self.spacing
            median = Median(pieces)
            parts = [median.add(ticks(edges), values)[1], median.finish()[1]]
            values = np.concatenate([part for part in parts if len(part)])
            name = str(clip)
            events = segments((ticks(edges), values), rules)
            found[name] = [Event(e.start, e.end, labels[e.label]) for e in events]
            along[name], lengths[name] = (edges, values), float(edges[-1])
        return event_metrics.measure(
            found,
            {name: truth[int(name)] for name in found},
            lengths,
            labels,
            along if psds else None,
        )


@dataclasses.dataclass(frozen=True)
class Grounding(Protocol):
    """When a sentence is heard in a scene, nothing learned: area under the ROC curve of the scene's moments.

    Mean over scenes and the sentences of the classes in them: how often a moment in which the class is heard
    scores higher than one in which it is not. "pointed": share whose highest moment is one of them.
    """

    templates: tuple[str, ...] = TEMPLATES
    spacing: float = 0.1

    metric = "AUROC"
    needs = ("moments in words",)

    @property
    def about(self) -> str:  # noqa: D102
        return " / ".join(self.templates)

    def case(self, source: Source, listening: Listening, seed: int) -> Case:  # noqa: D102
        labels = source.info.labels
        clips, moments, x, text = listening.grounded(source, labels, self.templates, self.spacing)
        y, _ = active(source, clips, moments, self.spacing, 0.0)
        ideal = {"moments": y, "sentences": np.eye(len(labels), dtype=np.float32)}
        return Case({"moments": x, "sentences": text}, ideal, dict(y=y, clips=clips))

    def score(self, case: Case, seed: int) -> Outcome:  # noqa: D102
        from sklearn.metrics import roc_auc_score

        y, clips = case.truth["y"], case.truth["clips"]
        scores = np.round(case.vectors["moments"] @ case.vectors["sentences"].T, DIGITS)
        areas, pointed, owner = [], [], []
        for clip in np.unique(clips):
            rows = clips == clip
            there = y[rows]
            for label in np.flatnonzero(there.any(axis=0) & ~there.all(axis=0)):
                own, heard = scores[rows, label], there[:, label]
                areas.append(roc_auc_score(heard, own))
                pointed.append(heard[own == own.max()].mean())
                owner.append(clip)
        if not areas:
            raise ValueError("no scene has a class that is heard in a part of it.")
        found = np.array(areas)
        value = float(found.mean())
        interval = halves(lambda rows: float(found[rows].mean()), np.array(owner), seed)
        return Outcome(value, 0.5, len(found), interval, dict(pointed=float(np.mean(pointed))))
