"""Keep a probe: a trained head and the encoder under it, in a folder that `ssl_audio.load` opens.

Called by `evaluate --save` and by the few-shot loop.
"""

import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config as configs
from ssl_audio.eval import calibrate
from ssl_audio.eval.base import Fitted
from ssl_audio.inference.calibration import NAME, Calibration
from ssl_audio.inference.encoder import Encoder
from ssl_audio.inference.model import Model
from ssl_audio.inference.window_encoder import WindowEncoder
from ssl_audio.objectives.base import Encoding
from ssl_audio.objectives.probe import encoded, standardised
from ssl_audio.storage import atomic, exported, written

PARTS = ("frontend", "tokenizer", "encoder")
KEPT = ("audio", "text")  # entries of batches that say what the encoder takes
ROWS = 64  # of features that a head is given at a time

log = logging.getLogger(__name__)


def check(
    folder: str | os.PathLike, kinds: Sequence[str], classifiers: Mapping[str, Any], shots: int
) -> None:
    """See that there will be one probe to keep and that it can be written, before the long work.

    Raises:
      ValueError: there will not, or it cannot.
    """
    if shots:
        raise ValueError(
            "save: not with shots, which are drawn again and again; label clips instead."
        )
    if not {"encoder", "statistics"} & set(kinds):
        raise ValueError(
            f"save: features: got {', '.join(kinds)}; a probe on 'encoder' or 'statistics' is saved."
        )
    if len(classifiers) != 1:
        got = ", ".join(classifiers) or "none"
        raise ValueError(f"save: classifiers: got {got}, wanted the one to save.")
    for name, classifier in classifiers.items():
        if not hasattr(classifier, "fit"):
            raise ValueError(
                f"save: classifier {name!r} keeps its training clips, which is no model; wanted one that "
                "is trained, as 'linear'."
            )
    check_folder(folder)


def check_folder(folder: str | os.PathLike) -> None:
    """See that a probe can be written there.

    Raises:
      ValueError: it cannot, or a training run would be mixed with it.
    """
    folder = pathlib.Path(folder)
    if (folder / "checkpoints").exists():
        raise ValueError(f"{folder}: the workdir of a training run; save to another folder.")
    atomic.check_folder(folder)


def reading(encoder: Encoder, view: str, layer: int, pool: str, x: np.ndarray) -> dict[str, Any]:
    """Return the options of `objectives.probe.Probe` that say what a head on features x reads."""
    how: dict[str, Any] = dict(view=view, layer=layer)
    if view == "pooled":
        how |= dict(pool=pool, reads="pooled" if isinstance(encoder, WindowEncoder) else "encode")
    if view in ("tokens", "all"):
        how["columns"] = x.shape[-2 if view == "tokens" else -3]
    return how


def calibrated(
    classifier: Any,
    x: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    groups: np.ndarray,
    best: int,
    view: str,
) -> Calibration | None:
    """Return a calibration fitted to what heads say of training clips that they have not learned from.

    Each group of clips is left out in turn. None, with a warning: there are too few clips.

    Args:
      classifier: has `fit`.
      x: features of one layer [n, …].
      y: labels [n], or multi-hot [n, C].
      train: clips to learn from [n].
      groups: of clips that are left out together [n].
      best: number of the classifier's choice.
      view: of the features, see `objectives.probe.Probe`.
    """
    several = y.ndim == 2
    labels = np.arange(y.shape[1]) if several else np.unique(y[train])
    logits, truth = [], []
    for group in np.unique(groups[train]):
        held, rest = train & (groups == group), train & (groups != group)
        whole = rest.any() if several else np.array_equal(np.unique(y[rest]), labels)
        if whole:  # else there would be a head of fewer classes
            fitted = classifier.fit(x, y, rest, best)
            logits.append(_logits(fitted, x[held], view))
            truth.append(y[held] if several else y[held][:, None] == labels[None])
    try:
        if not logits:
            raise ValueError("calibration: without one group of clips or another a class has none.")
        return calibrate.fit(np.concatenate(logits), np.concatenate(truth), several)
    except ValueError as error:
        log.warning("the probe is not calibrated: %s", error)
        return None


def _logits(fitted: Fitted, x: np.ndarray, view: str) -> np.ndarray:
    """Return what a head says of features [n, …]: [n, C]."""
    head: Any = configs.build(dict(fitted.head), "heads")
    read = fitted.params["centre"], fitted.params["gain"]

    @jax.jit
    def decide(rows: Any) -> Any:
        seen = encoded(standardised(rows, *map(jnp.asarray, read)), view)
        return head.apply({"params": fitted.params["head"]}, seen)

    return np.concatenate([decide(x[i : i + ROWS]) for i in range(0, len(x), ROWS)])


def write(
    folder: str | os.PathLike,
    model: Model,
    fitted: Fitted,
    names: Sequence[str],
    how: Mapping[str, Any],
    about: Mapping[str, Any],
    calibration: Calibration | None = None,
) -> pathlib.Path:
    """Write a head on the features of a model.

    Args:
      folder: to write.
      model: whose encoder was read; as loaded, or its `encoder`.
      fitted: the head.
      names: of all classes that `fitted.labels` may number.
      how: options of `objectives.probe.Probe` that say what the head reads.
      about: what is known of it, kept in the config: the data, its accuracy.
      calibration: of its logits; None: none, and that of another probe that was there is removed.
    """
    base, params = _base(model, how.get("reads", "encode"))
    chosen = [str(names[label]) for label in fitted.labels]
    objective = dict(kind="probe", base=base, head=dict(fitted.head), **how)
    entries = {name: found for name in KEPT if (found := written.entry(model.config, name))}
    entries["label"] = dict(kind="entries:Labels", classes=len(chosen), names=chosen)
    config: dict[str, Any] = dict(objective=objective, data=dict(entries=entries))
    if "rate" in (data := model.config.get("data", {})):
        config["data"]["rate"] = data["rate"]
    if "inference" in model.config:
        config["inference"] = model.config["inference"]
    config["probe"] = dict(about) | ({"of": model.origin} if model.origin else {})
    made = exported.write(folder, dict(base=params, **fitted.params), config)
    (made / NAME).unlink(missing_ok=True)
    if calibration is not None:
        calibration.write(made)
    return made


def _base(model: Model, reads: str) -> tuple[dict[str, Any], Any]:
    """Return config and parameters of the encoder alone, or of all of the model where it takes more."""
    objective, params = dict(model.config["objective"]), model.params
    encoder = model.encoder
    alone = type(encoder) is Encoder and type(encoder.objective).encode is Encoding.encode
    if not alone or reads != "encode":
        return objective, params
    towers = objective.get("towers")
    parts = towers["audio"] if isinstance(towers, Mapping) else objective
    kept = {name: some for name in PARTS[1:] if (some := encoder.params.get(name))}
    return dict(kind="features", **{name: parts[name] for name in PARTS}), kept
