"""Save, resume and warm-start runs with Orbax; one item per concern, so an encoder loads alone.

The data position needs no file: batches depend on (seed, step) only, whatever the number of hosts.
"""

import dataclasses
import json
import logging
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from ssl_audio.distributed.sharding import path_name
from ssl_audio.storage import exported, written
from ssl_audio.structs import TrainState

log = logging.getLogger(__name__)

FORMAT = 1  # of the items and the tree in a checkpoint; a newer program reads older ones


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """When to save.

    Attributes:
      every: duration between saves, 0: none; the last step is always saved.
      keep: number of newest checkpoints to keep.
      keep_every: duration between checkpoints kept for good; 0: none.
      best: name of a result of `config.evals` ("test/accuracy"): the parameters of the step where it was
        highest are kept beside, for `load(…, step="best")`. "-held_out/loss": where it was lowest.
    """

    every: int | str = "5%"
    keep: int = 2
    keep_every: int | str = 0
    best: str = ""

    def __post_init__(self):
        if self.keep < 1:
            raise ValueError(
                f"keep: wanted at least 1, got {self.keep}: a run must be able to go on."
            )


class Checkpoints:
    """The checkpoints of a workdir."""

    def __init__(
        self, workdir: str | pathlib.Path, keep: int = 2, keep_every: int = 0, best: str = ""
    ):
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every or None,
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,
        )
        folder = pathlib.Path(workdir).resolve() / "checkpoints"
        self.manager = ocp.CheckpointManager(folder, options=options)
        self.best = None
        if best:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=1, best_fn=lambda found: found["score"], cleanup_tmp_directories=True
            )
            self.best = ocp.CheckpointManager(folder.with_name("best"), options=options)
        self.name, self.sign = best.removeprefix("-"), -1.0 if best.startswith("-") else 1.0

    def save(self, state: TrainState, meta: dict[str, Any]) -> None:
        """Start writing the state; returns as soon as the arrays have left the devices."""
        step = int(state.step)
        if step == self.manager.latest_step():
            return
        items = {
            "params": ocp.args.StandardSave(state.params),
            "optimizer": ocp.args.StandardSave(state.opt_state),
            "key": ocp.args.JaxRandomKeySave(state.key),
            "meta": ocp.args.JsonSave({"format": FORMAT, **meta}),
        }
        if jax.tree.leaves(state.extra):  # Orbax refuses an empty item
            items["extra"] = ocp.args.StandardSave(state.extra)
        if not self.manager.save(step, args=ocp.args.Composite(**items), force=True):
            raise RuntimeError(f"checkpoint: step {step} was not saved.")

    def save_best(self, state: TrainState, results: Mapping[str, float]) -> None:
        """Keep the parameters (their average, if there is one) when they score best so far.

        Raises:
          ValueError: no result has the name that was asked for.
        """
        if self.best is None or int(state.step) in self.best.all_steps():
            return
        if self.name not in results:
            raise ValueError(
                f"config.checkpoint.best: no result '{self.name}'; there are {', '.join(results)}."
            )
        params = averaged(state.opt_state) or state.params
        self.best.save(
            int(state.step),
            args=ocp.args.Composite(params=ocp.args.StandardSave(params)),
            metrics={"score": self.sign * results[self.name]},
        )

    def resume(self, wanted: TrainState) -> TrainState | None:
        """Return the newest state in the layout of `wanted` (shapes with shardings), or None.

        Raises:
          ValueError: the checkpoint is of another model or optimizer, with the differences, or of a
            newer format.
        """
        step = self.manager.latest_step()
        if step is None:
            return None
        folder = pathlib.Path(self.manager.directory) / str(step)
        check_format(folder)
        check_shapes(_shapes(folder / "params"), wanted.params, str(folder))
        replicated = wanted.step.sharding
        items = {
            "params": ocp.args.StandardRestore(wanted.params),
            "optimizer": ocp.args.StandardRestore(wanted.opt_state),
            "key": ocp.args.JaxRandomKeyRestore(ocp.ArrayRestoreArgs(sharding=replicated)),
        }
        if jax.tree.leaves(wanted.extra):
            items["extra"] = ocp.args.StandardRestore(wanted.extra)
        found = self.manager.restore(step, args=ocp.args.Composite(**items))
        return TrainState(
            step=jax.device_put(np.int32(step), replicated),
            params=found["params"],
            opt_state=found["optimizer"],
            extra=found["extra"] if "extra" in items else wanted.extra,
            key=jax.device_put(found["key"], replicated),
        )

    def stop_asked(self, step: int) -> bool:
        """Tell whether the cluster is about to take the machines away (the same step on all hosts)."""
        return self.manager.reached_preemption(step)

    def wait(self) -> None:
        """Wait for the writes under way."""
        for manager in filter(None, (self.manager, self.best)):
            manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the writes under way, then let go of the folder."""
        self.wait()
        for manager in filter(None, (self.manager, self.best)):
            manager.close()


def steps(path: pathlib.Path, kind: str = "checkpoints") -> list[int]:
    """Return the steps of which a workdir holds whole checkpoints, in order."""
    return sorted(int(p.name) for p in (path / kind).glob("*") if p.name.isdigit())


def load_params(
    path: str | pathlib.Path, step: int | str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load the parameters of a workdir as numpy arrays, whatever devices wrote them.

    Args:
      path: the workdir, or a plain folder (see `exported`).
      step: which checkpoint of a run; None: the newest; "best": see `Checkpoint.best`.

    Returns:
      The parameters (their moving average, if the run kept one) and the run's config.

    Raises:
      FileNotFoundError: there is no run, no checkpoint yet, or none of that step.
    """
    path = pathlib.Path(path).resolve()
    if exported.is_plain(path):
        if step is not None:
            raise FileNotFoundError(f"{path}: a plain folder, without steps; there is no {step}.")
        return exported.read(path)
    config = written.read(path)
    place = path / ("best" if step == "best" else "checkpoints")
    found = steps(path, place.name)
    if not found:
        raise FileNotFoundError(f"{place}: no checkpoint yet.")
    if step == "best":
        return _load_tree(place / str(found[-1]) / "params"), config
    if step is not None and step not in found:
        raise FileNotFoundError(f"{path}: no checkpoint of step {step}; there are {found}.")
    folder = place / str(found[-1] if step is None else step)
    check_format(folder)
    optim = config.get("optim", {})
    if optim.get("average") or optim.get("average_every"):
        chain = _load_tree(folder / "optimizer")["main"]
        average = [
            link["average"] for link in chain if isinstance(link, dict) and "average" in link
        ]
        return average[0], config
    return _load_tree(folder / "params"), config


