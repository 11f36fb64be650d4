"""Recordings whose events people have marked, as a source to train from; see `annotations.py`."""

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data import annotations, event_tables
from ssl_audio.data.clips import Clip
from ssl_audio.data.decode import stated_seconds
from ssl_audio.data.source import Example, Files, SourceInfo

log = logging.getLogger(__name__)

Spans = tuple[tuple[float, float, int], ...]  # start, end (s), number of the class


@dataclass(frozen=True)
class Recordings(Files):
    """The recordings of a table, or of a folder with a file of annotations beside each.

    Whatever is not marked in them counts as heard and found without event. An example has `events`, a
    tuple of (start, end, class) in seconds from its begin, and as `label` the classes in it.

    Raises ValueError on first use, naming file and line, when something cannot be understood.
    """

    path: str
    rate: int = 16_000  # Hz
    seconds: float = 0.0  # long recordings are taken in stretches of so many; 0: whole
    labels: tuple[str, ...] = ()  # names in the order of their numbers; default: sorted
    column: str = annotations.COLUMN  # of Raven tables with the labels
    name: str = ""
    channels: str = "average"  # or "first", "loudest"
    split: str = ""  # keep this split only, which a table says in a column

    def __post_init__(self):
        if not 0 <= self.seconds < math.inf:
            raise ValueError(f"Recordings.seconds: wanted 0 or more, got {self.seconds}")

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        clips = [clip for clip, _ in self._stretches]
        info = SourceInfo(self.name or "recordings", self._labels, multilabel=True)
        return info, clips

    def meta(self, i: int) -> Example:  # noqa: D102
        return {**super().meta(i), "events": self._stretches[i][1]}

    @functools.cached_property
    def _annotated(self) -> annotations.Annotated:
        return event_tables.read(self.path, self.column)

    @functools.cached_property
    def _labels(self) -> tuple[str, ...]:
        there = annotations.labels(self._annotated)
        labels = self.labels or there
        if other := [name for name in there if name not in labels]:
            raise ValueError(f"{self.path}: label {other[0]!r} is not one of {', '.join(labels)}")
        if not labels:
            raise ValueError(f"{self.path}: no events in {len(self._annotated)} recordings.")
        return labels

    @functools.cached_property
    def _stretches(self) -> list[tuple[Clip, Spans]]:
        number = {name: i for i, name in enumerate(self._labels)}
        found, late, far = [], 0, ""
        splits = annotations.splits(self.path)
        kept = {p: e for p, e in self._annotated.items() if self.split in ("", splits.get(p))}
        if not kept:
            there = ", ".join(sorted(set(splits.values()))) or "none"
            raise ValueError(
                f"{self.path}: no recording has split={self.split!r}; there are {there}"
            )
        for path, events in sorted(kept.items()):
            spans = united([(e.start, e.end, number[e.label]) for e in events])
            count, whole = 1, math.inf
            if self.seconds:
                whole = stated_seconds(path)
                # What is left at the end and shorter than half of one goes with the last.
                count = max(1, math.floor(whole / self.seconds + 0.5))
            behind = [e.start for e in events if e.start >= whole]
            if behind and not late:
                far = f"{path}: {behind[0]:g} s, of {whole:.3f} s"
            late += len(behind)
            for k in range(count):
                start = k * self.seconds
                end = whole if k == count - 1 else start + self.seconds
                inside = tuple(
                    (max(a, start) - start, min(b, end) - start, c)
                    for a, b, c in spans
                    if a < end and b > start
                )
                id = path if count == 1 else f"{path}#{start:g}"
                label = tuple(sorted({c for *_, c in inside}))
                stop = None if k == count - 1 else end
                known = Clip(path, id, label, split=splits.get(path), start=start, end=stop)
                found.append((known, inside))
        total = sum(map(len, kept.values()))
        if late:
            said = (
                f"{self.path}: {late} of {total} events begin behind their recording's end ({far})"
            )
            if late == total:
                raise ValueError(f"{said}; wanted seconds from its begin.")
            log.warning("%s, and are left out; are these seconds?", said)
        return found


def united(spans: Sequence[tuple[float, float, int]]) -> Spans:
    """Return spans (start, end, class) with those of one class that overlap or touch as one, in order."""
    found: list[tuple[float, float, int]] = []
    for start, end, label in sorted(spans, key=lambda span: (span[2], span[0])):
        if found and found[-1][2] == label and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]), label)
        else:
            found.append((start, end, label))
    return tuple(sorted(found))
