"""A pretrained encoder in use: waveforms of any rate and length in, features out.

The public API, and what `embed.py` and `eval/evaluate.py` work with.
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.frontend.base import sounding
from ssl_audio.heads.readout import FINAL, MEAN_OF_SPECIALS, columns_of
from ssl_audio.inference import inputs, windows
from ssl_audio.inference.model import Model, check_finite, silence
from ssl_audio.inference.pooling import (
    PADS,
    SPECIAL,
    Collector,
    OverlapMean,
    Pooled,
    Whole,
    check_pool,
)
from ssl_audio.inference.windows import PROGRAMS, Clip, Window, batches, cover, every
from ssl_audio.storage import written

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Encoder(Model):
    """A pretrained encoder: waveforms of any rate and length in, features out.

    How a clip ends is up to `pad`. "columns": it is padded, in the log-mel domain, to whole patch
    columns and no further. "none": what does not fill a column is dropped, as encoders of waveforms
    do. "training": it is padded to the length of the training clips, and the padding counts as part
    of it; with "silence" the features of the padding are left out.

    Longer audio than the training clips is cut in windows of their length, half a window apart,
    and averaged where they overlap. One program is compiled per number of columns, of which there
    are few: see `windows.padded_count`. A tokenizer that takes lengths hides padding from tokens.
    The same clip gives the same bits, whichever other clips are embedded with it.

    Attributes:
      objective: the method that trained it; its "encode" predictor is the forward pass.
      params: as numpy arrays.
      config: of the run.
      extra: state that other predictors need beside the parameters.
      batch_size: most clips (or windows) encoded together. An accelerator always encodes that many, the
        last one repeated, and proportionally fewer of windows longer than 10.24 s. A CPU encodes
        windows of more than two seconds one by one, of shorter ones as many as make four seconds.
    """

    batch_size: int = 16

    @property
    def pad(self) -> str:
        """How a clip's end is treated by default: one of "columns", "training", "silence", "none"."""
        said = self.config.get("inference", {}).get("pad")
        said = said or getattr(self.objective, "ends", "")
        return said or ("none" if self._takes_count else "columns")

    @property
    def encoder(self) -> "Encoder":
        """The encoder itself, so that commands can use `model.encoder` of any model."""
        return self

    @property
    def window(self) -> float:
        """Length of the training clips, s."""
        return self._frames * self.objective.frontend.hop / self.rate

    @property
    def width(self) -> int:
        """Features per token, D."""
        return self._shapes.tokens.x.shape[-1]

    @property
    def num_layers(self) -> int:
        """Number of blocks, L; 0 for encoders whose blocks differ in size (CNNs)."""
        return getattr(self._shapes.layers, "shape", (0,))[0]

    @property
    def rows(self) -> int:
        """Tokens in a patch column: its frequency rows."""
        return self._shapes.tokens.grid[0]

    def embed(
        self,
        waveform: Any,
        sample_rate: int | None = None,
        *,
        layer: int = FINAL,
        pool: str = "mean",
        pad: str | None = None,
    ) -> np.ndarray:
        """Return one feature vector per clip: [D'] for [S], [B, D'] for [B, S] or a list of [S].

        Args:
          waveform: mono audio, floating point in [-1, 1] or int16. Or files: a path, [D'], unless it is of a
            folder; a list of paths, or a pandas DataFrame with a column `path` and, where wanted, `start` and
            `end` (s): a vector for each row. Their channels are averaged.
          sample_rate: of the waveform, Hz; files state their own.
          layer: -1: after the last norm; 0 to L-1: the residual stream after that block.
          pool: "mean" over all tokens, D' = D; "rows": mean over time of each frequency row,
            D' = rows * D; "stats": that and the standard deviation, D' = 2 * rows * D; "special":
            the mean of the special tokens (cls, distillation) after the last norm, D' = D.
          pad: what becomes of a clip's end, see the class; None: the model's own.

        Raises:
          ValueError: audio that is empty, not finite, far outside [-1, 1], or of another shape or type; a
            file that cannot be read; no such layer, pool or pad; no special tokens; features that are
            not finite.
        """
        layer, rows, pool = self.readout(layer, pool)
        if (table := inputs.files_in(waveform)) is not None:
            single = isinstance(waveform, (str, os.PathLike)) and not os.path.isdir(waveform)
            clips: Iterable[Clip] = inputs.sound(table, self.rate, sample_rate)
        else:
            single = not isinstance(waveform, (list, tuple)) and np.ndim(waveform) == 1
            clips = self.clips([waveform] if single else waveform, sample_rate)
        pooled = dict(self.stream(clips, (layer,), lambda _: Pooled(rows, pool), pad=pad))
        found = np.stack([pooled[i][0] for i in range(len(pooled))])
        check_finite(found)
        return found[0] if single else found

    def frames(
        self, waveform: Any, sample_rate: int, *, layer: int = FINAL, pad: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of each patch column of one clip [S], and their times.

        `pad` as in `embed`; with "training" there are columns of padding after the clip's.

        Returns:
          Features [T', rows * D], low frequencies first, and the centre of each column, ms [T'].

        Raises:
          ValueError: as `embed`.
        """
        self.check_layer(layer)
        (found,) = self.stream(self.clips([waveform], sample_rate), (layer,), pad=pad)
        check_finite(found[1])
        return found[1][0], self.times(found[1].shape[1])

    def times(self, columns: int) -> np.ndarray:
        """Return the centres of this number of patch columns, ms."""
        frontend, (size, step) = self.objective.frontend, self._column
        frame = np.arange(columns) * step + (size - 1) / 2
        return (frame * frontend.hop + frontend.centre) * (1000 / self.rate)

    @property
    def frame_grid(self) -> tuple[int, int, float]:
        """Patch columns of a training clip, samples from one to the next, sample at the first's centre."""
        return self._most, self._hop, float(self.times(1)[0]) * self.rate / 1000

    def stream(
        self,
        clips: Iterable[Clip],
        layers: Sequence[int] = (FINAL,),
        collect: Callable[[int], Collector] = lambda _: Whole(),
        *,
        pad: str | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number, what its collector made of it) of each clip, as batches fill up.

        Args:
          clips: float32 mono [S] at `rate` Hz, or the pieces of one: of a clip that comes in pieces
            at most a few windows are held. Read as they are needed.
          layers: which layers' features to give, see `heads.readout.columns_of`.
          collect: makes the collector of a clip's features, given its number; default: all of them
            in one array [K, T', rows * D].
          pad: see `embed`.
        """
        encode = functools.partial(self._encode, layers=tuple(layers))
        return self._streamed(clips, encode, collect, pad or self.pad)

    def stream_predictor(
        self,
        name: str,
        clips: Iterable[Clip],
        collect: Callable[[int], Collector] = lambda _: Whole(),
        *,
        pad: str | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield as `stream` does, of a predictor that gives a vector per patch column, K being 1."""
        self.check_offers(name)
        encode = functools.partial(self._predict_columns, name)
        return self._streamed(clips, encode, collect, pad or self.pad)

    def _streamed(
        self,
        clips: Iterable[Clip],
        encode: Callable[[int, list[np.ndarray]], np.ndarray],
        collect: Callable[[int], Collector],
        pad: str,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number, result) of each clip; `encode`: (columns, pieces) → [B, K, columns, D']."""
        if pad not in PADS:
            raise ValueError(f"pad: got {pad!r}, wanted one of {', '.join(PADS)}.")
        cut = functools.partial(self._cut, pad=pad)
        clip_features: dict[int, tuple[OverlapMean, Collector]] = {}
        for columns, group in batches(clips, cut, self._windows_per_call):
            encoded = encode(columns, [window.audio for _, window in group])
            for (number, window), features in zip(group, encoded, strict=False):
                if number not in clip_features:
                    collector = collect(number)
                    clip_features[number] = OverlapMean(collector), collector
                total = None if window.samples is None else self._columns(window.samples, pad)
                first = window.start // self._hop
                if clip_features[number][0].add(first, features, total):
                    yield number, clip_features.pop(number)[1].result()

    def check_layer(self, layer: int) -> None:
        """Raise ValueError unless there is such a layer."""
        if not isinstance(layer, int) or not FINAL <= layer < self.num_layers:
            blocks = f"0 to {self.num_layers - 1}, or " if self.num_layers else ""
            raise ValueError(f"layer: got {layer!r}; wanted {blocks}-1 for the final one.")

    def readout(self, layer: int, pool: str) -> tuple[int, int, str]:
        """Return the layer to stream, the rows of its columns and how `Pooled` pools them.

        Raises:
          ValueError: no such layer or pool; no special tokens.
        """
        self.check_layer(layer)
        if pool != SPECIAL:
            check_pool(pool)
            return layer, self.rows, pool
        if self._shapes.special is None:
            raise ValueError("pool: 'special', but this encoder has no special tokens.")
        if layer != FINAL:
            raise ValueError(f"pool: 'special' is of layer {FINAL}, after the last norm, alone.")
        return MEAN_OF_SPECIALS, 1, "mean"

    @property
    def _takes_count(self) -> bool:
        return getattr(self.objective.tokenizer, "takes_count", False)

    def _padded(self, columns: int) -> int:
        """Return the columns that a piece of so many is padded to."""
        encoder = self.objective.encoder
        if getattr(getattr(encoder, "positions", None), "stretches", False):
            return self._most  # where all positions depend on their number: as in training
        hidden = self._takes_count and getattr(encoder, "hides_padding", False)
        return windows.padded_count(columns, self._most, hidden=hidden)

    def _windows_per_call(self, columns: int) -> int:
        """Return how many pieces of so many columns are encoded together."""
        return windows.windows_per_call(self.batch_size, self._samples(columns) / self.rate)

    @functools.cached_property
    def _frames(self) -> int:
        frontend = self.objective.frontend
        return frontend.frames or frontend.count(written.samples(self.config))

    @functools.cached_property
    def _most(self) -> int:
        """The columns of a training clip."""
        grid = self.objective.tokenizer.grid(self._frames, self.objective.frontend.bins)
        return (grid[1] - self._beyond) // self._merged

    @property
    def _merged(self) -> int:
        """Patch columns that the encoder makes one of."""
        return getattr(self.objective.encoder, "joined", 1)

    @property
    def _beyond(self) -> int:
        """Patch columns after its own that one which goes out hears."""
        return getattr(self.objective.encoder, "beyond", 0)

    @property
    def _column(self) -> tuple[int, int]:
        """Frames that a column covers, and from one column to the next."""
        size, step = self.objective.tokenizer.patch[1], self.objective.tokenizer.stride[1]
        return size + (self._merged - 1) * step, self._merged * step

    @property
    def _hop(self) -> int:
        """Samples from one column to the next."""
        return self._column[1] * self.objective.frontend.hop

    @functools.cached_property
    def _shapes(self) -> Any:
        encode = self._sized(self._most).predictors()["encode"]
        return jax.eval_shape(encode, self.params, {}, self.blank())

    @functools.cached_property
    def _compiled(self) -> set[tuple[int, tuple[int, ...]]]:
        return set()

    def blank(self, columns: int | None = None) -> dict[str, np.ndarray]:
        """Return a batch of one silent clip of this many patch columns (default: a training clip's)."""
        return silence(self._samples(columns or self._most))

    def _span(self, columns: int) -> int:
        """Return the frames that so many columns cover."""
        size, step = self._column
        return (columns - 1) * step + size

    @property
    def _rest(self) -> int:
        """Frames after the last column that must be heard, at most: a waveform's count in its norms."""
        beyond = self._beyond * self.objective.tokenizer.stride[1]
        return self._column[1] - 1 if self._takes_count else beyond

    def _samples(self, columns: int) -> int:
        frontend = self.objective.frontend
        return (self._span(columns) + self._rest - 1) * frontend.hop + frontend.window

    def _sized(self, columns: int) -> Any:
        """Return the objective for clips of so many columns."""
        frames = self._span(columns) + self._rest
        frontend = dataclasses.replace(self.objective.frontend, frames=frames)
        return dataclasses.replace(self.objective, frontend=frontend)

    def _columns(self, samples: int, pad: str | None = None) -> int:
        """Return the columns of so much audio; the last one may be part padding."""
        (size, step), frontend = self._column, self.objective.frontend
        pad, frames = pad or self.pad, sounding(frontend, samples)
        if pad == "none":
            return 1 + max(0, (frames - size) // step)
        columns = 1 + max(0, -(-(frames - size) // step))
        # A training clip may end in less than a column, too, or some frames after those that are taken.
        left = sounding(frontend, trained := written.samples(self.config)) - self._frames
        if frames <= self._frames or (samples <= trained and left < step):
            columns = min(columns, self._most)
        return max(columns, self._most) if pad == "training" else columns

    def _cut(
        self, clip: Clip, pad: str | None = None, heard: Callable[[int], int] | None = None
    ) -> Iterator[tuple[int, Window]]:
        """Yield a clip's windows and the columns that each is padded to.

        `heard`: columns → samples that are given for them; default: as many as they hold.
        """
        heard, fill = heard or self._samples, "training" if pad == "silence" else pad
        most, window_samples = self._most, self.objective.frontend.window

        def starts(samples: int) -> list[int]:
            columns = every(max(1, most // 2), self._columns(samples, pad) - most)
            return [column * self._hop for column in columns]

        for window in cover(clip, heard(most), starts):
            # Less than one analysis window would leave no frame at all, and all such clips alike.
            audio = np.pad(window.audio, (0, max(0, window_samples - len(window.audio))))
            padded = self._padded(self._columns(len(audio), fill))
            yield padded, window._replace(audio=audio[: heard(padded)])

    def _encode(self, columns: int, group: list[np.ndarray], layers: tuple[int, ...]) -> np.ndarray:
        """Return [batch size, K, columns, rows * D] of pieces of that many columns."""
        if (columns, layers) not in self._compiled:
            self._compiled.add((columns, layers))
            number = sum(known == layers for _, known in self._compiled)
            most = len({self._padded(n) for n in range(1, self._most + 1)})
            log.info("compiling for %d patch columns: %d of at most %d", columns, number, most)
        audio, length = self._batched(columns, group)
        return np.asarray(_program(self._sized(columns), layers)(self._on_device, audio, length))

    def _predict_columns(self, name: str, columns: int, group: list[np.ndarray]) -> np.ndarray:
        """Return [batch size, 1, columns, D'] of a predictor, of pieces of that many columns."""
        weights = self._on_device, self._extra_on_device
        found = _predictor(self._sized(columns), name)(*weights, *self._batched(columns, group))
        return np.asarray(found)[:, None]

    def _batched(self, columns: int, group: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return pieces padded to so many columns [B, S] and their lengths [B]; the last one is repeated."""
        group = group + group[-1:] * (self._windows_per_call(columns) - len(group))
        length = np.array([len(piece) for piece in group], np.int32)
        return np.stack([np.pad(p, (0, self._samples(columns) - len(p))) for p in group]), length


@functools.lru_cache(4 * PROGRAMS)
def _program(objective: Any, layers: tuple[int, ...]) -> Any:
    """Return the jitted pass (params, audio, length) → [B, K, columns, rows * D]."""
    encode = objective.predictors()["encode"]

    def program(params, audio, length):
        encoded = encode(params, {}, {"audio": audio, "length": length})
        found = [columns_of(encoded, layer) for layer in layers]
        return jnp.stack(found, axis=1).astype(jnp.float32)

    return jax.jit(program)


@functools.lru_cache(PROGRAMS)
def _predictor(objective: Any, name: str) -> Any:
    """Return the jitted pass (params, extra, audio, length) → [B, columns, D']."""
    predict = objective.predictors()[name]

    def program(params, extra, audio, length):
        return predict(params, extra, {"audio": audio, "length": length}).astype(jnp.float32)

    return jax.jit(program)