def load_extra(path: str | pathlib.Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Load named entries of `extra` from a workdir's newest checkpoint, as numpy arrays.

    Raises:
      FileNotFoundError: there is no checkpoint, or it has no such entry.
    """
    path = pathlib.Path(path).resolve()
    newest = steps(path)[-1:]
    place = path / "checkpoints" / "".join(map(str, newest)) / "extra"
    extra = _load_tree(place) if names and newest and place.is_dir() else {}
    if missing := [name for name in names if name not in extra]:
        raise FileNotFoundError(
            f"{path}: no checkpoint with {', '.join(missing)} beside parameters."
        )
    return {name: extra[name] for name in names}


def warm_start(
    params: Any,
    path: str | pathlib.Path,
    take: str,
    leave: str = "",
    *,
    out_of: str = "",
    into: str = "",
) -> Any:
    """Return params with those whose path matches `take` replaced by another run's.

    Args:
      params: freshly initialised parameters, with their layout.
      path: workdir of the other run.
      take: regex of the paths to replace, without `out_of` there and `into` here.
      leave: regex of such paths, here or there, that may go without a partner.
      out_of: start of the paths there, as "audio/" to take a tower out of an audio-text model.
      into: start of the paths here, as "audio/" to put an encoder into an audio-text model.

    Raises:
      ValueError: listing the paths of each side that have no partner of the same shape.
    """

    def taken(tree, start):
        named = {path_name(p): v for p, v in jax.tree_util.tree_leaves_with_path(tree)}
        within = {n.removeprefix(start): v for n, v in named.items() if n.startswith(start)}
        found = {name: v for name, v in within.items() if re.search(take, name)}
        return {name: v for name, v in found.items() if not (leave and re.search(leave, name))}

    source, wanted = taken(load_params(path)[0], out_of), taken(params, into)
    if not wanted:
        raise ValueError(f"config.warm_start: take '{into}{take}' matches no parameter.")
    check_shapes(source, wanted, str(path))
    log.info("warm start: %d arrays from %s", len(wanted), path)

    def pick(key, value):
        full = path_name(key)
        name = full.removeprefix(into)
        if not full.startswith(into) or name not in wanted:
            return value
        return jax.device_put(source[name], value.sharding)

    return jax.tree_util.tree_map_with_path(pick, params)


def check_format(folder: pathlib.Path) -> None:
    """Raise ValueError when a checkpoint was written in a format that this version does not know."""
    meta = folder / "meta" / "metadata"
    found = json.loads(meta.read_text()).get("format", 1) if meta.exists() else 1
    if found > FORMAT:
        raise ValueError(
            f"{folder}: written in format {found}; this version of ssl_audio reads up to {FORMAT}. "
            "Use the version that wrote it, or a newer one."
        )


def check_shapes(found: Any, wanted: Any, where: str) -> None:
    """Raise ValueError, listing both sides, unless two trees have the same paths and shapes."""

    def table(tree):
        return {path_name(p): tuple(v.shape) for p, v in jax.tree_util.tree_leaves_with_path(tree)}

    have, want = table(found), table(wanted)
    missing = sorted(want.keys() - have.keys())
    surplus = sorted(have.keys() - want.keys())
    differ = [
        f"{n} {have[n]} for {want[n]}"
        for n in sorted(have.keys() & want.keys())
        if have[n] != want[n]
    ]
    if missing or surplus or differ:
        raise ValueError(
            f"{where}: a checkpoint of another model. Missing there: {_few(missing)}. "
            f"Only there: {_few(surplus)}. Other shapes: {_few(differ)}."
        )


def _few(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def _metadata(folder: pathlib.Path) -> Any:
    # The handler itself: a Checkpointer warns that one item is not a whole checkpoint.
    return ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree


def _shapes(folder: pathlib.Path) -> Any:
    return jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), _metadata(folder))


def _load_tree(folder: pathlib.Path) -> Any:
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), _metadata(folder))
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def averaged(opt_state: Any) -> Any:
    """Return the moving average inside an optimizer state, or None when none is kept."""
    found = [
        s["average"] for s in jax.tree.leaves(opt_state, is_leaf=_is_average) if _is_average(s)
    ]
    return found[0] if found else None


def _is_average(state: Any) -> bool:
    return isinstance(state, dict) and "average" in state
