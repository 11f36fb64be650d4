"""A trained model as one function of arrays, from waveform to features: what leaves this package.

For clips of one length, in batches of any size. Called by `convert/stablehlo.py` and `onnx_file.py`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.distributed.sharding import path_name
from ssl_audio.heads.readout import frame_tokens
from ssl_audio.inference import kinds
from ssl_audio.inference.classifier import Classifier
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.probe import ProbeClassifier
from ssl_audio.storage import written


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A function of parameters and waveforms.

    Attributes:
      run: (params, audio float32 [B, S] in [-1, 1]) → outputs by name, float32.
      params: path → array, as in the model.safetensors of an exported folder; what the model needs beside
        them under extra/, as in its extra.safetensors.
      samples: S.
      rate: of the waveforms, Hz.
      outputs: name → what it is, with its axes.
      times: centres of the columns of "frames", ms; None: there are no frames.
    """

    run: Callable[[Mapping[str, Any], Any], dict[str, Any]]
    params: dict[str, np.ndarray]
    samples: int
    rate: int
    outputs: dict[str, str]
    times: np.ndarray | None = None

    def check(self, got: Mapping[str, np.ndarray], audio: np.ndarray, limit: float) -> float:
        """Return how far outputs for `audio` are from ours at most, |got - ours| / |ours| of a clip.

        Raises:
          ValueError: one has another shape, is not finite, or is further off than `limit`.
        """
        with jax.default_matmul_precision("highest"):
            ours = jax.jit(self.run)(self.params, audio)
        worst = 0.0
        for name, wanted in ours.items():
            found, wanted = np.asarray(got[name], np.float64), np.asarray(wanted, np.float64)
            if found.shape != wanted.shape:
                raise ValueError(f"{name}: got shape {found.shape}, wanted {wanted.shape}.")
            flat = (found - wanted).reshape(len(wanted), -1)
            norm = np.linalg.norm(wanted.reshape(len(wanted), -1), axis=1)
            apart = float(np.max(np.linalg.norm(flat, axis=1) / np.maximum(norm, 1e-12)))
            if not apart <= limit:
                raise ValueError(
                    f"{name}: differs by {apart:.1e} from ours, wanted at most {limit:g}."
                )
            worst = max(worst, apart)
        return worst


def program(model: Any, seconds: float | None = None) -> Program:
    """Return a model's function: of an encoder "vector" [B, D], the mean over its tokens as `embed` gives
    it, and "frames" [B, T, D'] as `frames` does; of a classifier "logits" [B, C]; of an audio-text model
    "vector", of length 1.

    Args:
      model: what `ssl_audio.load` returned.
      seconds: length of the clips; None: as in training. Longer ones are for `Encoder`, which cuts them.

    Raises:
      ValueError: the length is none, or longer than in training; the model does not hear.
    """  # noqa: D205
    most = written.samples(model.config)
    samples = most
    if seconds is not None:
        samples = round(seconds * model.rate) if math.isfinite(seconds) else 0
    least = getattr(getattr(model.objective, "frontend", None), "window", 1)
    if not least <= samples <= most:
        raise ValueError(
            f"--seconds {seconds}: wanted {least / model.rate:g} to {most / model.rate:g}, the clips of "
            "the training."
        )
    offers = model.objective.predictors()
    function, outputs, times = _features, {}, None
    if "logits" in offers:
        function, outputs = _classes(model, samples), {"logits": "[B, classes]"}
    elif "embed_audio" in offers:
        if samples != most:
            raise ValueError(
                f"--seconds {seconds}: an audio-text model takes {most / model.rate:g} s."
            )
        length = model.objective.towers["audio"].length
        function = _named(offers["embed_audio"], "vector", samples, length)
        outputs = {"vector": "[B, D], of length 1"}
    elif "encode" in offers:
        function, columns = _features(model, samples)
        outputs = {"vector": "[B, D], mean over all tokens", "frames": "[B, T, rows * D]"}
        times = model.times(columns)
    else:
        raise kinds.refusal(model, "encoder")
    leaves, tree = jax.tree_util.tree_flatten_with_path((model.params, {"extra": model.extra}))
    names = [path_name(path[1:]) for path, _ in leaves]

    def run(params: Mapping[str, Any], audio: Any) -> dict[str, Any]:
        own, beside = jax.tree.unflatten(tree, [params[name] for name in names])
        found = function(own, beside["extra"], audio)
        return {name: value.astype(jnp.float32) for name, value in found.items()}

    params = {name: np.asarray(value) for name, (_, value) in zip(names, leaves, strict=True)}
    return Program(run, params, samples, model.rate, outputs, times)


