"""The links of an optimizer's chain, in memory and in a checkpoint, matched by what they keep.

A link that keeps nothing (a clip, weight decay) may come or go between two starts; called by `checkpoint.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from ssl_audio.distributed.sharding import path_name


def same(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether two optimizer states, phase → chain, have the same arrays at the same places."""

    def shapes(tree):
        return {path_name(p): tuple(v.shape) for p, v in jax.tree_util.tree_leaves_with_path(tree)}

    return shapes(stored) == shapes(wanted)


def target(stored: Mapping[str, Any], wanted: Mapping[str, Any], replicated: Any) -> Any:
    """Return what to restore of a stored state: its arrays, where they are wanted in the layout wanted.

    Raises:
      ValueError: the states are of different models, or an average is kept in one of them only.
    """
    if stored.keys() != wanted.keys():
        raise ValueError(f"optimizer: phases {', '.join(stored)}; wanted {', '.join(wanted)}.")
    layouts: dict[str, dict[tuple, dict[str, Any]]] = {}
    for phase in wanted:
        layouts[phase] = {_kind(link): _named(link) for link in wanted[phase] if _kind(link)}
        kinds = {_kind(link) for link in stored[phase] if _kind(link)}
        for kind in kinds ^ layouts[phase].keys():
            if "average" in kind:
                raise ValueError(
                    "config.optim.average, average_every: an average of the parameters cannot be "
                    "switched on or off in a run that has begun. Use another --workdir."
                )

    def leaf(path, found):
        phase, link = path[0].key, path[1].idx
        name = path_name(path[2:])
        match = layouts[phase].get(_kind(stored[phase][link]), {}).get(name)
        if match is not None and tuple(match.shape) != tuple(found.shape):
            raise ValueError(
                f"optimizer, {phase}/{name}: {tuple(found.shape)} in the checkpoint, "
                f"{tuple(match.shape)} now."
            )
        layout = replicated if match is None else match.sharding
        return jax.ShapeDtypeStruct(found.shape, found.dtype, sharding=layout)

    return jax.tree_util.tree_map_with_path(leaf, stored)


def matched(
    restored: Mapping[str, Any], wanted: Mapping[str, Any], first: Callable[[], Any] | None
) -> dict[str, Any]:
    """Return restored arrays in the chains of `wanted`; links that are new begin as in `first()`."""
    fresh: Any = None
    found = {}
    for phase, chain in wanted.items():
        known = {_kind(link): _named(link) for link in restored[phase] if _kind(link)}
        made = []
        for number, link in enumerate(chain):
            kind = _kind(link)
            if kind and kind not in known:
                if fresh is None:
                    if first is None:
                        raise ValueError(f"optimizer, {phase}: nothing stored for {kind}.")
                    fresh = first().opt_state
                made.append(fresh[phase][number])
                continue
            arrays = known.get(kind, {})
            made.append(
                jax.tree_util.tree_map_with_path(
                    lambda path, _, arrays=arrays: arrays[path_name(path)], link
                )
            )
        found[phase] = tuple(made)
    return found


def average(stored: Mapping[str, Any]) -> Any:
    """Return the average of the parameters inside the stored state of the main phase."""
    return next(link["average"] for link in stored["main"] if _is_average(link))


def averaged(opt_state: Mapping[str, Any]) -> Any:
    """Return the average of the parameters that the main phase keeps, or None when it keeps none."""
    found = [link["average"] for link in opt_state.get("main", ()) if _is_average(link)]
    return found[0] if found else None


def begun(opt_state: Mapping[str, Any], params: Any) -> dict[str, Any]:
    """Return optimizer states whose averages are these parameters, as before the first update.

    Each in a buffer of its own, since a step donates both.
    """

    def copied(old: Any, new: Any) -> Any:
        if isinstance(old, Mapping):
            return {name: copied(part, new[name]) for name, part in old.items()}
        return jax.device_put(new, old.sharding, may_alias=False)

    def link(state: Any) -> Any:
        return (
            state | {"average": copied(state["average"], params)} if _is_average(state) else state
        )

    return {phase: tuple(map(link, chain)) for phase, chain in opt_state.items()}


def _is_average(state: Any) -> bool:
    return isinstance(state, dict) and "average" in state


def _named(link: Any) -> dict[str, Any]:
    return {path_name(p): v for p, v in jax.tree_util.tree_leaves_with_path(link)}


def _kind(link: Any) -> tuple[str, ...]:
    """Return the names of what a link keeps, as ("count", "mu", "nu"); nothing: ()."""
    return tuple(sorted({name.partition("/")[0] for name in _named(link)}))
