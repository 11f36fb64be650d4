"""A trained classifier in use: waveforms in, probabilities of classes out, per clip or per window.

`load` returns a `Classifier` for models that offer "encode" and "logits".
"""

import dataclasses
import functools
import logging
import math
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ssl_audio.data import transforms
from ssl_audio.inference import calibration, predictions
from ssl_audio.inference.averages import AVERAGES, averaged
from ssl_audio.inference.calibration import Calibration
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.model import check_finite, silence
from ssl_audio.inference.pooling import PADS
from ssl_audio.inference.predictions import Row
from ssl_audio.inference.windows import Clip, Window, batches, but_little, cover
from ssl_audio.storage import written

log = logging.getLogger(__name__)


class Scores(NamedTuple):
    """Probabilities of the classes in N segments of a clip.

    Attributes:
      starts, ends: of the segments, s [N].
      values: probabilities [N, C].
    """

    starts: np.ndarray
    ends: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Classifier(Encoder):
    """A trained classifier, and the encoder in it.

    A clip ends as when training was evaluated: it is padded with silence to the length of the training
    clips, or said again up to there where short training clips were. A published model that takes clips of
    any length is given no padding, as `Encoder` says. Longer clips are covered by windows of that length,
    half a window apart; see `average`.

    The same clip gives the same bits, whichever other clips are classified with it.

    Attributes:
      calibration: what is done to logits first; None: nothing.
    """

    calibration: Calibration | None = dataclasses.field(default=None, kw_only=True)

    def with_files(self, folder: pathlib.Path, step: int | str | None) -> "Classifier":
        """Return the classifier with the calibration in its folder, if there is one for this step.

        Raises:
          ValueError: the calibration is damaged, or of another number of classes.
        """
        if (found := calibration.fitted(folder, step)) is None:
            return self
        found.check(self.classes, f"{folder}/{calibration.NAME}")
        return dataclasses.replace(self, calibration=found)

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, in their order; their numbers where the names are not known.

        Raises:
          ValueError: there are not as many names as classes.
        """
        if not (names := written.labels(self.config)):
            log.warning(
                "%s: the names of its classes are not known: they are called 0 to %d",
                self.origin or self._name, self.classes - 1,
            )  # fmt: skip
            return tuple(map(str, range(self.classes)))
        if len(names) != self.classes:
            raise ValueError(
                f"{self.origin}: config.data.entries.label.names: got {len(names)} names, wanted one for "
                f"each of the model's {self.classes} classes."
            )
        return names

    @property
    def several(self) -> bool:
        """Tell whether a clip may have several labels: then each class has a probability of its own."""
        return getattr(self.objective, "criterion", "softmax") != "softmax"

    @functools.cached_property
    def classes(self) -> int:
        """Number of classes, C.

        Raises:
          ValueError: the model's logits are not one row per clip.
        """
        logits = self.objective.predictors()["logits"]
        shape = jax.eval_shape(
            logits, self.params, self.extra, silence(self._heard(self._most))
        ).shape
        if len(shape) != 2:
            raise ValueError(f"{self._name}: logits: got {list(shape)}, wanted [clips, classes].")
        return shape[1]

    @property
    def fill(self) -> str:
        """How a clip's end is treated by default when it is classified: see `Encoder.pad`."""
        if "steps" in self.config:  # a run, whose evaluators filled clips up
            return "training"
        if said := self.config.get("inference", {}).get("pad"):
            return said
        if self.objective.frontend.frames is not None:
            return "training"
        # The pooling of a CNN drops what does not fill a column of its last map.
        return "none" if self._merged > 1 else self.pad

    @property
    def average(self) -> str:
        """What is averaged over the windows of a clip: "logits", or the probabilities "softmax" or "sigmoid".

        As `config.inference.average` says, which a config sets whose evaluator averages probabilities.

        Raises:
          ValueError: it says something else.
        """
        said = self.config.get("inference", {}).get("average") or AVERAGES[0]
        if said not in AVERAGES[:3]:
            raise ValueError(
                f"config.inference.average: got {said!r}, wanted one of {', '.join(AVERAGES[:3])}."
            )
        return said

    def scores(
        self,
        waveform: Any,
        sample_rate: int,
        *,
        window: float | None = None,
        hop: float | None = None,
        pad: str | None = None,
    ) -> Scores:
        """Return the probabilities of the classes in one clip [S], or in each window of it.

        Args:
          waveform: mono audio, floating point in [-1, 1] or int16.
          sample_rate: of the waveform, Hz.
          window: length of the windows, s; the last one may be shorter. None: one row for the whole clip.
          hop: from one window's begin to the next, s; None: the windows follow one another.
          pad: what becomes of the end of a clip or window that is shorter than the training clips, see
            `Encoder`; None: the model's own way.

        Raises:
          ValueError: unusable audio; windows of no length; no such pad; scores that are not finite.
        """
        clips = self.clips([waveform], sample_rate)
        rows = [row for _, row in self.rows_of(clips, window=window, hop=hop, pad=pad)]
        logits = np.stack([row.logits for row in rows])
        check_finite(logits)
        starts, ends = (np.array([row[i] for row in rows]) for i in (0, 1))
        return Scores(starts, ends, self.probabilities(logits))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities that logits [..., C] mean."""
        logits = (self.calibration or Calibration(1.0))(logits)
        found = _sigmoid(logits) if self.several else _softmax(logits)
        return found.astype(np.float32)

    def predict(
        self,
        inputs: Any = None,
        *given: Any,
        window: float | None = None,
        hop: float | None = None,
        top: int | None = None,
        threshold: float | None = None,
        pad: str | None = None,
        channels: str = "average",
        **entries: Any,
    ) -> Any:
        """Return a table of the classes of clips, or of windows of them: one row per row asked, in order.

        `predict(name, waveform, sample_rate, …)`, with the name of a predictor, does what `Model.predict`
        does.

        Args:
          inputs: one waveform [S], or several, as `Encoder.embed` takes; or a path, a list of paths (a folder
            means the audio files in it); or a pandas DataFrame with a column `path` and, where wanted,
            `start` and `end` (s).
          *given: the sample rate of waveforms, Hz.
          window: see `scores`.
          hop: see `scores`.
          pad: see `scores`.
          top: in place of a column for each class, the labels and scores of this many of the highest.
          threshold: probability from which on a class counts. None: where a clip may have several, the
            calibration's of each class, or one half; otherwise the best counts, whatever it is.
          channels: how several become one: "average", "first" or "loudest".
          **entries: `sample_rate`, by name; or what `Model.predict` takes.

        Returns:
          A pandas DataFrame; a list of dictionaries where pandas is not installed. Its columns: those of the
          input; `start` and `end` (s) of windows; `predicted`, the best label, and its `score`, or, where a
          clip may have several, all labels from their threshold on, the likeliest first, with ";" between
          them; the probability of each class under its name; `error`, why a file has none of these, or "".

        Raises:
          ValueError: unusable waveforms, or options; a DataFrame without `path`.
        """
        if isinstance(inputs, str) and inputs in self.offers:
            return super().predict(inputs, *given, **entries)
        if "name" in entries:
            return super().predict(**entries)
        if not given and "sample_rate" in entries:
            given = (entries.pop("sample_rate"),)
        if entries or len(given) > 1:
            wrong = next(iter(entries), f"{len(given)} arguments behind the inputs")
            raise TypeError(f"predict: got {wrong}; wanted inputs and, of waveforms, sample_rate.")
        options = predictions.Options(window, hop, pad, top, threshold)
        return predictions.predict(self, inputs, given[0] if given else None, options, channels)

    def rows_of(
        self,
        clips: Iterable[Clip],
        *,
        window: float | None = None,
        hop: float | None = None,
        pad: str | None = None,
    ) -> Iterator[tuple[int, Row]]:
        """Yield (number of the clip, row) as batches fill up: a clip's rows in order, clips in any order.

        Args:
          clips: float32 mono [S] at `rate` Hz, or the pieces of one: of a clip that comes in pieces
            little is held. Read as they are needed.
          window: see `scores`.
          hop: see `scores`.
          pad: see `scores`.

        Raises:
          ValueError: windows of no length; no such pad.
        """
        spans, pad = self.check_rows(window, hop, pad)
        cut = functools.partial(self._segments, spans=spans, pad=pad)
        waiting: dict[int, _Rows] = {}
        for columns, group in batches(clips, cut, self._windows_per_call):
            found = self._logits(columns, [piece.audio for _, piece in group])
            for (number, piece), logits in zip(group, found, strict=False):
                rows = waiting.setdefault(number, _Rows(self.average))
                for start, end, mean, last in rows.add(piece, logits):
                    if last:
                        del waiting[number]
                    yield number, Row(start / self.rate, end / self.rate, mean, last)

    def check_rows(
        self, window: float | None, hop: float | None, pad: str | None
    ) -> tuple[tuple[int, int] | None, str]:
        """Return window and hop in samples (None: whole clips), and how clips end.

        Raises:
          ValueError: windows of no length; no such pad.
        """
        pad = pad or self.fill
        if pad not in PADS:
            raise ValueError(f"pad: got {pad!r}, wanted one of {', '.join(PADS)}.")
        return self._spans(window, hop), pad

    def _spans(self, window: float | None, hop: float | None) -> tuple[int, int] | None:
        if window is None:
            if hop is not None:
                raise ValueError(f"hop: got {hop!r} without a window; give both, in seconds.")
            return None
        hop = window if hop is None else hop
        least = 1 / self.rate
        for name, value in (("window", window), ("hop", hop)):
            if not least <= value < math.inf:
                raise ValueError(f"{name}: got {value!r}, wanted seconds, above 0.")
        return round(window * self.rate), round(hop * self.rate)

    def _segments(
        self, clip: Clip, spans: tuple[int, int] | None, pad: str
    ) -> Iterator[tuple[int, "_Piece"]]:
        """Yield the pieces of all rows of a clip, and the columns that each is padded to."""
        if spans is None:
            for columns, piece in self._cut(clip, pad, self._heard):
                yield columns, _Piece(0, 0, piece.samples, self._ended(piece, pad), True)
            return
        for row, segment in enumerate(segments(clip, *spans)):
            end = segment.start + len(segment.audio)
            for columns, piece in self._cut(segment.audio, pad, self._heard):
                stop, final = None if piece.samples is None else end, segment.samples is not None
                audio = self._ended(piece, pad)
                yield columns, _Piece(row, segment.start, stop, audio, final)

    def _ended(self, piece: Window, pad: str) -> np.ndarray:
        """Return a piece's sound; of a whole clip that training would have said again, as often."""
        fill = written.entry(self.config, "audio").get("fill", "")
        if pad != "training" or piece.start or piece.samples is None or "repeat" not in fill:
            return piece.audio
        return transforms.fill(piece.audio, self._heard(self._most), fill, lambda: piece.audio)

    def _heard(self, columns: int) -> int:
        """Return the samples that the model is given for so many columns."""
        if columns != self._most:
            return self._samples(columns)
        # Of the training length: as it was trained and evaluated, to the last frame.
        trained = written.samples(self.config)
        fixed = self.objective.frontend.frames is not None
        return max(trained, self._samples(columns)) if fixed else trained

    def _logits(self, columns: int, group: list[np.ndarray]) -> np.ndarray:
        """Return [batch size, C] of pieces of that many columns."""
        objective = self.objective if columns == self._most else self._sized(columns)
        size = self._heard(columns)
        group = group + group[-1:] * (self._windows_per_call(columns) - len(group))
        length = np.array([len(piece) for piece in group], np.int32)
        audio = np.stack([np.pad(piece, (0, size - len(piece))) for piece in group])
        weights = self._on_device, self._extra_on_device
        return np.asarray(_program(objective)(*weights, audio, length))


