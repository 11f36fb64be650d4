"""Clips cut into patches that overlap, each with its clip's labels: a source made of another.

Training then sees long clips as often as they have patches; `eval/classify.py` averages those of a clip.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.clip_columns import CELLS, CODED, Builder, cell, span
from ssl_audio.data.decode import DecodeError, stated_seconds
from ssl_audio.data.prefetch import in_order
from ssl_audio.data.source import Clip, Clips, Files, SourceInfo
from ssl_audio.slots import AnySource

THREADS = 8  # that look at the headers of files
ROUNDING = 1e-6  # s


@dataclass(frozen=True)
class Patches(Files):
    """Excerpts of `seconds` of the clips of a source, one every `hop` seconds; the last ends with its clip.

    A clip that is not longer is one patch, all of it: `entries.audio.fill` lengthens it. So are clips that
    cannot be read, so that training tells of them. The headers of all files are read on first use.

    Attributes:
      source: of plain files: a folder, a manifest, one of `sets/`.
      seconds: of a patch.
      hop: seconds from one patch to the next.
    """

    source: AnySource
    seconds: float = 1.0
    hop: float = 0.5

    def __post_init__(self):
        if not 0 < self.hop <= self.seconds:
            raise ValueError(
                f"hop, seconds: wanted more than 0, and no gaps; got {self.hop:g} and {self.seconds:g}"
            )

    @property
    def rate(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the rate of the source, Hz."""
        return self.source.rate

    @property
    def channels(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return how the source makes one channel of several."""
        return getattr(self.source, "channels", "average")

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        if not isinstance(self.source, Files):
            raise ValueError(
                f"Patches.source: got {type(self.source).__name__}, wanted one of plain files; take others "
                "apart with `ssl-audio prepare --seconds`, or draw crops: entries.audio.crop='random'."
            )
        clips = Clips.of(self.source.clips)
        length = functools.partial(_seconds, clips)
        lengths = np.array(list(in_order(length, len(clips), THREADS, 8 * THREADS)))
        spare = np.maximum(0, np.nan_to_num(lengths) - self.seconds)
        counts = 1 + np.ceil(np.maximum(0, spare - ROUNDING) / self.hop).astype(int)
        rows = np.repeat(np.arange(len(clips)), counts)  # the clip of each patch
        number = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        offset = np.minimum(number * self.hop, spare[rows])
        starts = np.nan_to_num(clips.columns.number("start"))[rows] + offset
        stop = np.where(counts > 1, np.nan, clips.columns.number("end"))[rows]  # of whole clips
        ends = np.where(counts[rows] > 1, starts + self.seconds, stop)
        ids = np.where(counts[rows] > 1, starts, np.nan)
        info = dataclasses.replace(
            self.source.info, name=f"{self.source.info.name}, patches of {self.seconds:g} s"
        )
        return info, _cut(clips, rows, ids, starts, ends)


def _seconds(clips: Clips, i: int) -> float:
    """Return the length of a clip as its file states it; NaN: it cannot be read."""
    clip = clips[i]
    try:
        return (stated_seconds(clip.path) if clip.end is None else clip.end) - clip.start
    except DecodeError:
        return float("nan")


def _cut(
    clips: Clips, rows: np.ndarray, told: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> Clips:
    """Return excerpts of clips, in columns.

    Args:
      clips: of which they are excerpts.
      rows: the number of the clip of each.
      told: the second that its id tells; NaN: it has that of its clip.
      starts: first second of each in its file.
      ends: last second; NaN: the file's end.
    """
    made, values, known = Builder(), {}, clips.columns
    names = [clip.id for clip in clips]
    none = float("nan")
    spans = [span(start, none) for start in told.tolist()]
    made.cells("id", [names[row] + text for row, text in zip(rows.tolist(), spans, strict=True)])
    for name in CELLS:
        if name != "id":
            texts: Any = known.texts(name)
            made.cells(name, [texts[row] for row in rows.tolist()])
    for name in CODED:
        codes, given = known.coded(name)
        made.codes(name, codes[rows])
        values[name] = list(map(cell, given))
    made.numbers("weight", known.number("weight")[rows])
    made.numbers("start", starts)
    made.numbers("end", ends)
    made.end(len(rows))
    return Clips(made.finish(values), clips.root)
