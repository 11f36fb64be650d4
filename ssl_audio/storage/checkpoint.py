"""Save, resume and warm-start runs with Orbax; one item per concern, so an encoder loads alone.

The data position needs no file: batches depend on (seed, step) only, whatever the number of hosts.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio.config import Duration
from ssl_audio.distributed import processes
from ssl_audio.distributed.sharding import path_name
from ssl_audio.storage import exported, hub, items, links, merged, sealed, written
from ssl_audio.storage.items import check_shapes, chosen, steps
from ssl_audio.storage.sealed import Damaged
from ssl_audio.structs import TrainState

log = logging.getLogger(__name__)

DAMAGED = "damaged"  # folder of a workdir to which damaged checkpoints are moved
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
      load_best: those who name no step get these, not the newest.
    """

    every: Duration = "5%"
    keep: int = 2
    keep_every: Duration = 0
    best: str = ""
    load_best: bool = False

    def __post_init__(self):
        if self.keep < 1:
            raise ValueError(f"keep: wanted at least 1, to be able to go on; got {self.keep}")


class Checkpoints:
    """The checkpoints of a workdir.

    `beside`: the entries of `extra` that are kept with the best parameters, see `Objective.needs`.
    """

    def __init__(
        self,
        workdir: str | pathlib.Path,
        keep: int = 2,
        keep_every: int = 0,
        best: str = "",
        beside: Sequence[str] = (),
    ):
        import orbax.checkpoint as ocp  # half a second: those who read plain folders do without

        self._ocp, self.workdir, self.size = ocp, pathlib.Path(workdir).resolve(), 0
        folder = self.workdir / "checkpoints"

        def sealing(folder: pathlib.Path) -> Any:
            # The callback comes when all files of a checkpoint are there, before it takes its name.
            return ocp.AsyncOptions(post_finalization_callback=lambda: sealed.seal_new(folder))

        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every or None,
            enable_async_checkpointing=True,
            async_options=sealing(folder),
            cleanup_tmp_directories=True,
        )
        self.manager = ocp.CheckpointManager(folder, options=options)
        self.name, self.sign = best.removeprefix("-"), -1.0 if best.startswith("-") else 1.0
        self.best, self.beside = None, tuple(beside)
        if best:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=1,
                best_fn=self._score,
                async_options=sealing(folder.with_name("best")),
                cleanup_tmp_directories=True,
            )
            self.best = ocp.CheckpointManager(folder.with_name("best"), options=options)

    def save(self, state: TrainState, meta: Mapping[str, Any]) -> None:
        """Start writing the state; returns as soon as the arrays have left the devices."""
        step = int(state.step)
        if step == self.manager.latest_step():
            return
        args = self._ocp.args
        saved = {
            "params": args.StandardSave(state.params),
            "optimizer": args.StandardSave(state.opt_state),
            "key": args.JaxRandomKeySave(state.key),
            "meta": args.JsonSave({"format": FORMAT, **meta}),
        }
        if jax.tree.leaves(state.extra):  # Orbax refuses an empty item
            saved["extra"] = args.StandardSave(state.extra)
        self.size = sum(x.nbytes for x in jax.tree.leaves((state.params, state.opt_state)))
        with items.writing(self.workdir, self.size):
            if not self.manager.save(step, args=args.Composite(**saved), force=True):
                raise RuntimeError(f"step {step} was not saved.")

    def save_best(self, state: TrainState, results: Mapping[str, float]) -> None:
        """Keep the parameters (their average, if there is one) when they score best so far.

        With them goes what predictors need of `extra`.

        Raises:
          ValueError: no result has the name that was asked for.
        """
        if self.best is None or int(state.step) in self.best.all_steps():
            return
        if self.name not in results:
            raise ValueError(
                f"config.checkpoint.best: no result '{self.name}'; there are {', '.join(results)}."
            )
        score = self.sign * results[self.name]
        if not math.isfinite(score):
            why = "which says nothing: these parameters cannot be the best."
            log.warning("step %d: %s is %s, %s", state.step, self.name, results[self.name], why)
            return
        extra = {name: state.extra[name] for name in self.beside}
        kept = {"params": merged.served(state), "extra": extra}
        saved = {
            name: self._ocp.args.StandardSave(item)
            for name, item in kept.items()
            if jax.tree.leaves(item)
        }
        with items.writing(self.workdir, sum(x.nbytes for x in jax.tree.leaves(kept))):
            args = self._ocp.args.Composite(**saved)
            self.best.save(int(state.step), args=args, metrics={"score": score, "of": self.name})

    def _score(self, found: Mapping[str, Any]) -> float:
        """Return what a checkpoint scored; one of another measure, or not a number, is the worst."""
        comparable = found.get("of", self.name) == self.name and math.isfinite(found["score"])
        return found["score"] if comparable else -math.inf

    def resume(
        self, wanted: TrainState, first: Callable[[], TrainState] | None = None
    ) -> TrainState | None:
        """Return the newest whole state in the layout of `wanted` (shapes with shardings), or None.

        Damaged checkpoints are named, and moved to folder `damaged` when an older one is whole.

        Args:
          wanted: of the state.
          first: makes a state of step 0, for what the optimizer keeps now and did not before.

        Raises:
          ValueError: the checkpoint is of another model or optimizer, with the differences, or of a
            newer format; all are damaged.
        """
        found, damaged = None, []
        for step in reversed(steps(self.workdir)):
            folder = self.workdir / "checkpoints" / str(step)
            # One process reads it all, and all do the same.
            reason = processes.from_lead(lambda folder=folder: sealed.damage(folder))
            try:
                if reason:
                    raise Damaged(reason)
                found = self._restore(folder, wanted, first)
                break
            except Damaged as error:
                log.warning("%s", error)
                damaged.append(folder)
        if damaged and found is None:
            raise ValueError(
                f"{self.workdir}: none of its checkpoints is whole. To begin anew, remove "
                f"{damaged[0].parent}."
            )
        if found is not None and damaged:
            processes.from_lead(lambda: self._move_away(damaged))
            self.manager.reload()
            log.warning("%s: going on from step %d, the one before.", self.workdir, int(found.step))
        return found

    def _move_away(self, folders: list[pathlib.Path]) -> str:
        place = self.workdir / DAMAGED
        place.mkdir(exist_ok=True)
        for folder in folders:
            number = sum(p.name.partition("_")[0] == folder.name for p in place.iterdir())
            folder.rename(place / (f"{folder.name}_{number}" if number else folder.name))
        log.warning("damaged checkpoints are in %s now: remove them when you like.", place)
        return ""

    def _restore(
        self, folder: pathlib.Path, wanted: TrainState, first: Callable[[], TrainState] | None
    ) -> TrainState:
        check_format(folder)
        with items.library(folder):
            params, optimizer = items.shapes(folder / "params"), items.shapes(folder / "optimizer")
        check_shapes(params, wanted.params, str(folder))
        replicated = wanted.step.sharding
        same = links.same(optimizer, wanted.opt_state)
        target = wanted.opt_state if same else links.target(optimizer, wanted.opt_state, replicated)
        args = self._ocp.args
        wants = {
            "params": args.StandardRestore(wanted.params),
            "optimizer": args.StandardRestore(target),
            "key": args.JaxRandomKeyRestore(self._ocp.ArrayRestoreArgs(sharding=replicated)),
        }
        if jax.tree.leaves(wanted.extra):
            wants["extra"] = args.StandardRestore(wanted.extra)
        with items.library(folder):
            found = self.manager.restore(int(folder.name), args=args.Composite(**wants))
        opt_state = found["optimizer"]
        if not same:
            opt_state = links.matched(opt_state, wanted.opt_state, first)
        return TrainState(
            step=jax.device_put(np.int32(folder.name), replicated),
            params=found["params"],
            opt_state=opt_state,
            extra=found["extra"] if "extra" in wants else wanted.extra,
            key=jax.device_put(found["key"], replicated),
        )

    def stop_asked(self, step: int) -> bool:
        """Tell whether the cluster is about to take the machines away (the same step on all hosts)."""
        return self.manager.reached_preemption(step)

    def wait(self) -> None:
        """Wait for the writes under way."""
        with items.writing(self.workdir, self.size):
            for manager in filter(None, (self.manager, self.best)):
                manager.wait_until_finished()

    def close(self) -> None:
        """Wait for the writes under way, then let go of the folder."""
        self.wait()
        with items.writing(self.workdir, self.size):
            for manager in filter(None, (self.manager, self.best)):
                manager.close()


