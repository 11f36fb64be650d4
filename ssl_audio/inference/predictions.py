"""From the rows that are asked for to a table of their classes: for `Classifier.predict` and the verb.

A table has the columns of the input, with windows `start` and `end`, what is predicted, and `error`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ssl_audio.data.reading import reading
from ssl_audio.data.source import Clip
from ssl_audio.inference import inputs
from ssl_audio.inference.inputs import END, START, Asked, Table

HALF = 0.5  # from this probability on a class counts, where several may and nothing else is said
JOINED = ";"  # between labels of one cell, as manifests have it

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """The logits of a segment."""

    start: float  # s
    end: float  # s
    logits: np.ndarray  # [C], not calibrated
    last: bool  # of its clip


class Scorer(Protocol):
    """What a table needs of a `Classifier`, which says what each of these means."""

    labels: Any  # names of the classes

    @property
    def calibration(self) -> Any: ...  # noqa: D102
    @property
    def several(self) -> bool: ...  # noqa: D102
    @property
    def classes(self) -> Any: ...  # noqa: D102
    @property
    def rate(self) -> int: ...  # noqa: D102
    def check_rows(self, window: float | None, hop: float | None, pad: str | None) -> Any: ...  # noqa: D102
    def clips(self, waveforms: Any, sample_rate: int | None) -> list[np.ndarray]: ...  # noqa: D102
    def probabilities(self, logits: np.ndarray) -> np.ndarray: ...  # noqa: D102
    def rows_of(  # noqa: D102
        self, clips: Any, *, window: float | None, hop: float | None, pad: str | None
    ) -> Iterator[tuple[int, Row]]: ...


class Options(NamedTuple):
    """How clips become rows of a table; see `Classifier.predict`."""

    window: float | None = None
    hop: float | None = None
    pad: str | None = None
    top: int | None = None
    threshold: float | None = None

    def check(self, classifier: Scorer) -> None:
        """Raise ValueError where an option has no meaning for a classifier."""
        classifier.check_rows(self.window, self.hop, self.pad)
        if self.top is not None and not 1 <= self.top <= classifier.classes:
            raise ValueError(
                f"top: got {self.top}, wanted 1 to {classifier.classes}, the number of classes."
            )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: got {self.threshold}, wanted a probability, from 0 to 1.")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The columns of the table.

    Attributes:
      classifier: whose classes they are.
      options: how clips become rows.
      given: names of the columns of the input.
    """

    classifier: Scorer
    options: Options
    given: tuple[str, ...]

    @functools.cached_property
    def carried(self) -> list[str]:
        """The columns that are taken over: windows have bounds of their own."""
        bounds = (START, END) if self.options.window else ()
        return [name for name in self.given if name not in bounds]

    @functools.cached_property
    def names(self) -> list[str]:
        """What the columns that are not taken over are called: as in `_values`, or with "_" behind it."""
        ours = ["predicted"] if self.classifier.several else ["predicted", "score"]
        if self.options.top:
            places = range(1, self.options.top + 1)
            ours += [f"{what}_{n}" for n in places for what in ("label", "score")]
        else:
            ours += self.classifier.labels
        bounds = [START, END] if self.options.window else []
        used = set(self.carried) | set(bounds)
        found = []
        for name in (*ours, "error"):
            written = name
            while written in used:
                written += "_"
            if written != name:
                log.warning("column %r is there already: the model's is called %r", name, written)
            used.add(written)
            found.append(written)
        return bounds + found

    def columns(
        self, starts: np.ndarray, ends: np.ndarray, logits: np.ndarray, errors: Sequence[str]
    ) -> dict[str, Any]:
        """Return the columns that are not taken over, of n rows.

        Args:
          starts, ends: in the file, s [n].
          logits: [n, C]; NaN in rows with an error.
          errors: [n]; "": none.
        """
        bounds = [starts, ends] if self.options.window else []
        ours = self._values(self.classifier.probabilities(logits), [not e for e in errors])
        return dict(zip(self.names, [*bounds, *ours, list(errors)], strict=True))

    def _values(self, values: np.ndarray, good: Sequence[bool]) -> list[Any]:
        names = self.classifier.labels
        labels = np.array([*names, ""], dtype=object)
        order = np.argsort(-values, axis=1, kind="stable")
        given, several = self.options.threshold, self.classifier.several
        enough = values >= (self._thresholds if several else given or 0.0)
        best = np.take_along_axis(values, order[:, :1], 1)[:, 0]
        if several:
            rows = zip(order.tolist(), enough, strict=True)
            found: list[Any] = [[JOINED.join(names[c] for c in row if yes[c]) for row, yes in rows]]
        else:
            first = np.where(np.take_along_axis(enough, order[:, :1], 1)[:, 0], order[:, 0], -1)
            found = [labels[first].tolist(), best]
        if not self.options.top:
            return [*found, *values.T]
        for place in range(self.options.top):
            chosen = order[:, place : place + 1]
            score = np.take_along_axis(values, chosen, 1)[:, 0]
            kept = np.array(good) & ~(score < (given or 0.0))
            found.append(labels[np.where(kept, chosen[:, 0], -1)].tolist())
            found.append(np.where(kept, score, np.float32(np.nan)))
        return found

    @property
    def _thresholds(self) -> np.ndarray:
        calibration = self.classifier.calibration
        fitted = calibration.thresholds if calibration else ()
        if self.options.threshold is not None or not fitted:
            given = HALF if self.options.threshold is None else self.options.threshold
            return np.full((1, self.classifier.classes), given)
        return np.asarray(fitted)[None]


