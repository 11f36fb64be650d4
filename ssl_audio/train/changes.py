"""What of a run's config may change between two starts, and what may not; `loop.py` asks before step 1.

What decides the shapes of parameters or the stream of batches is fixed; the rest changes, is logged with
its old and new value and noted in the workdir: config.json holds the newest, history.jsonl the changes.
"""

import contextlib
import json
import logging
import pathlib
import re
import time
import types
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ssl_audio import config
from ssl_audio.data.clips import Clips
from ssl_audio.distributed import processes
from ssl_audio.storage import atomic, checkpoint, sealed, written
from ssl_audio.storage.lock import Lock
from ssl_audio.train.run import Run
from ssl_audio.versions import versions

log = logging.getLogger("ssl_audio")

HISTORY = "history.jsonl"
# Beginnings of the paths of options that are fixed once there is a checkpoint, and why. An option that is
# not here may change; one that is new below a fixed one is fixed.
FIXED = {
    "objective": "what is learned",
    "data": "the stream of batches",
    "seed": "parameters and masks",
    "warm_start": "the parameters that the run began from",
    "adapt": "what learns",
}
FREE = ("data.workers", "data.threads", "data.max_bad_share")  # but for these
PLACE = re.compile(
    r"data\.(?:beside\.(?P<beside>[^.]+)\.)?sources\.(?P<source>[^.]+)\.(source\.)*(root|path|data_dir)"
)  # and these: for the same collection
NAMES = re.compile(
    r"data\.entries\.[^.]+\.names"
)  # and these, where they were not written yet: those of the same collection
AVERAGES = ("optim.average", "optim.average_every")  # on or off: another state of the optimizer
UNSET = "not set"
OFF = (0, "0", UNSET)

Collections = Mapping[
    str, Mapping[str, Any]
]  # source → number of clips and digest of their metadata


@contextlib.contextmanager
def opened(
    run: Run, options: Any, workdir: pathlib.Path, total: int
) -> Iterator[tuple[Lock, dict[str, Any]]]:
    """Hold the workdir while the body runs; give the lock, and what each checkpoint says about the run.

    Evaluators are opened first, then the config is compared with the one before: see `begin`.

    Raises:
      ValueError: another run is at work there, or has gone further than `total` steps; what `Run.check`
        and `begin` raise.
    """
    if total < 1:
        raise ValueError(f"config.steps: {run.steps!r} is {total}, wanted at least 1.")
    lock = Lock(workdir, processes.heartbeat())
    with contextlib.ExitStack() as stack:
        processes.from_lead(lambda: str(stack.enter_context(lock)))
        later = [step for step in checkpoint.steps(workdir) if step > total]
        folder = workdir / "checkpoints"
        while later and processes.from_lead(lambda: sealed.damage(folder / str(later[-1]))):
            later.pop()  # it is named, and passed over, when the run goes on
        if later:
            raise ValueError(
                f"config.steps: {total}, but the run in {workdir} is at step {later[-1]}; "
                "wanted no fewer."
            )
        run.check()
        clips = run.data.collections()
        chosen = run.objective.prepare()
        processes.from_lead(lambda: str(begin(options, workdir, clips, chosen)))
        numbers = {"batch_size": run.data.batch_size, "data_seed": run.data.seed}
        try:
            more = {"versions": versions(), "implementations": chosen, **about(run)}
            yield lock, {"data": clips, **numbers, **more}
        except OSError as error:
            if error.errno is None or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, str(workdir)) from error


def about(run: Run) -> dict[str, Any]:
    """Return what a checkpoint says, for people, of the data and the devices of a run."""
    sources = {}
    for name, source in run.data.all_sources.items():
        info = source.info
        sources[name] = {"title": info.name, "licence": info.licence, "classes": len(info.labels)}
        sources[name]["hours"] = hours(source)
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return {"sources": sources, "devices": devices}


def hours(source: Any) -> float | None:
    """Return the length of a source's clips where all of them state it; None: they do not."""
    clips = getattr(source, "clips", None)
    if not isinstance(clips, Clips):
        return None
    lengths = clips.columns.number("end") - np.nan_to_num(clips.columns.number("start"))
    total = float(lengths.sum()) / 3600
    return total if total > 0 else None  # not where one is not a number


def earlier(workdir: pathlib.Path) -> dict[str, Any]:
    """Return the config of the run in a workdir, on all processes; a workdir without a checkpoint: {}."""

    def read() -> str:
        begun = checkpoint.steps(workdir) and written.is_run(workdir)
        return json.dumps(written.read(workdir) if begun else {})

    return json.loads(processes.from_lead(read))