def meta(path: pathlib.Path, step: int | None = None) -> dict[str, Any]:
    """Return what the newest checkpoint of a workdir, or that of a step, says about the run; {}: none is."""
    for each in reversed(steps(path)) if step is None else [step]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((path / "checkpoints" / str(each) / "meta/metadata").read_bytes())
            if isinstance(found, dict):
                return found
    return {}


def load_params(
    path: str | pathlib.Path, step: int | str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load the parameters of a workdir as numpy arrays, whatever devices wrote them.

    Args:
      path: the workdir, or a plain folder (see `exported`), or hf://OWNER/NAME.
      step: which checkpoint of a run; None: as `Checkpoint.load_best` says; "best": see `Checkpoint.best`.

    Returns:
      The parameters (their moving average, if the run kept one; adapters merged) and the run's config.

    Raises:
      FileNotFoundError: there is no run, no checkpoint yet, or none of that step.
    """
    place = hub.local(path).resolve()
    if exported.is_plain(place):
        if step is not None:
            raise FileNotFoundError(f"{place}: a plain folder, without steps; there is no {step}.")
        return exported.read(place)
    config = written.read(place)
    kind, found = chosen(place, step, config)
    if not found:
        hint = " Leave --step out for the newest." if step == "best" and steps(place) else ""
        raise FileNotFoundError(f"{place / kind}: no checkpoint yet.{hint}")
    if step not in (None, "best") and step not in found:
        raise FileNotFoundError(f"{place}: no checkpoint of step {step}; there are {found}.")

    def read(folder: pathlib.Path) -> dict[str, Any]:
        check_format(folder)
        sealed.check(folder, (_holds(kind, config),))
        mean = _holds(kind, config) == "optimizer"
        return merged.average(folder) if mean else items.load(folder / "params")

    params = items.newest(place / kind, found, step, read)
    return merged.ordinary(params, config)


def _holds(kind: str, config: Mapping[str, Any]) -> str:
    """Return the item whose parameters are loaded: the optimizer's, where it keeps a mean of them."""
    optim = config.get("optim", {})
    mean = kind == "checkpoints" and (optim.get("average") or optim.get("average_every"))
    return "optimizer" if mean else "params"


def load_extra(
    path: str | os.PathLike, names: Sequence[str], step: int | str | None = None
) -> dict[str, Any]:
    """Load named entries of `extra` as numpy arrays, of the checkpoint that `load_params` takes.

    Args:
      path: the workdir, or a plain folder, or hf://OWNER/NAME.
      names: of the entries, as `Objective.needs` lists them.
      step: see `load_params`.

    Raises:
      FileNotFoundError: there is no checkpoint, or it has no such entry, as those of the best step that
        earlier versions wrote.
      ValueError: the checkpoint of a step that was asked for is damaged.
    """
    if not names:
        return {}
    place = hub.local(path).resolve()
    if exported.is_plain(place):
        extra = exported.read_extra(place)
    else:
        config = written.read(place)
        kind, found = chosen(place, step, config)

        def read(folder: pathlib.Path) -> dict[str, Any]:
            sealed.check(folder, (_holds(kind, config), "extra"))
            return items.load(folder / "extra") if (folder / "extra").is_dir() else {}

        extra = items.newest(place / kind, found, step, read) if found else {}
    if missing := [name for name in names if name not in extra]:
        where = place if step is None else f"{place}, step {step}"
        raise FileNotFoundError(f"{where}: no {', '.join(missing)} beside the parameters.")
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
    file = folder / "meta" / "metadata"
    try:
        found = json.loads(file.read_text()).get("format", 1) if file.exists() else 1
        newer = found > FORMAT
    except (ValueError, TypeError, AttributeError):
        raise Damaged(f"{folder}: damaged: meta/metadata cannot be read.") from None
    if newer:
        raise ValueError(
            f"{folder}: written in format {found}; this version of ssl_audio reads up to {FORMAT}. "
            "Use the version that wrote it, or a newer one."
        )