def stream(
    classifier: Scorer,
    source: Asked,
    numbers: Sequence[int],
    bad: dict[str, str],
    options: Options,
    *,
    total: int,
    quiet: bool = False,
) -> Iterator[tuple[int, Row]]:
    """Yield (number, row of its logits) of some rows of a table, as batches fill up.

    What is in `bad` at the end has no rows: those that came before it broke off count for nothing.

    Args:
      classifier: that hears them.
      source: of the table's sound.
      numbers: of the rows that are wanted.
      bad: filled with the keys of rows that cannot be read, and why.
      options: window, hop and pad.
      total: rows that there are for a progress bar.
      quiet: show none.
    """
    read: list[int] = []
    clips = reading(
        source, read, bad=bad, max_bad_share=1.0, numbers=numbers, total=total, quiet=quiet
    )
    window, hop, pad = options[:3]
    for number, row in classifier.rows_of(clips, window=window, hop=hop, pad=pad):
        key = source.table.keys[read[number]]
        if key not in bad and not np.isfinite(row.logits).all():
            bad[key] = f"{key}: its scores are not finite"
            log.warning("skipped %s", bad[key])
        if key not in bad:
            yield read[number], row


def predict(
    classifier: Scorer, given: Any, sample_rate: Any, options: Options, channels: str
) -> Any:
    """Return the table of `Classifier.predict`."""
    options.check(classifier)
    if (table := inputs.files_in(given)) is None:
        single = not isinstance(given, (list, tuple)) and np.ndim(given) == 1
        clips = classifier.clips([given] if single else given, sample_rate)
        known = {} if single else {"clip": range(len(clips))}
        table = Table(known, [Clip("", str(i)) for i in range(len(clips))], {})
        found, bad = enumerate_rows(classifier, clips, options), {}
    else:
        inputs.check_rate(sample_rate)
        bad = {}
        first = dict(reversed([(key, i) for i, key in enumerate(table.keys)]))
        source = Asked(table, classifier.rate, channels)
        wanted = sorted(first.values())
        found = stream(classifier, source, wanted, bad, options, total=len(wanted), quiet=True)
    rows: dict[str, list[Row]] = {}
    for number, row in found:
        rows.setdefault(table.keys[number], []).append(row)
    segments = Segments(classifier.classes)
    for i, key in enumerate(table.keys):
        if key in bad:
            segments.fail(i, bad[key])
        else:
            begin = table.clips[i].start
            for row in rows[key]:
                segments.add(i, begin + row.start, begin + row.end, row.logits)
    layout = Layout(classifier, options, tuple(table.columns))
    return _made(layout, table.columns, segments, given if inputs.is_frame(given) else None)


def enumerate_rows(
    classifier: Scorer, clips: Sequence[np.ndarray], options: Options
) -> Iterator[tuple[int, Row]]:
    """Yield (number, row) of waveforms.

    Raises:
      ValueError: scores that are not finite.
    """
    window, hop, pad = options[:3]
    for number, row in classifier.rows_of(clips, window=window, hop=hop, pad=pad):
        if not np.isfinite(row.logits).all():
            raise ValueError(f"clip {number}: the model's scores are NaN or infinite.")
        yield number, row


class Segments:
    """Rows of the table that are written together: where each is, and its logits.

    Attributes:
      numbers: of the rows that were asked for, one for each segment.
      errors: why a segment has no logits; "": it has.
    """

    def __init__(self, classes: int):
        self._classes = classes
        self.numbers: list[int] = []
        self.errors: list[str] = []
        self._bounds: list[tuple[float, float]] = []
        self._logits: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.numbers)

    def add(
        self, number: int, start: float, end: float, logits: np.ndarray, error: str = ""
    ) -> None:
        """Take the segment from `start` to `end` (s) of a row."""
        self.numbers.append(number)
        self.errors.append(error)
        self._bounds.append((start, end))
        self._logits.append(logits)

    def fail(self, number: int, error: str) -> None:
        """Take a row that could not be read."""
        nothing = np.full(self._classes, np.nan, np.float32)
        self.add(number, np.nan, np.nan, nothing, error)

    def columns(self, layout: Layout) -> dict[str, Any]:
        """Return the columns that are not taken over from the input."""
        starts, ends = np.array(self._bounds, np.float64).T
        return layout.columns(starts, ends, np.stack(self._logits), self.errors)


def _made(
    layout: Layout, given: Mapping[str, Sequence[Any]], segments: Segments, frame: Any
) -> Any:
    """Return a DataFrame, or a list of dictionaries where pandas is not installed."""
    ours = segments.columns(layout)
    some = segments.numbers
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        both = {name: [given[name][i] for i in some] for name in layout.carried} | ours
        return [dict(zip(both, row, strict=True)) for row in zip(*both.values(), strict=True)]
    if frame is None:
        carried = pandas.DataFrame(
            {name: [given[name][i] for i in some] for name in layout.carried}
        )
        index = None
    else:
        keep = [str(name) in layout.carried for name in frame.columns]
        carried = frame.loc[:, keep].iloc[some].reset_index(drop=True)
        index = frame.index.take(some)
    # At once: hundreds of columns that are inserted one by one fall into hundreds of blocks.
    found = pandas.concat([carried, pandas.DataFrame(ours)], axis=1)
    return found if index is None else found.set_axis(index, axis=0)
