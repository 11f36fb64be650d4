"""From a folder to a model in use: `load`, part of the public API."""

import contextlib
import importlib
import logging
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from ssl_audio import config, slots, startup
from ssl_audio.distributed import sharding
from ssl_audio.inference.model import Model
from ssl_audio.storage import checkpoint, hub, opened, written
from ssl_audio.versions import __version__

# Predictors → the interface of models that offer all of them. The first that fits counts; a model that
# fits none is a `Model`. An objective's own `interface` comes before all.
INTERFACES: Mapping[tuple[str, ...], str] = {
    ("embed_audio",): "ssl_audio.inference.audio_text:AudioTextModel",
    ("embed_text",): "ssl_audio.inference.audio_text:AudioTextModel",
    ("embed_image",): "ssl_audio.inference.audio_text:AudioTextModel",
    ("encode", "logits"): "ssl_audio.inference.classifier:Classifier",
    ("encode",): "ssl_audio.inference.encoder:Encoder",
}
ANY = "ssl_audio.inference.model:Model"

log = logging.getLogger(__name__)


def load(
    path: str | os.PathLike, step: int | str | None = None, *, trust: Iterable[str] = ()
) -> Any:
    """Load the model of a training run, or of an exported or converted folder, here or on the Hub.

    A folder's config.json imports nothing but ssl_audio, unless you `trust` another package by name.

    Args:
      path: the run's workdir, or the folder; or hf://OWNER/NAME[@REVISION], of which config, parameters and
        calibration are fetched into huggingface_hub's cache.
      step: which checkpoint of a run; None: the newest; "best": see `Checkpoint.best`.
      trust: packages of others whose classes the config may name, as ["mylab"]; their code runs.

    Returns:
      The class that the objective names as its `interface`; else an `AudioTextModel` for models of audio,
      text and pictures, a `Classifier` for encoders with classes, an `Encoder` for others, and a `Model` for
      the rest. All have `predict`.

    Raises:
      FileNotFoundError: no such folder, not a workdir, no checkpoint (of that step) yet.
      ValueError: the run's config or parameters do not fit this version of the package, or it names a
        class of a package that is not trusted.
    """
    folder = hub.local(path).expanduser().resolve()
    with slots.trusting(trust), hub.from_cache():
        return _load(os.fspath(path), folder, step)


def _load(asked: str, path: pathlib.Path, step: int | str | None) -> Any:
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path}: no such folder; wanted the workdir of a training run, or a folder of converted "
            "weights, or an address on the Hugging Face Hub: hf://OWNER/NAME. Published weights of other "
            "libraries are converted first: `ssl-audio convert --help`."
        )
    startup.keep_programs()
    params, options = checkpoint.load_params(path, step)
    _check_finite(params, str(path))
    where = f"{path}/config.json does not fit ssl_audio {__version__}"
    if "objective" not in options:
        raise ValueError(f"{where}: it has no 'objective'.")
    try:
        objective = config.build(options["objective"], "objectives")
        offered = objective.predictors()
    except Exception as error:  # whatever options that do not fit make a class raise
        raise ValueError(f"{where}: {opened.short(error)}{config.culprit(error)}") from error
    if not offered:
        raise ValueError(f"{path}: {type(objective).__name__} has no predictors.")
    _check_window(objective, options, str(path))
    objective.prepare()
    which = "" if step is None else f", step {step}"
    extra = beside(path, step, objective)
    _check_finite(extra, str(path))
    model = interface(objective)(
        objective,
        params,
        options,
        extra=extra,
        origin=f"{asked if hub.is_address(asked) else path}{which}",
    )
    try:
        wanted, state = _shapes(objective, model.blank(), options)
    except FileNotFoundError as error:  # a teacher's: needed to train, not to encode
        log.warning("%s: its parameters cannot be checked: %s", path, error)
        return model.with_files(path, step)
    except KeyError as error:
        log.warning(
            "%s: its parameters cannot be checked: `init` needs %s, which a batch of %s lacks",
            path, error, type(model).__name__,
        )  # fmt: skip
        return model.with_files(path, step)
    except Exception as error:
        raise ValueError(f"{where}: {opened.short(error)}{config.culprit(error)}") from error
    checkpoint.check_shapes(params, wanted, str(path))
    checkpoint.check_shapes(extra, {name: state[name] for name in extra}, f"{path}, extra")
    return model.with_files(path, step)


def _shapes(objective: Any, blank: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return what `init` gives: of a model's own batch, or of one that has all that its training had."""
    try:
        return jax.eval_shape(objective.init, jax.random.key(0), blank)
    except KeyError:
        batch = {**_trained_on(options), **blank}
        return jax.eval_shape(objective.init, jax.random.key(0), batch)


def _trained_on(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shapes of a batch of one clip with all of a run's entries that can be built here."""
    found = {}
    for entry in ((options.get("data") or {}).get("entries") or {}).values():
        with contextlib.suppress(ValueError, TypeError, OSError, ImportError, RuntimeError):
            made: Any = config.build(entry, "data")
            for name, (shape, kind) in made.spec().items():
                found[name] = jax.ShapeDtypeStruct((1, *shape), kind)
    return found


def interface(objective: Any) -> type[Model]:
    """Return the class that shows users a trained objective.

    Raises:
      ValueError: the objective names one that does not exist or is no `Model`.
    """
    there = set(objective.predictors())
    offered = (INTERFACES[names] for names in INTERFACES if there.issuperset(names))
    # Of the class and not of the object, whose fields come from a config.
    named = type(objective).interface or next(offered, ANY)
    module, _, name = named.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{type(objective).__name__}.interface: got {named!r}, wanted 'module:Class': {error}."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ValueError(
            f"{type(objective).__name__}.interface: {named} is no subclass of {Model.__qualname__}."
        )
    return found


def _check_window(objective: Any, options: Mapping[str, Any], where: str) -> None:
    """Warn of a folder that `convert` wrote with a window of fractions of a second, as it once did.

    Such models hear whole clips. Those with a fixed number of frames, and runs, have the window they have.
    """
    frontend, samples = getattr(objective, "frontend", None), written.entry(options, "audio")
    # Classes with an interface of their own came later; some hear chunks that are this short.
    fixed = (
        "steps" in options
        or type(objective).interface
        or getattr(frontend, "frames", None) is not None
    )
    rate, samples = getattr(frontend, "rate", None), samples.get("samples")
    if not fixed and rate and samples and samples < rate:
        log.warning(
            "%s: its window is %.2g s, for what an earlier version converted: features of longer clips are "
            "means over windows so short, and far from the published model's. Convert it again.",
            where, samples / rate,
        )  # fmt: skip


def _check_finite(params: Any, where: str) -> None:
    """Raise ValueError naming the parameters that are NaN or infinite."""
    bad = [
        sharding.path_name(path)
        for path, values in jax.tree_util.tree_leaves_with_path(params)
        if jax.numpy.issubdtype(values.dtype, jax.numpy.inexact)
        and not np.isfinite(np.asarray(values, np.float32)).all()
    ]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise ValueError(
            f"{where}: parameter {bad[0]}{more}: NaN or infinite values. Load another step, or train anew."
        )


def beside(path: str | os.PathLike, step: int | str | None, objective: Any) -> Mapping[str, Any]:
    """Return what an objective's predictors need beside parameters, as far as it was saved with them.

    Args:
      path, step: of the model, as `load` takes them.
      objective: has `needs`.
    """
    try:
        return checkpoint.load_extra(path, objective.needs, step)
    except FileNotFoundError as error:
        log.warning("%s", error)
        return {}
