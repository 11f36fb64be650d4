"""Whether the lengths and rates of a run's clips agree with its frontends; `loop.py` asks before step 1."""

import collections
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from ssl_audio.data.entries import Weight
from ssl_audio.data.labelled import Labelled, columns_of
from ssl_audio.data.source import SPLITS
from ssl_audio.objectives import teacher
from ssl_audio.objectives.adapted import Adapted
from ssl_audio.train.run import Run

SLACK = 0.02  # share of a clip's frames that a published recipe may cut off, beside two of the ends

log = logging.getLogger("ssl_audio")


def check_clips(
    run: Run, options: Mapping[str, Any], before: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Refuse lengths and rates of clips that contradict the frontend's, which would win without a word.

    Args:
      run: what `options` describe.
      options: the config, to tell what it says from what is a default.
      before: that of the run which it goes on with: what it was begun with (by version 0.1, which
        looked at nothing) is fixed, and only warned of. Its front ends are compared later.

    Raises:
      ValueError: another rate, also of a teacher; clips whose end no frontend would hear; windows of another
        rate.
    """
    lengths = {
        f"{path}.entries.audio.samples": getattr(data.entries.get("audio"), "samples", None)
        for path, data in pipelines(run.data)
    }
    rates = {"data.rate": run.data.rate}
    for name, evaluator in run.evals.items():
        lengths[f"evals.{name}.samples"] = getattr(evaluator, "samples", None)
        rates[f"evals.{name}.source.rate"] = getattr(
            getattr(evaluator, "source", None), "rate", None
        )
    crop = getattr(run.objective, "crop", None)  # objectives that crop hear that much of a clip
    for path, frontend in frontends(run.objective):
        for field, rate in rates.items():
            if rate not in (None, frontend.rate):
                raise ValueError(
                    f"{field} is {rate} Hz, but {path}.rate {frontend.rate} Hz: set both, and {path}.window "
                    f"and .hop, which count samples."
                )
        written = _at(options, path) or {}
        fields = {field.name for field in dataclasses.fields(frontend)}  # `Raw` has nothing to set
        kept = [key for key in ("window", "hop") if key in fields and key not in written]
        usual = getattr(type(frontend), "rate", frontend.rate)
        if kept and frontend.rate != usual:
            scaled = {key: round(getattr(frontend, key) * frontend.rate / usual) for key in kept}
            hint = ", ".join(f"{path}.{key}={value}" for key, value in scaled.items())
            raise ValueError(
                f"{path}.rate is {frontend.rate} Hz, but {' and '.join(kept)} are left at what suits {usual} "
                f"Hz; set them: {hint} last as long."
            )
        frames = getattr(frontend, "frames", None)
        for field, samples in lengths.items() if frames else ():
            if samples is not None:
                heard = crop or samples
                try:
                    _check_length(f"{field}={samples}", f"{path}.frames", frontend, heard)
                except ValueError as error:
                    if samples != _at(before, field):
                        raise
                    log.warning("the run was begun so and goes on so: %s", error)
    for path, rate in taught(run.objective):
        if rate != run.data.rate:
            raise ValueError(
                f"{path} hears {rate} Hz, but data.rate is {run.data.rate} Hz; wanted the same: a model of "
                f"that rate, or data.rate={rate} and a front end of that rate."
            )


def tell_of_unused(
    run: Run, state: Any = None, batch: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Warn of what tables say of the clips to train on, and what has no effect: of splits, and weights.

    Args:
      run: what will be trained.
      state, batch: their shapes; without them nothing is said of an objective that leaves out weights.
    """
    for path, data in pipelines(run.data):
        for name, source in data.sources.items():
            _tell(f"{path}.sources.{name}", source, data.entries)
    if "weight" in batch and not _weighs(run.objective, state, batch):
        log.warning(
            "data.entries: they give each clip a weight, but %s takes no notice of it: all clips count alike",
            type(getattr(run.objective, "objective", run.objective)).__name__,
        )


def _weighs(objective: Any, state: Any, batch: Mapping[str, Any]) -> bool:
    """Tell whether a loss of an objective is computed with `batch["weight"]`."""

    def total(weight, params, extra, batch, key):
        batch = {**batch, "weight": weight}
        losses = [getattr(objective, phase.loss) for phase in objective.phases]
        return [loss(params, extra, batch, key, train=True).total for loss in losses]

    rest = state.params, state.extra, batch, state.key
    program = jax.make_jaxpr(total)(batch["weight"], *rest).jaxpr
    weight = program.invars[0]
    return any(weight is given for line in program.eqns for given in line.invars)


def pipelines(data: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and the pipeline of a run's data, and of each beside it."""
    yield "data", data
    for name, other in getattr(data, "beside", {}).items():
        yield f"data.beside.{name}", other


def skipped(data: Any) -> int:
    """Return how many clips could not be read so far, of a run's data and pipelines beside it."""
    return sum(len(one.bad) for _, one in pipelines(data))


def numbers(batch: dict[str, Any]) -> dict[str, Any]:
    """Take "index" out of a batch; return it and those of pipelines beside it, as `names` takes them."""
    found = {name: value for name, value in batch.items() if name.endswith("index")}
    del batch["index"]
    return found


def names(data: Any, numbers: Mapping[str, Any]) -> list[str]:
    """Return the names of all clips of a batch, those of pipelines beside it last.

    Args:
      data: of the run.
      numbers: what the batch has as "index" and, of a pipeline beside it, "NAME_index".
    """
    found = data.ids(numbers["index"])
    for name, other in getattr(data, "beside", {}).items():
        found += [f"{name}.{id}" for id in other.ids(numbers[f"{name}_index"])]
    return found


def frontends(objective: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and the frontend of an objective, or of each of its towers that hear."""
    if getattr(objective, "frontend", None) is not None:
        yield "objective.frontend", objective.frontend
    for name, tower in getattr(objective, "towers", {}).items():
        if tower.frontend is not None:
            yield f"objective.towers.{name}.frontend", tower.frontend


def taught(objective: Any) -> Iterator[tuple[str, int]]:
    """Yield the path and the sampling rate of each frozen model that an objective asks: teachers, targets."""
    if isinstance(objective, Adapted):
        objective = objective.objective
    for field in dataclasses.fields(objective):
        value = getattr(objective, field.name)
        named = value if isinstance(value, Mapping) else {"": value}
        for name, model in named.items():
            if not hasattr(model, "predictors"):
                continue
            hears = getattr(teacher.heard_by(model), "frontend", None)
            rate = getattr(hears, "rate", None)
            if rate is not None:
                yield f"objective.{field.name}{name and '.'}{name}", rate


def _tell(path: str, source: Any, entries: Mapping[str, Any]) -> None:
    inner = source
    while columns_of(inner) is None and hasattr(inner, "source"):
        inner = inner.source
    if isinstance(source, Labelled) or (columns := columns_of(inner)) is None:
        return  # the one is of the part that was asked for, the other says nothing
    codes, values = columns.coded("split")
    known = [SPLITS.get(str(value).strip().lower(), "") if value else "" for value in values]
    there = collections.Counter(np.array(known, object)[codes].tolist())
    held = {part: there[part] for part in ("validation", "test") if there[part]}
    if held and sum(held.values()) < len(codes):
        said = " and ".join(f"{count} of split '{part}'" for part, count in held.items())
        log.warning(
            "%s: %s of its %d clips are trained on as well; to leave them out, give the "
            "source split='train', as it is called there", path, said, len(codes),
        )  # fmt: skip
    weights = any(isinstance(entry, Weight) for entry in entries.values())
    if not weights and (columns.number("weight") >= 0).any():
        log.warning(
            "%s: its column 'weight' is not used: no entry of %s is of kind 'entries:Weight'", path,
            f"{path.partition('.sources.')[0]}.entries",
        )  # fmt: skip


def _at(options: Any, path: str) -> Any:
    """Return what a config says at a path; None: nothing."""
    for key in path.split("."):
        options = options.get(key) if isinstance(options, Mapping) else None
    return options


def _check_length(what: str, field: str, frontend: Any, samples: int) -> None:
    whole = dataclasses.replace(frontend, frames=None).count(max(samples, frontend.window))
    frames, seconds = frontend.frames, frontend.hop / frontend.rate
    if whole > frames * (1 + SLACK) + 2:
        raise ValueError(
            f"{what} gives {whole} frames ({whole * seconds:.2f} s), but {field} is {frames} "
            f"({frames * seconds:.2f} s), so the rest would not be heard. For longer clips set "
            f"{field}={whole} or a little more, and the grid of positions that fits; or shorten the clips."
        )
    if whole < frames / 2:
        log.warning(
            "%s fills %.0f %% of %s=%d; the rest is padding",
            what,
            100 * whole / frames,
            field,
            frames,
        )