def _named(predictor: Any, name: str, samples: int, length: str = "length") -> Any:
    def run(params, extra, audio):
        count = jnp.full(audio.shape[:1], samples, jnp.int32)
        return {name: predictor(params, extra, {"audio": audio, length: count})}

    return run


def _classes(model: Any, samples: int) -> Any:
    """Return the pass of `Classifier.scores` on clips of one window, up to the logits.

    Raises:
      ValueError: a probe on an encoder that hears more than it gives of clips that are so short.
    """
    if not isinstance(model, Classifier):
        return _named(model.objective.predictors()["logits"], "logits", samples)
    if isinstance(model, ProbeClassifier):
        return _probe(model, samples)
    # The samples of a clip by their numbers, as they are heard: cut, or said again.
    (columns, piece), *more = model._cut(np.arange(samples), model.fill, model._heard)
    if more:
        return _named(model.objective.predictors()["logits"], "logits", samples)
    places, size = model._ended(piece, model.fill), model._heard(columns)
    objective = model.objective if columns == model._most else model._sized(columns)
    logits = objective.predictors()["logits"]

    def run(params, extra, audio):
        audio = audio[:, places] if len(places) > samples else audio[:, : len(places)]
        return {"logits": logits(params, extra, _padded(audio, size))}

    return run


def _probe(model: ProbeClassifier, samples: int) -> Any:
    most = written.samples(model.config)
    reads = model.objective.reads == "encode"
    columns, padded, heard = _widths(model.encoder, samples) if reads else (0, samples - most, 0)
    if padded != columns:  # what is heard of the silence behind a short clip would count
        raise ValueError(
            f"--seconds {samples / model.rate:g}: a probe on this encoder takes {most / model.rate:g} s: "
            "leave it out, and put silence behind shorter clips."
        )
    if not reads:
        return _named(model.objective.logits, "logits", samples)
    objective = dataclasses.replace(model.objective, base=model.encoder._sized(columns))
    size = model.encoder._samples(columns)

    def run(params, extra, audio):
        return {"logits": objective.logits(params, extra, _padded(audio[:, :heard], size))}

    return run


def _features(encoder: Encoder, samples: int) -> tuple[Any, int]:
    """Return the pass of `Encoder.embed` on clips of one window, and the columns that it gives."""
    columns, padded, heard = _widths(encoder, samples)
    size, rows = encoder._samples(padded), encoder.rows
    encode = encoder._sized(padded).predictors()["encode"]

    def run(params, extra, audio):
        frames = frame_tokens(encode(params, extra, _padded(audio[:, :heard], size)))[:, :columns]
        tokens = frames.reshape(*frames.shape[:2], rows, frames.shape[2] // rows)
        return {"vector": jnp.mean(tokens, axis=(1, 2)), "frames": frames}

    return run, columns


def _widths(encoder: Encoder, samples: int) -> tuple[int, int, int]:
    """Return the columns of so much sound, those that are encoded, and the samples that are heard.

    More may be encoded: of silence, where the encoder hears it, or so that few programs are compiled.
    """
    columns = encoder._columns(samples, encoder.pad)
    (padded, piece), *more = encoder._cut(np.arange(samples), encoder.pad)
    if more:  # a clip of the training's length that `embed` takes in two: here in one
        return columns, columns, min(samples, encoder._samples(columns))
    return columns, padded, len(piece.audio)


def _padded(audio: Any, size: int) -> dict[str, Any]:
    """Return a batch of audio [B, S] with silence up to so many samples."""
    length = jnp.full(audio.shape[:1], audio.shape[1], jnp.int32)
    return {"audio": jnp.pad(audio, ((0, 0), (0, size - audio.shape[1]))), "length": length}
