"""A pretrained encoder in use: `load` a run; waveforms of any rate and length in, features out.

The public API, and what `embed.py` and `eval/evaluate.py` work with.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.data.decode import resample
from ssl_audio.heads.readout import frame_tokens
from ssl_audio.inference.pooling import Collector, Joined, Pooled, Whole, check_pool

FINAL = -1  # the layer that means: after the last norm
PROGRAMS = 64  # most programs to compile, hence most different widths that clips are padded to

log = logging.getLogger(__name__)

Clip = np.ndarray | Iterable[np.ndarray]  # float32 mono [S], or its pieces one after the other


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """A pretrained encoder and what it takes to feed it.

    A clip is padded at its end, in the log-mel domain, to whole patch columns and no further.
    Longer audio than the training clips is cut in windows of their length, half a window apart,
    and averaged where they overlap. One program is compiled per number of columns: at most as
    many as a training clip has. If those are more than 64, clips are padded to a multiple of their
    64th part, and the padding's columns dropped.

    The same clip gives the same bits whatever else is embedded with it.

    Attributes:
      objective: the method that trained it; its "encode" predictor is the forward pass.
      params: as numpy arrays.
      config: of the run.
      batch_size: clips (or windows) encoded together; always that many, the last ones repeated.
    """

    objective: Any
    params: Any
    config: Mapping[str, Any]
    batch_size: int = 16

    @property
    def rate(self) -> int:
        """Sampling rate the encoder works at, Hz."""
        return self.objective.frontend.rate

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
        """Number of blocks, L; 0 where they are not told apart (CNNs)."""
        return 0 if self._shapes.layers is None else self._shapes.layers.shape[0]

    @property
    def rows(self) -> int:
        """Tokens in a patch column: its frequency rows."""
        return self._shapes.tokens.grid[0]

    def embed(
        self, waveform: Any, sample_rate: int, *, layer: int = FINAL, pool: str = "mean"
    ) -> np.ndarray:
        """Return one feature vector per clip: [D'] for [S], [B, D'] for [B, S] or a list of [S].

        Args:
          waveform: mono audio, floating point in [-1, 1] or int16.
          sample_rate: of the waveform, Hz.
          layer: -1: after the last norm; 0 to L-1: the residual stream after that block.
          pool: "mean" over all tokens, D' = D; "rows": mean over time of each frequency row,
            D' = rows * D; "stats": that and the standard deviation, D' = 2 * rows * D.

        Raises:
          ValueError: audio that is empty, not finite, or of another shape or type; no such layer
            or pool.
        """
        check_pool(pool)
        self.check_layer(layer)
        single = not isinstance(waveform, (list, tuple)) and np.ndim(waveform) == 1
        clips = self.clips([waveform] if single else waveform, sample_rate)
        pooled = dict(self.stream(clips, (layer,), lambda _: Pooled(self.rows, pool)))
        found = np.stack([pooled[i][0] for i in range(len(pooled))])
        return found[0] if single else found

    def frames(
        self, waveform: Any, sample_rate: int, *, layer: int = FINAL
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of each patch column of one clip [S], and their times.

        Returns:
          Features [T', rows * D], low frequencies first, and the centre of each column, ms [T'].

        Raises:
          ValueError: as `embed`.
        """
        self.check_layer(layer)
        (found,) = self.stream(self.clips([waveform], sample_rate), (layer,))
        return found[1][0], self.times(found[1].shape[1])

    def times(self, columns: int) -> np.ndarray:
        """Return the centres of so many patch columns, ms."""
        frontend, (size, step) = self.objective.frontend, self._column
        frame = np.arange(columns) * step + (size - 1) / 2
        return (frame * frontend.hop + frontend.centre) * (1000 / self.rate)

    def stream(
        self,
        clips: Iterable[Clip],
        layers: Sequence[int] = (FINAL,),
        collect: Callable[[int], Collector] = lambda _: Whole(),
    ) -> Iterator[tuple[int, Any]]:
        """Yield (number, what its collector made of it) of each clip, as batches fill up.

        Args:
          clips: float32 mono [S] at `rate` Hz, or the pieces of one: of a clip that comes in pieces
            at most a few windows are held. Read as they are needed.
          layers: which layers' features to give.
          collect: makes the collector of a clip's features, given its number; default: all of them
            in one array [K, T', rows * D].
        """
        layers = tuple(layers)
        waiting: dict[int, list[tuple[int, int, np.ndarray, int | None]]] = {}  # by columns
        joined: dict[int, tuple[Joined, Collector]] = {}

        def run(columns: int) -> Iterator[tuple[int, Any]]:
            group = waiting.pop(columns)
            encoded = self._encode(columns, layers, [audio for _, _, audio, _ in group])
            for (number, start, _, total), features in zip(group, encoded, strict=False):
                if joined[number][0].add(start, features, total):
                    yield number, joined.pop(number)[1].result()

        for number, clip in enumerate(clips):
            collector = collect(number)
            joined[number] = Joined(collector), collector
            for start, columns, audio, total in self._cut(clip):
                waiting.setdefault(columns, []).append((number, start, audio, total))
                if len(waiting[columns]) == self.batch_size:
                    yield from run(columns)
        for columns in sorted(waiting):
            yield from run(columns)

    def check_layer(self, layer: int) -> None:
        """Raise ValueError unless there is such a layer."""
        if not isinstance(layer, int) or not FINAL <= layer < self.num_layers:
            blocks = f"0 to {self.num_layers - 1}, or " if self.num_layers else ""
            raise ValueError(f"layer: got {layer!r}; wanted {blocks}-1 for the final one.")

    @functools.cached_property
    def _frames(self) -> int:
        frontend = self.objective.frontend
        return frontend.frames or frontend.count(self.config["data"]["samples"])

    @functools.cached_property
    def _most(self) -> int:
        """The columns of a training clip."""
        grid = self.objective.tokenizer.grid(self._frames, self.objective.frontend.bins)
        return grid[1] // self._joined

    @property
    def _joined(self) -> int:
        """Patch columns that the encoder makes one of."""
        return getattr(self.objective.encoder, "joined", 1)

    @property
    def _column(self) -> tuple[int, int]:
        """Frames that a column covers, and from one column to the next."""
        size, step = self.objective.tokenizer.patch[1], self.objective.tokenizer.stride[1]
        return size + (self._joined - 1) * step, self._joined * step

    @functools.cached_property
    def _shapes(self) -> Any:
        encode = self._sized(1).predictors()["encode"]
        return jax.eval_shape(encode, self.params, {}, self.blank(1))

    @functools.cached_property
    def _compiled(self) -> set[tuple[int, tuple[int, ...]]]:
        return set()

    @functools.cached_property
    def _on_device(self) -> Any:
        return jax.device_put(self.params)

    def blank(self, columns: int | None = None) -> dict[str, np.ndarray]:
        """Return a batch of one silent clip of so many columns (default: a training clip's)."""
        samples = self._samples(columns or self._most)
        audio, length = np.zeros((1, samples), np.float32), np.full(1, samples, np.int32)
        return {"audio": audio, "length": length}

    def _span(self, columns: int) -> int:
        """Return the frames that so many columns cover."""
        size, step = self._column
        return (columns - 1) * step + size

    def _samples(self, columns: int) -> int:
        frontend = self.objective.frontend
        return (self._span(columns) - 1) * frontend.hop + frontend.window

    def _sized(self, columns: int) -> Any:
        """Return the objective for clips of so many columns."""
        frontend = dataclasses.replace(self.objective.frontend, frames=self._span(columns))
        return dataclasses.replace(self.objective, frontend=frontend)

    def _columns(self, samples: int) -> int:
        """Return the columns of so much audio; the last one may be part padding."""
        frontend, (size, step) = self.objective.frontend, self._column
        frames = 1 + (samples - frontend.window) // frontend.hop
        return 1 + max(0, -(-(frames - size) // step))

    def _cut(self, clip: Clip) -> Iterator[tuple[int, int, np.ndarray, int | None]]:
        """Yield a clip's windows: first column, columns with padding, audio, the clip's columns.

        The last one's audio ends with the clip's, and only with it the clip's columns are known.
        """
        frontend, most, half = self.objective.frontend, self._most, max(1, self._most // 2)
        step, size = self._column[1] * frontend.hop, self._samples(most)
        first, audio = 0, np.zeros(0, np.float32)  # what is held, from a window's first column on
        for piece in [clip] if isinstance(clip, np.ndarray) else clip:
            audio = np.concatenate([audio, piece]) if len(audio) else piece
            while self._columns(len(audio)) > most + half:
                yield first, most, audio[:size], None
                first, audio = first + half, audio[half * step :]
        # Less than one analysis window would leave no frame at all, and all such clips alike.
        audio = np.pad(audio, (0, max(0, frontend.window - len(audio))))
        columns = self._columns(len(audio))
        rest = max(0, columns - most)
        if rest:
            yield first, most, audio[:size], None
        grain = -(-most // PROGRAMS)
        padded = min(most, -(-columns // grain) * grain)
        yield first + rest, padded, audio[rest * step :][: self._samples(padded)], first + columns

    def _encode(self, columns: int, layers: tuple[int, ...], group: list[np.ndarray]) -> np.ndarray:
        """Return [batch size, K, columns, rows * D] of pieces of that many columns."""
        objective = self._sized(columns)
        if (columns, layers) not in self._compiled:
            self._compiled.add((columns, layers))
            number = sum(known == layers for _, known in self._compiled)
            most = -(-self._most // -(-self._most // PROGRAMS))
            log.info("compiling for %d patch columns: %d of at most %d", columns, number, most)
        group = group + group[-1:] * (self.batch_size - len(group))
        length = np.array([len(piece) for piece in group], np.int32)
        audio = np.stack([np.pad(p, (0, self._samples(columns) - len(p))) for p in group])
        return np.asarray(_program(objective, layers)(self._on_device, audio, length))

    def clips(self, waveforms: Any, sample_rate: int) -> list[np.ndarray]:
        """Return [B, S] or a list of [S] as `stream` takes it; ValueError as `embed`."""
        if not isinstance(sample_rate, (int, float, np.integer, np.floating)) or not (
            0 < sample_rate < float("inf")
        ):
            raise ValueError(f"sample_rate: got {sample_rate!r}, wanted a number of Hz above 0.")
        if not isinstance(waveforms, (list, tuple)) and np.ndim(waveforms) != 2:
            raise ValueError(
                f"waveform: got shape {np.shape(waveforms)}, wanted mono audio [S], a batch [B, S] "
                "or a list of [S]; average the channels first."
            )
        if not len(waveforms):
            raise ValueError("waveform: no clips.")
        return [
            resample(
                _mono(w, f"waveform {i}" if len(waveforms) > 1 else "waveform"),
                sample_rate,
                self.rate,
            )
            for i, w in enumerate(waveforms)
        ]


@functools.lru_cache(4 * PROGRAMS)
def _program(objective: Any, layers: tuple[int, ...]) -> Any:
    """Return the jitted pass (params, audio, length) → [B, K, columns, rows * D]."""
    encode = objective.predictors()["encode"]

    def program(params, audio, length):
        encoded = encode(params, {}, {"audio": audio, "length": length})

        def features(layer):
            x = encoded.tokens.x if layer == FINAL else encoded.layers[layer]
            return frame_tokens(encoded.replace(tokens=encoded.tokens.replace(x=x)))

        return jnp.stack([features(layer) for layer in layers], axis=1).astype(jnp.float32)

    return jax.jit(program)


def _mono(waveform: Any, name: str) -> np.ndarray:
    audio = np.asarray(waveform)
    if audio.dtype == np.int16:
        audio = audio.astype(np.float32) / 32768
    elif not np.issubdtype(audio.dtype, np.floating):
        raise ValueError(f"{name}: got {audio.dtype}, wanted floating point in [-1, 1], or int16.")
    if audio.ndim != 1:
        raise ValueError(
            f"{name}: got shape {audio.shape}, wanted mono audio [S]; average the channels first."
        )
    if not audio.size:
        raise ValueError(f"{name}: empty.")
    with np.errstate(over="ignore"):
        audio = audio.astype(np.float32)
    if not np.isfinite(audio).all():
        raise ValueError(f"{name}: NaN or infinite samples.")
    return audio
