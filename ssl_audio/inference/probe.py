"""A probe in use: an encoder's features of clips, as probes look at them, and the classifier on them.

`features` is what `eval/` trains probes on, so a saved probe sees what it was trained with.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.heads.readout import ALL
from ssl_audio.inference.classifier import Classifier, Row, segments
from ssl_audio.inference.encoder import FINAL, Encoder
from ssl_audio.inference.load import interface
from ssl_audio.inference.pooling import Collector, Pooled, Whole
from ssl_audio.inference.windows import Clip
from ssl_audio.objectives.probe import unit

# From audio, clip after clip, to (number, [K, …]) in any order.
Extract = Callable[[Iterable[Clip]], Iterator[tuple[int, np.ndarray]]]


def features(encoder: Encoder, view: str, layers: Sequence[int] = (FINAL,), pool: str = "mean"):
    """Return the extraction of an encoder's features [K, …] of each of K `layers`.

    Args:
      encoder: any.
      view: "pooled": one vector [D']; "tokens": float16 [rows, columns, D], low frequencies first;
        "layers": K is 1, [L, rows * D], the mean over time of each frequency row, of every layer;
        "all": K is 1, float16 [rows + 1, columns, L, D], the tokens of every layer, and in the last row
        its special token (NaN if it has none).
      layers: see `Encoder.embed`.
      pool: see `Encoder.embed`; of "pooled".

    Raises:
      ValueError: no such layer or pool; layers of several sizes.
    """
    most = np.finfo(np.float16).max

    def half(x: np.ndarray) -> np.ndarray:
        return np.clip(x, -most, most).astype(np.float16)

    def tokens(x: np.ndarray) -> np.ndarray:
        return np.moveaxis(half(x).reshape(*x.shape[:2], encoder.rows, -1), 1, 2)

    def every(x: np.ndarray) -> np.ndarray:
        size = encoder.rows + 1, encoder.num_layers, encoder.width
        return np.moveaxis(half(x).reshape(*x.shape[:2], *size), 1, 2)

    if view == "all":
        if not encoder.num_layers:
            raise ValueError(
                "view 'all': this encoder's layers are of several sizes; name another."
            )
        read, collect, made = (ALL,), lambda _: Whole(), every
    elif view == "tokens":
        for layer in layers:
            encoder.check_layer(layer)
        read, collect, made = tuple(layers), lambda _: Whole(), tokens
    else:
        if view == "layers":
            layers, pool = range(encoder.num_layers), "rows"
        how = [encoder.readout(layer, pool) for layer in layers]
        read, (rows, *_), (pooled, *_) = zip(*how, strict=True)

        def collect(_: int) -> Collector:
            return Pooled(rows, pooled)

        def made(x: np.ndarray) -> np.ndarray:
            return x[None] if view == "layers" else x

    def extract(clips: Iterable[Clip]) -> Iterator[tuple[int, np.ndarray]]:
        for number, x in encoder.stream(clips, read, collect):
            yield number, made(x)

    return extract


def filled(x: np.ndarray, columns: int, axis: int = -2) -> np.ndarray:
    """Return tokens [..., rows, columns, D] with at least so many columns, NaN after the clip's end."""
    if (more := columns - x.shape[axis]) <= 0:
        return x
    wide = [(0, 0)] * x.ndim
    wide[axis] = (0, more)
    return np.pad(x, wide, constant_values=np.nan)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ProbeClassifier(Classifier):
    """A probe and the frozen encoder under it.

    A clip's features are pooled as `Encoder.embed` pools them, whatever its length, and the head sees the
    result: the same features that it was trained on. Windows are encoded as if each were a clip.
    """

    @functools.cached_property
    def base(self) -> Any:
        """The model that the encoder is part of, as `load` would return it."""
        objective = self.objective.base
        return interface(objective)(
            objective, self.params["base"], self.config, extra=self.extra, origin=self.origin
        )

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The frozen encoder."""
        return dataclasses.replace(self.base.encoder, batch_size=self.batch_size)

    @property
    def rate(self) -> int:
        """Sampling rate of the encoder, Hz."""
        return self.base.rate

    @property
    def window(self) -> float:
        """Length of the encoder's training clips, s."""
        return self.encoder.window

    @property
    def width(self) -> int:
        """Features per token, D."""
        return self.encoder.width

    @property
    def num_layers(self) -> int:
        """Number of the encoder's blocks, L."""
        return self.encoder.num_layers

    @property
    def rows(self) -> int:
        """Tokens in a patch column."""
        return self.encoder.rows

    @property
    def pad(self) -> str:
        """How a clip's end is treated: see `Encoder`."""
        return self.encoder.pad

    @property
    def fill(self) -> str:
        """How a clip's end is treated when it is classified: as it is when it is encoded."""
        return self.encoder.pad

    @functools.cached_property
    def classes(self) -> int:
        """Number of classes, C."""
        logits = self.objective.predictors()["logits"]
        return jax.eval_shape(logits, self.params, self.extra, self.blank()).shape[-1]

    def times(self, columns: int) -> np.ndarray:
        """Return the centres of this number of patch columns, ms."""
        return self.encoder.times(columns)

    def blank(self, columns: int | None = None) -> dict[str, np.ndarray]:
        """Return a batch of one silent clip."""
        return self.base.blank() if columns is None else self.encoder.blank(columns)

    def check_layer(self, layer: int) -> None:
        """Raise ValueError unless there is such a layer."""
        self.encoder.check_layer(layer)

    def readout(self, layer: int, pool: str) -> tuple[int, int, str]:
        """Return as `Encoder.readout`."""
        return self.encoder.readout(layer, pool)

    def stream(
        self,
        clips: Iterable[Clip],
        layers: Sequence[int] = (FINAL,),
        collect: Callable[[int], Collector] = lambda _: Whole(),
        *,
        pad: str | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield as `Encoder.stream`."""
        return self.encoder.stream(clips, layers, collect, pad=pad)

    def rows_of(
        self,
        clips: Iterable[Clip],
        *,
        window: float | None = None,
        hop: float | None = None,
        pad: str | None = None,
    ) -> Iterator[tuple[int, Row]]:
        """Yield as `Classifier.rows_of`.

        Raises:
          ValueError: see `check_rows`.
        """
        spans, _ = self.check_rows(window, hop, pad)
        plan = _Plan(spans, self.rate)
        for number, x in self._extract(plan.cut(clips)):
            yield from plan.add(number, self.decide(x))

    def check_rows(
        self, window: float | None, hop: float | None, pad: str | None
    ) -> tuple[tuple[int, int] | None, str]:
        """Return window and hop in samples (None: whole clips), and how clips end.

        Raises:
          ValueError: windows of no length; another `pad` than the head was trained with.
        """
        if pad not in (None, self.fill):
            raise ValueError(
                f"pad: got {pad!r}, wanted {self.fill!r}: the probe was trained on clips that end so."
            )
        return self._spans(window, hop), self.fill

    def _extract(self, clips: Iterable[Clip]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (number, features) of clips in any order."""
        probe = self.objective
        if probe.reads == "embedding":
            yield from self.base.vectors(clips)
            return
        for number, x in features(self.encoder, probe.view, (probe.layer,), probe.pool)(clips):
            yield number, np.asarray(unit(x[0])) if probe.unit else x[0]

    def decide(self, x: np.ndarray) -> np.ndarray:
        """Return the logits [C] of a clip's features, as `features` gives them."""
        if self.objective.view in ("tokens", "all"):
            x = filled(x, self.objective.columns, axis=1)
        return np.asarray(_decide(self.objective)(self._head, x))

    @functools.cached_property
    def _head(self) -> Any:
        return jax.device_put({k: v for k, v in self.params.items() if k != "base"})


class _Plan:
    """Cuts clips into the segments that rows are of, and puts their logits in order again."""

    def __init__(self, spans: tuple[int, int] | None, rate: int):
        self._spans, self._rate = spans, rate
        self._place: list[
            tuple[int, int, int, bool]
        ] = []  # clip, first sample, last, is it its last
        self._next: dict[int, int] = {}  # clip → its segment whose turn it is
        self._waiting: dict[int, np.ndarray] = {}

    def cut(self, clips: Iterable[Clip]) -> Iterator[Clip]:
        """Yield the segments of all clips; without spans the clips."""
        for clip, audio in enumerate(clips):
            self._next[clip] = len(self._place)
            if self._spans is None:
                pieces = [audio] if isinstance(audio, np.ndarray) else audio
                yield self._counted(clip, pieces)
                continue
            for segment in segments(audio, *self._spans):
                end = segment.start + len(segment.audio)
                self._place.append((clip, segment.start, end, segment.samples is not None))
                yield segment.audio

    def _counted(self, clip: int, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the pieces of a clip, and note its length before they end."""
        number = len(self._place)
        self._place.append((clip, 0, 0, True))
        for piece in pieces:
            self._place[number] = (clip, 0, self._place[number][2] + len(piece), True)
            yield piece

    def add(self, number: int, logits: np.ndarray) -> Iterator[tuple[int, Row]]:
        """Take a segment's logits; yield the rows whose turn it is."""
        clip, *_ = self._place[number]
        self._waiting[number] = logits
        while (at := self._next[clip]) in self._waiting and self._place[at][0] == clip:
            _, start, end, last = self._place[at]
            row = Row(start / self._rate, end / self._rate, self._waiting.pop(at), last)
            self._next[clip] = at + 1
            yield clip, row


@functools.lru_cache(64)
def _decide(objective: Any) -> Any:
    """Return the jitted pass (params, features [...]) → logits [C]."""
    return jax.jit(lambda params, x: objective.decide(params, x[None])[0].astype(jnp.float32))
