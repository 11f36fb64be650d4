"""A trained model of any kind in use: `predict` calls its predictors on waveforms.

`load` returns a `Model` when no more specific interface fits; the interfaces are subclasses.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from ssl_audio.data.decode import fault, rate_fault, resample
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.inference import kinds
from ssl_audio.storage import opened, written

log = logging.getLogger(__name__)


def silence(samples: int, length: str = "length", channels: int = 1) -> dict[str, np.ndarray]:
    """Return a batch of one silent clip of so many samples; `length` names the entry of its length."""
    audio = np.zeros((1, samples, channels)[: 2 + (channels > 1)], np.float32)
    return {"audio": audio, length: np.full(1, samples, np.int32)}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A trained model with its parameters and config. Interfaces are subclasses with the same constructor.

    Attributes:
      objective: the method that trained it; it has the predictors.
      params: as numpy arrays.
      config: of the run.
      extra: state that the predictors need beside the parameters.
      origin: where it was loaded from, in words.
    """

    objective: Any
    params: Any
    config: Mapping[str, Any]
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)
    origin: str = dataclasses.field(default="", kw_only=True)

    def __repr__(self) -> str:
        parts = [
            self._name,
            f"{sum(np.size(x) for x in jax.tree.leaves(self.params)):,} parameters",
        ]
        for name, unit in (("rate", " Hz"), ("window", " s"), ("width", "")):
            try:
                parts.append(f"{name} {getattr(self, name):g}{unit}")
            except (AttributeError, ValueError):  # a model need not have it
                continue
        parts += [f"from {self.origin}"] if self.origin else []
        return f"{type(self).__name__}({', '.join(parts)})"

    @property
    def offers(self) -> tuple[str, ...]:
        """Names of the predictors, for `predict`."""
        return tuple(self.objective.predictors())

    @property
    def rate(self) -> int:
        """Sampling rate the model works at, Hz: its frontend's, or that of the training data."""
        made = self.objective
        frontend = getattr(made, "frontend", None) or getattr(made, "spectrum", None)
        data = self.config.get("data", {})
        return getattr(frontend, "rate", None) or data.get("rate", Pipeline.rate)

    @property
    def encoder(self) -> Any:
        """The model's `Encoder` of audio; ValueError when it has none."""
        raise kinds.refusal(self, "encoder")

    def with_files(self, folder: pathlib.Path, step: int | str | None) -> "Model":
        """Return the model with what else lies in the folder that it was loaded from: here, nothing."""
        del folder, step
        return self

    def check_offers(self, *names: str) -> None:
        """Raise ValueError unless there are predictors of these names."""
        if missing := [name for name in names if name not in self.offers]:
            raise ValueError(f"{self._name} has no {missing[0]!r}; it offers {self._list}.")

    def predict(
        self, name: str, waveform: Any = None, sample_rate: int | None = None, **entries: Any
    ) -> Any:
        """Return the output of a predictor for a clip, or a list of outputs for several clips.

        Every clip is processed whole and by itself, so its result never depends on the others. One
        program is compiled per length.

        Args:
          name: one of `offers`.
          waveform: mono audio [S], or several, [B, S] or a list of [S]: floating point in [-1, 1] or
            int16. None: the predictor takes no audio.
          sample_rate: of the waveform, Hz.
          **entries: other arrays that the predictor reads from a batch, for one clip, without the batch axis.

        Returns:
          The predictor's output as numpy arrays, without the batch axis.

        Raises:
          ValueError: no such predictor, unusable audio, or a missing entry.
        """
        if not isinstance(name, str):
            raise ValueError(
                f"predict: name: got {type(name).__name__}, wanted one of what it offers: {self._list}."
            )
        self.check_offers(name)
        if waveform is None:
            return self._ask(name, dict(entries))
        if (channels := getattr(self.objective, "channels", 1)) > 1:
            raise ValueError(
                f"predict: {self._name} hears {channels} channels, and a waveform here is mono; give "
                f"audio=[S, {channels}] at {self.rate} Hz and length=S by name, without a waveform."
            )
        single = not isinstance(waveform, (list, tuple)) and np.ndim(waveform) == 1
        found = [
            self._ask(name, {"audio": clip, "length": np.int32(len(clip)), **entries})
            for clip in self.clips([waveform] if single else waveform, sample_rate)
        ]
        return found[0] if single else found

    def blank(self) -> dict[str, Any]:
        """Return a batch of one silent clip, as long as in training, with the objective's `channels`.

        Of a model of other things than clips: the shapes that `convert` wrote; else nothing.
        """
        channels = getattr(self.objective, "channels", 1)
        if "samples" not in written.entry(self.config, "audio"):
            return {
                name: jax.ShapeDtypeStruct(tuple(shape), np.dtype(kind))
                for name, (shape, kind) in self.config.get("inputs", {}).items()
            }
        return silence(written.samples(self.config), channels=channels)

    def clips(self, waveforms: Any, sample_rate: int | None) -> list[np.ndarray]:
        """Return [B, S] or a list of [S] as clips at `rate` Hz.

        Raises:
          ValueError: audio that is empty, not finite, far outside [-1, 1], or of another shape or type; no
            rate of sound.
        """
        if not isinstance(sample_rate, (int, float, np.integer, np.floating)) or not (
            0 < sample_rate < float("inf")
        ):
            raise ValueError(f"sample_rate: got {sample_rate!r}, wanted a number of Hz above 0.")
        if cause := rate_fault(float(sample_rate)):
            raise ValueError(f"sample_rate: got {cause}.")
        if not isinstance(waveforms, (list, tuple)) and np.ndim(waveforms) != 2:
            raise ValueError(
                f"waveform: got shape {np.shape(waveforms)}, wanted mono audio [S], a batch [B, S] "
                "or a list of [S]; average the channels first."
            )
        if not len(waveforms):
            raise ValueError("waveform: no clips.")
        lengths = {len(w) if np.ndim(w) == 1 else 0 for w in waveforms}
        if not isinstance(waveforms, (list, tuple)):
            self._check_axes(np.shape(waveforms), float(sample_rate))
        elif len(lengths) == 1 and lengths != {0}:
            self._check_axes((len(waveforms), *lengths), float(sample_rate))
        return [
            resample(
                _mono(w, f"waveform {i}" if len(waveforms) > 1 else "waveform"),
                float(sample_rate),
                self.rate,
            )
            for i, w in enumerate(waveforms)
        ]

    def _check_axes(self, shape: tuple[int, ...], sample_rate: float) -> None:
        """Refuse [S, channels], as `soundfile.read` gives it, which looks like S tiny clips.

        Raises:
          ValueError: clips shorter than an analysis window, and more of them than samples in each.
        """
        frontend = getattr(self.objective, "frontend", None)
        window = getattr(frontend, "window", 0.025 * self.rate) / self.rate * sample_rate
        clips, samples = shape
        if samples < clips and samples < window:
            raise ValueError(
                f"waveform: got shape {shape}, which as a batch [B, S] is {clips} clips of {samples} "
                "samples. If the channels come last, as soundfile.read gives them, average them: "
                "waveform.mean(axis=1). If it is a batch with its axes swapped: waveform.T."
            )
        if clips == 2:
            log.debug("waveform of shape %s: taken as two clips, not as two channels", shape)

    @property
    def _name(self) -> str:
        return type(self.objective).__name__

    @property
    def _list(self) -> str:
        return ", ".join(self.offers) or "nothing"

    @functools.cached_property
    def _on_device(self) -> Any:
        return jax.device_put(self.params)

    @functools.cached_property
    def _extra_on_device(self) -> Any:
        return jax.device_put(self.extra)

    @functools.cached_property
    def _programs(self) -> dict[str, Any]:
        return {}

    def _ask(self, name: str, example: Mapping[str, Any]) -> Any:
        """Return the output of a predictor for one example, without the batch axis."""
        program = self._programs.setdefault(name, jax.jit(self.objective.predictors()[name]))
        batch, two = (
            jax.tree.map(lambda x, n=n: jnp.stack([jnp.asarray(x)] * n), example) for n in (1, 2)
        )
        weights = self._on_device, self._extra_on_device
        try:
            one, both = (jax.eval_shape(program, *weights, examples) for examples in (batch, two))
        except KeyError as error:
            raise ValueError(
                f"predict: {name!r} needs {error}, which is neither in the batch ({', '.join(batch)}) nor "
                "was saved; pass further entries by name."
            ) from error
        except (FlaxError, TypeError) as error:
            shapes = ", ".join(f"{n} {np.shape(x)}" for n, x in example.items())
            raise ValueError(
                f"predict: {name!r}: the parameters do not fit entries of these shapes: {shapes}. "
                f"{opened.short(error)}"
            ) from error

        def alone(x: Any, small: Any, large: Any) -> np.ndarray:
            """Drop the axis along which examples are counted: the one that grows with their number."""
            grown = [i for i, n in enumerate(small.shape) if large.shape[i] != n]
            axes = tuple(i for i in grown if small.shape[i] == 1)
            return np.squeeze(np.asarray(x), axes)

        return jax.tree.map(alone, program(*weights, batch), one, both)


def check_finite(features: np.ndarray) -> None:
    """Raise ValueError where features [B, …] of clips are NaN or infinite."""
    finite = np.isfinite(features).reshape(len(features), -1).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"clip {int(np.argmin(finite))}: the model's features are NaN or infinite ({np.sum(~finite)} of "
            f"{len(features)} clips). Its parameters are finite: try float32, or another checkpoint."
        )


def _mono(waveform: Any, name: str) -> np.ndarray:
    audio = np.asarray(waveform)
    if audio.dtype.kind == "i" and audio.dtype.itemsize == 2:  # of either byte order
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
    if cause := fault(audio):
        raise ValueError(f"{name}: {cause}.")
    return audio
