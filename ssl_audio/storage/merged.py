"""The parameters of a run as those of an ordinary model: of an average, and without adapters.

Called by `checkpoint.py` for all who load a model; a run that goes on keeps its adapters apart.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from ssl_audio import config
from ssl_audio.storage import items, links, sealed
from ssl_audio.structs import TrainState


def ordinary(
    params: dict[str, Any], options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters and config of a run with its adapters merged into what they adapt.

    Raises:
      TypeError, ValueError: the config's `adapt` is none.
    """
    if not (adapt := options.get("adapt")):
        return params, options
    params = config.build(adapt, "layers", path="config.adapt").merged(params)
    return params, {name: value for name, value in options.items() if name != "adapt"}


def average(folder: pathlib.Path) -> Any:
    """Return the average of the parameters in a checkpoint; what did not learn is as it was.

    Raises:
      Damaged: it is.
    """
    found = links.average(items.load(folder / "optimizer"))
    if len(jax.tree.leaves(found)) == len(jax.tree.leaves(items.shapes(folder / "params"))):
        return found
    sealed.check(folder, ("params",))
    return filled(found, items.load(folder / "params"))


def served(state: TrainState) -> Any:
    """Return the parameters that those who load a training state get: their average, where it has one."""
    return filled(links.averaged(state.opt_state), state.params)


def filled(part: Any, params: Any) -> Any:
    """Return parameters with some replaced; None: none are."""
    if part is None or not isinstance(params, Mapping):
        return params if part is None else part
    return {k: filled(part[k], v) if k in part else v for k, v in params.items()}