def begin(
    options: Any,
    workdir: pathlib.Path,
    collections: Collections,
    implementations: Mapping[str, str] = types.MappingProxyType({}),
) -> None:
    """Compare a config with that of the run in a workdir, if there is one; note what has changed.

    A workdir without a checkpoint holds no run. Writes config.json, config.txt and versions.json.
    `implementations`: what the objective's parts chose on this machine; another choice changes rounding.

    Raises:
      ValueError: something has changed that may not, with field, old and new value.
    """
    steps = checkpoint.steps(workdir)
    if steps and written.is_run(workdir):
        meta = checkpoint.meta(workdir)
        before, known = _renamed(written.read(workdir), meta.get("data", {}), collections)
        found = differences(before, options)
        _refuse(workdir, steps[-1], found, known, collections)
        for name in sorted(known.keys() & collections.keys()):
            if known[name] != collections[name]:
                log.warning(
                    "data.sources.%s: %s clips when the run began, %s now, or others: its batches differ "
                    "from here on from those of a run that nothing changed.",
                    name, known[name]["clips"], collections[name]["clips"],
                )  # fmt: skip
                found[f"data.sources.{name}"] = known[name], collections[name]
        then = meta.get("implementations", {})
        for what, name in sorted(implementations.items()):
            if then.get(what) != name:
                # A run may move to a machine that lacks a compiler, or have begun under a version that
                # wrote nothing of this; the formulas are the same.
                log.info("%s: another implementation; results differ by rounding", what)
                found[f"implementation of {what}"] = then.get(what, "not known"), name
        _note(workdir, steps[-1], found)
    workdir.mkdir(parents=True, exist_ok=True)
    files = {
        "versions.json": json.dumps(versions(), indent=1),
        "config.txt": config.text(options),
        written.CONFIG: json.dumps(config.plain(options), indent=1),
    }
    for name, content in files.items():
        atomic.write(workdir / name, content)


def differences(before: Any, now: Any) -> dict[str, tuple[Any, Any]]:
    """Return path → (old, new) of every option that is not the same."""
    old, new = _leaves(before), _leaves(now)
    return {
        path: (old.get(path, UNSET), new.get(path, UNSET))
        for path in sorted(old.keys() | new.keys())
        if old.get(path, UNSET) != new.get(path, UNSET)
    }


def fixed(path: str) -> bool:
    """Tell whether an option may not change; places of data are judged by what they hold."""
    own = re.sub(r"^data\.beside\.[^.]+\.", "data.", path)
    return path.partition(".")[0] in FIXED and own not in FREE


def _refuse(
    workdir: pathlib.Path,
    step: int,
    found: Mapping[str, tuple[Any, Any]],
    known: Collections,
    collections: Collections,
) -> None:
    wrong = []
    for path, (old, new) in found.items():
        what = f"{path}: {old!r}, now {new!r}"
        if place := PLACE.fullmatch(path):
            name = ".".join(filter(None, place.group("beside", "source")))
            if name not in known:
                wrong.append(f"{what} (not noted then what it holds, so not comparable)")
            elif known[name] != collections.get(name):
                then, now = known[name]["clips"], collections.get(name, {}).get("clips", 0)
                wrong.append(f"{what} (another collection: {then} clips, now {now}, or others)")
        elif fixed(path) and not (NAMES.fullmatch(path) and old in (UNSET, ())):
            wrong.append(f"{what} ({FIXED[path.partition('.')[0]]})")
        elif path in AVERAGES and (old in OFF) != (new in OFF):
            wrong.append(f"{what} (a mean of the parameters is kept from the first step or never)")
    if wrong:
        more = f"; and {len(wrong) - 8} more" if len(wrong) > 8 else ""
        raise ValueError(
            f"{workdir}: holds a run of another config, at step {step}. {'; '.join(wrong[:8])}{more}. "
            "These are fixed once a run has begun. Use another --workdir, or the old values."
        )


def _note(workdir: pathlib.Path, step: int, found: Mapping[str, tuple[Any, Any]]) -> None:
    if not found:
        return
    for path, (old, new) in found.items():
        log.info("changed at step %d: %s: %r, now %r", step, path, old, new)
    line = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "step": step, "changed": found}
    path = workdir / HISTORY
    before = path.read_bytes() if path.exists() else b""  # as it is, also where it is damaged
    atomic.write(path, before + json.dumps(line).encode() + b"\n")


def _renamed(
    before: dict[str, Any], known: Collections, collections: Collections
) -> tuple[dict[str, Any], Collections]:
    """Return a config and its collections under the names of today, where they hold the same in this order.

    Configs name a source after its folder, which may have moved.
    """
    old, new = sorted(known), sorted(collections)
    if [known[name] for name in old] != [collections[name] for name in new]:
        return before, known
    names = dict(zip(old, new, strict=True))

    def renamed(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        found = dict(data)
        for key in ("sources", "weights"):
            if isinstance(found.get(key), Mapping):
                found[key] = {
                    str(names.get(prefix + name, prefix + name)).removeprefix(prefix): value
                    for name, value in found[key].items()
                }
        if isinstance(found.get("beside"), Mapping):
            found["beside"] = {
                name: renamed(other, f"{name}.") for name, other in found["beside"].items()
            }
        return found

    data = renamed(before["data"])
    return before | {"data": data}, {names[name]: value for name, value in known.items()}


def _leaves(options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(value, path):
        if isinstance(value, Mapping):
            for key in value:
                walk(value[key], f"{path}.{key}" if path else str(key))
        else:
            found[path] = value

    walk(config.plain(options), "")
    return found