def segments(clip: Clip, size: int, hop: int) -> Iterator[Window]:
    """Yield the windows of a clip that are rows of scores: of `size` samples, `hop` samples apart.

    A little sound at the end has none of its own: see `but_little`.
    """

    def starts(samples: int) -> range:
        # Up to the first window that reaches the end; none begins behind it.
        end = but_little(samples, size)
        last = min(max(0, -(-(end - size) // hop)), (end - 1) // hop)
        return range(0, last * hop + 1, hop)

    return cover(clip, size, starts)


class _Piece(NamedTuple):
    """A part of a row's sound, as long as the model takes."""

    row: int
    start: int  # of the row, samples
    end: int | None  # of the row, with its last piece; before: None
    audio: np.ndarray
    final: bool  # its row is the clip's last


class _Rows:
    """Averages the pieces of one clip's rows, and hands complete rows on in order."""

    def __init__(self, average: str):
        self._next, self._average = 0, average
        self._pieces: dict[int, list[np.ndarray]] = {}
        self._done: dict[int, tuple[int, int, np.ndarray, bool]] = {}

    def add(self, piece: _Piece, logits: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, bool]]:
        """Take a piece's logits [C]; yield (first sample, last, those of a row, is it the last row)."""
        pieces = self._pieces.setdefault(piece.row, [])
        pieces.append(logits)
        if piece.end is None:
            return
        mean = averaged(np.stack(self._pieces.pop(piece.row)), self._average)[0].astype(np.float32)
        self._done[piece.row] = piece.start, piece.end, mean, piece.final
        while self._next in self._done:
            yield self._done.pop(self._next)
            self._next += 1


@functools.lru_cache(256)
def _program(objective: Any) -> Any:
    """Return the jitted pass (params, extra, audio, length) → logits [B, C]."""
    logits = objective.predictors()["logits"]

    def program(params, extra, audio, length):
        return logits(params, extra, {"audio": audio, "length": length}).astype(np.float32)

    return jax.jit(program)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * logits))  # overflows nowhere
