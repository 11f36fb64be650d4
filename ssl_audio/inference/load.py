"""From a folder to a model in use: `load`, part of the public API."""

import os
import pathlib

import jax

from ssl_audio import config
from ssl_audio.inference.encoder import Encoder, log
from ssl_audio.storage import checkpoint
from ssl_audio.versions import __version__


def load(path: str | os.PathLike, step: int | str | None = None) -> Encoder:
    """Load the encoder of a training run, or of an exported or converted folder.

    Args:
      path: the run's workdir, or the folder.
      step: which checkpoint of a run; None: the newest; "best": see `Checkpoint.best`.

    Raises:
      FileNotFoundError: no such folder, not a workdir, no checkpoint (of that step) yet.
      ValueError: the run's config or parameters do not fit this version of the package.
    """
    path = pathlib.Path(path).expanduser().resolve()
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder; wanted the workdir of a training run.")
    params, options = checkpoint.load_params(path, step)
    where = f"{path}/config.json does not fit ssl_audio {__version__}"
    try:
        objective = config.build(options["objective"], "objectives")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error
    if hasattr(objective, "towers"):
        from ssl_audio.inference.audio_text import JointEncoder  # which imports this file

        encoder: Encoder = JointEncoder.of(objective, params, options)
    elif "encode" not in objective.predictors():
        raise ValueError(f"{path}: {type(objective).__name__} has no encoder to offer.")
    else:
        encoder = Encoder(objective, params, options)
    try:
        wanted = jax.eval_shape(objective.init, jax.random.key(0), encoder.blank())[0]
    except FileNotFoundError as error:  # a teacher's: needed to train, not to encode
        log.warning("%s: its parameters cannot be checked: %s", path, error)
        return encoder
    checkpoint.check_shapes(params, wanted, str(path))
    return encoder
