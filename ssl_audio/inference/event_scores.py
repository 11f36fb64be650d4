"""A classifier on recordings of any length → events: by its frames where it has them, else by windows.

Called by `eval/events.py`. Recordings may come in pieces; little of one is held.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ssl_audio.inference.classifier import Classifier
from ssl_audio.inference.events import (
    TICKS,
    Median,
    Pieces,
    Rule,
    Rules,
    Segment,
    Segmenter,
    Timeline,
    ticks,
)
from ssl_audio.inference.windows import Clip

FRAMES = "frame_logits"  # the predictor that gives logits [B, columns, C]
SMOOTH = 0.5  # s; about as long as in the baselines of DCASE task 4
_TOGETHER = 256  # windows that are made events of together


@dataclasses.dataclass(frozen=True)
class Windows:
    """Windows of a recording that are classified one by one.

    Attributes:
      window: their length, s.
      hop: from one's begin to the next, s; up to a window, so that they leave nothing out.
      join: how scores of those that overlap become one: see `Timeline`.
    """

    window: float
    hop: float
    join: str = "mean"

    def __post_init__(self):
        if not 0 < self.hop <= self.window:
            raise ValueError(
                f"window, hop: got {self.window:g} s and {self.hop:g} s, wanted a hop above 0 and up to the "
                "window: else there is sound that no window hears."
            )
        Timeline(self.join)


class Heard:
    """What was found in one recording.

    Attributes:
      events: in the order of their starts, once the recording has ended.
      duration: of the recording, s.
      edges, values: the scores along time, edges in s [M + 1] and [M, C], if they were to be kept.
      finite: False: some scores were NaN or infinite, and the events mean nothing.
    """

    def __init__(self, rules: Rules, *, keep: bool):
        self._segmenter, self._keep = Segmenter(rules), keep
        self._pieces: list[Pieces] = []
        self.events: list[Segment] = []
        self.duration, self.finite = 0.0, True

    def add(self, edges: np.ndarray, values: np.ndarray) -> None:
        """Take the next scores along time."""
        self.events += self._segmenter.add(edges, values)
        if self._keep and len(values):
            self._pieces.append((edges, values))

    def finish(self, samples: int, rate: int) -> "Heard":
        """Say that there is no more, and how long the recording was."""
        self.events = sorted(
            [*self.events, *self._segmenter.finish()], key=lambda e: (e.start, e.label)
        )
        self.duration = samples / rate
        return self

    @property
    def edges(self) -> np.ndarray:
        """Edges of the scores, s [M + 1]."""
        return np.concatenate([self._pieces[0][0][:1], *(e[1:] for e, _ in self._pieces)]) / TICKS

    @property
    def values(self) -> np.ndarray:
        """The scores, [M, C]."""
        return np.concatenate([values for _, values in self._pieces])


def usual_windows(classifier: Classifier) -> Windows | None:
    """Return windows as long as the training clips, four to each length; None: the model has frames."""
    if FRAMES in classifier.offers:
        return None
    return Windows(classifier.window, classifier.window / 4)


def hear(
    classifier: Classifier,
    clips: Iterable[Clip],
    rules: Sequence[Rule],
    windows: Windows | None = None,
    *,
    smooth: float = SMOOTH,
    keep: bool = False,
) -> Iterator[tuple[int, Heard]]:
    """Yield (number, what was found) of each recording, as they end.

    Args:
      classifier: whose classes are meant.
      clips: float32 mono [S] at its rate, or the pieces of one.
      rules: of its classes.
      windows: None: the columns of its frame logits; where windows of the training length overlap, by
        half, their logits are averaged.
      smooth: s; frames' scores become the median over so long. 0: they stay.
      keep: keep the scores along time too.

    Raises:
      ValueError: no frame logits and no windows; `smooth` below 0.
    """
    samples: dict[int, int] = {}
    counted, of_classes = _counted(clips, samples), Rules.of(rules)
    found: dict[int, Heard] = {}
    if windows is None:

        def collect(number: int) -> _Columns:
            found[number] = Heard(of_classes, keep=keep)
            return _Columns(classifier, found[number], smooth, lambda: samples[number])

        stream = classifier.stream_predictor(FRAMES, counted, collect, pad=classifier.fill)
        for number, _ in stream:
            yield number, found.pop(number).finish(samples.pop(number), classifier.rate)
        return
    lines: dict[int, _Rows] = {}
    for number, row in classifier.rows_of(counted, window=windows.window, hop=windows.hop):
        if number not in lines:
            found[number] = Heard(of_classes, keep=keep)
            lines[number] = _Rows(classifier, found[number], Timeline(windows.join))
        lines[number].add(row)
        if row.last:
            lines.pop(number).finish()
            yield number, found.pop(number).finish(samples.pop(number), classifier.rate)


def events(
    classifier: Classifier,
    waveform: Any,
    sample_rate: int,
    rule: Rule | None = None,
    windows: Windows | None = None,
) -> list[Segment]:
    """Return the events in one waveform [S], of all classes by one rule.

    Args:
      classifier: see `hear`.
      waveform: mono audio [S], floating point in [-1, 1] or int16.
      sample_rate: of it, Hz.
      rule: None: `Rule()`.
      windows: None: the usual ones.

    Raises:
      ValueError: unusable audio; scores that are not finite.
    """
    windows = usual_windows(classifier) if windows is None else windows
    clips = classifier.clips([waveform], sample_rate)
    ((_, heard),) = hear(classifier, clips, [rule or Rule()] * classifier.classes, windows)
    if not heard.finite:
        raise ValueError("the model's scores are NaN or infinite.")
    return heard.events


def _counted(clips: Iterable[Clip], samples: dict[int, int]) -> Iterator[Clip]:
    """Yield clips; note in `samples` how much of each was taken so far."""

    def pieces(number: int, clip: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for piece in clip:
            samples[number] += len(piece)
            yield piece

    for number, clip in enumerate(clips):
        whole = isinstance(clip, np.ndarray)
        samples[number] = len(clip) if whole else 0
        yield clip if whole else pieces(number, clip)


class _Columns:
    """Turns logits of columns into scores along time; a `Collector`."""

    def __init__(self, classifier: Classifier, heard: Heard, smooth: float, samples: Any):
        self._classifier, self._heard, self._samples = classifier, heard, samples
        _, self._hop, self._centre = classifier.frame_grid
        if not 0 <= smooth < np.inf:
            raise ValueError(f"smooth: got {smooth:g}, wanted seconds, 0 or more.")
        columns = smooth * classifier.rate / self._hop
        self._median = Median(1 + 2 * max(0, round((columns - 1) / 2)))
        self._count = 0  # columns so far
        self._last: tuple[int, np.ndarray] | None = (
            None  # begin of the newest column, its scores [1, C]
        )

    def add(self, features: np.ndarray) -> None:
        """Take logits [1, T', C]."""
        logits = features[0]
        self._heard.finite = self._heard.finite and bool(np.isfinite(logits).all())
        values = self._classifier.probabilities(logits)
        # A column reaches halfway to the next; the first one back to the begin.
        begin = self._centre + (self._count + np.arange(len(values)) - 0.5) * self._hop
        begin[: max(0, 1 - self._count)] = 0
        self._count += len(values)
        inside = begin < self._samples()  # others are columns of padding
        edges, values = ticks(begin[inside] / self._classifier.rate), values[inside]
        if not len(values):
            return
        if self._last is not None:
            edges = np.concatenate([[self._last[0]], edges])
            values = np.concatenate([self._last[1], values])
        self._heard.add(*self._median.add(edges, values[:-1]))
        self._last = int(edges[-1]), values[-1:]

    def result(self) -> None:
        """Let the last column reach to the recording's end."""
        if self._last is not None:
            end = ticks(self._samples() / self._classifier.rate)
            edges = np.array([self._last[0], end])
            self._heard.add(*self._median.add(edges, self._last[1]))
        self._heard.add(*self._median.finish())


class _Rows:
    """Turns logits of windows into scores along time, many windows together."""

    def __init__(self, classifier: Classifier, heard: Heard, line: Timeline):
        self._classifier, self._heard, self._line = classifier, heard, line
        self._rows: list[Any] = []

    def add(self, row: Any) -> None:
        """Take the next window."""
        self._rows.append(row)
        if len(self._rows) == _TOGETHER:
            self._flush()

    def finish(self) -> None:
        """Take no more."""
        self._flush()
        self._heard.add(*self._line.finish())

    def _flush(self) -> None:
        if not self._rows:
            return
        logits = np.stack([row.logits for row in self._rows])
        self._heard.finite = self._heard.finite and bool(np.isfinite(logits).all())
        starts, ends = ([row[i] for row in self._rows] for i in (0, 1))
        self._heard.add(*self._line.add(starts, ends, self._classifier.probabilities(logits)))
        self._rows = []
