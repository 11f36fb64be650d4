"""Running statistics of batch normalisation, in a loss that applies modules as often as it likes.

They are parameters, in their place among the others. Each training pass returns parameters with renewed
statistics, which the next pass is given, so the order of passes is the order of the code; what has changed at
the end is `Loss.renewed`, and `train/step.py` puts it into the parameters after the update.
"""

from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from ssl_audio.layers.norms import STATISTICS, Stored
from ssl_audio.objectives.base import STORED, replaced


def applied(module: Any, params: Any, *args: Any, renew: bool, **how: Any) -> tuple[Any, Any]:
    """Apply a linen module; return its result, and its parameters with renewed statistics.

    Args:
      module: whose batch norms, if it has any, are meant.
      params: its parameters.
      *args: of its `__call__`, as `**how`; `rngs` among them.
      renew: normalise with the batch's statistics, as in training; False: with the stored ones, and the
        parameters come back as they are.
    """
    if not renew:
        return module.apply({"params": params}, *args, **how), params
    out, found = module.apply({"params": params}, *args, mutable=[STATISTICS], **how)
    return out, replaced(params, found.get(STATISTICS, {}))


def renewed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Any:
    """Return the part of `after` that is not what `before` has in its place, for `Loss.renewed`; None: none.

    Args:
      before: the parameters that a loss was given.
      after: the same, as they came out of its last pass.
    """
    old, new = flatten_dict(before), flatten_dict(after)
    new = {name: value for name, value in new.items() if value is not old[name]}
    return unflatten_dict(new) or None


def held_as(teacher: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a teacher whose running statistics are held wherever those of the model are; see `Stored`.

    Where the model's batch norms do not learn, as in a frozen encoder, the teacher's would else see batches
    that the model's do not, and would be another model's. `released` is the way back.
    """
    model = flatten_dict(params)
    found = flatten_dict(teacher, keep_empty_nodes=True)
    held = {n: Stored(v) if isinstance(model.get(n), Stored) else v for n, v in found.items()}
    return unflatten_dict(held)


def released(teacher: Mapping[str, Any]) -> dict[str, Any]:
    """Return a teacher as it was before `held_as`, with the statistics that its passes renewed."""
    found = flatten_dict(teacher, keep_empty_nodes=True)
    return unflatten_dict({n: v.value if isinstance(v, Stored) else v for n, v in found.items()})


def kept(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return `after` with the running statistics of `before`, for a teacher that has its own.

    Args:
      before: parameters of a model.
      after: others of the same model.
    """
    if after.keys() >= {*STORED}:  # a batch norm's
        return {**after, "mean": before["mean"], "var": before["var"]}
    return {
        name: kept(before[name], part) if isinstance(part, Mapping) else part
        for name, part in after.items()
    }
