"""A training run: `train` takes a config and a workdir; `ssl-audio train` (command.py) calls it.

The loop knows batches, steps and schedules; what is learned is the objective's business alone.
"""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from ssl_audio import config, slots
from ssl_audio.distributed import processes, sharding
from ssl_audio.storage import checkpoint, merged
from ssl_audio.storage.lock import Lock
from ssl_audio.train import changes, clips, plateau, programs, record
from ssl_audio.train.goodput import Goodput
from ssl_audio.train.record import Recorder
from ssl_audio.train.run import Run, describe, fitting, plan, warm_started

LAG = 2  # steps whose metrics may still be under way, so that the device never waits for the host


class NotFinite(RuntimeError):
    """The loss or a gradient became infinite or not a number."""


def train(
    options: Any,
    workdir: str | pathlib.Path,
    *,
    profile: tuple[int, int] | None = None,
    compiled: pathlib.Path | None = None,
) -> Mapping[str, float]:
    """Run (or go on with) the training that a config describes; return the last metrics.

    `profile`: first and last step to trace. `compiled`: folder of a saved step (see `programs`).

    Raises:
      TypeError, ValueError: something in the config is wrong; nothing has been computed.
      NotFinite: with the step and the clips; the state before it has been saved.
    """
    with slots.trusting(slots.packages(options)):  # what it names itself, its own workdir may too
        return _train(options, pathlib.Path(workdir).resolve(), profile, compiled)


def _train(options: Any, workdir: pathlib.Path, profile: Any, compiled: Any) -> Mapping[str, float]:
    spent = Goodput()
    run = config.make(Run, options).numbered()
    options = run.named(options)
    clips.check_clips(run, config.plain(options), changes.earlier(workdir))
    epoch = run.data.epoch_steps
    total = config.duration(run.steps, total=0, epoch=epoch)
    every = functools.partial(config.duration, total=total, epoch=epoch)
    mesh = run.sharding.mesh()
    run.check_batches(mesh)
    with (
        changes.opened(run, options, workdir, total) as (lock, meta),
        jax.set_mesh(mesh),
        nn.logical_axis_rules(sharding.ACTIVATIONS),
    ):
        first, step, wanted = plan(run, mesh, total, epoch)
        checkpoints = checkpoint.Checkpoints(
            workdir,
            run.checkpoint.keep,
            every(run.checkpoint.keep_every),
            run.checkpoint.best,
            run.objective.needs,
        )
        state = checkpoints.resume(wanted, first)
        if state is None:
            state = warm_started(run, first())
        start = int(state.step)
        if start:
            spent.resume(workdir, start)
        describe(run, state, total, start, workdir)
        batches = run.data.batches(start, shard=processes.index(), shards=processes.count())
        how: Any = dict(start=start, total=total, lead=processes.is_lead(), profile=profile)
        with Recorder(workdir, run.record, **how, spent=spent) as recorder:
            shapes = wanted, sharding.spec(run.data.spec(), mesh)
            with fitting(shapes[1]), spent.during("compile"):
                clips.tell_of_unused(run, *shapes)
                # Before any process goes on.
                results = record.known(workdir / "metrics.jsonl", start, run.evals)
                step, count = programs.ready(compiled, options, (total, epoch), step, shapes)
                recorder.price(count)
            where = recorder, checkpoints, lock
            session = Session(run, mesh, step, batches, *where, total, every, results, meta)
            try:
                return _loop(session, state, start)
            finally:
                with spent.during("save"):
                    batches.close()
                    checkpoints.close()


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """What a run works with from its first step to its last.

    Attributes:
      run, mesh: what was asked for, and the devices.
      step: the compiled (state, batch) → (state, metrics).
      batches: of this host.
      recorder, checkpoints: where metrics and states go.
      lock: of the workdir; the first process holds it.
      total: number of steps.
      every: duration → number of steps.
      results: what metrics.jsonl says of the step that the run goes on from, and which evaluators are done.
      meta: what each checkpoint says about the run.
    """

    run: Run
    mesh: jax.sharding.Mesh
    step: Callable
    batches: Iterator[dict[str, np.ndarray]]
    recorder: Recorder
    checkpoints: checkpoint.Checkpoints
    lock: Lock
    total: int
    every: Callable[[int | float | str], int]
    results: tuple[Mapping[str, float], Set[str]]
    meta: Mapping[str, Any]

    def save(self, state: Any) -> None:
        """Begin to save a state."""
        with self.recorder.spent.during("save"):
            spent = self.recorder.spent.seconds()
            self.checkpoints.save(state, {**self.meta, "goodput": spent})


def _loop(session: Session, state: Any, start: int) -> Mapping[str, float]:
    run, total, recorder = session.run, session.total, session.recorder
    checkpoints = session.checkpoints
    periods = dict(record=run.record.every, save=run.checkpoint.every)
    periods |= dict(figures=run.record.figures, evals=run.eval_every)
    due = {
        what: session.every(period) or total for what, period in periods.items()
    }  # 0: at the end only
    pending: collections.deque = collections.deque()
    rate: Any = run.optim.rate(total, run.data.epoch_steps)
    results: Mapping[str, float] = session.results[0]

    def settle(keep: int) -> None:
        while len(pending) > keep:
            number, metrics, numbers = pending.popleft()
            metrics = jax.device_get(metrics)
            if not metrics["finite"][0]:
                session.save(state)
                raise NotFinite(
                    f"step {number}: loss or gradients are not finite. The update was not made and the state "
                    f"is saved. Clips of this host: {', '.join(clips.names(run.data, numbers))}. Look at "
                    "them, or lower optim.lr or set optim.clip, and run the same command again."
                )
            recorder.add(metrics, run.data.batch_size)

    def evaluates(number: int) -> bool:
        return number == total or number % due["evals"] == 0

    with processes.Stop() as stop, recorder.spent.during("step"):
        if start and evaluates(start):  # it may have been killed before they were done
            results = _evaluate(session, state, *session.results)
        for number in range(start + 1, total + 1):
            with processes.step(number), recorder.step(number):
                with recorder.waiting():
                    batch = next(session.batches)
                numbers = clips.numbers(batch)
                state, metrics = session.step(state, sharding.put_batch(batch, session.mesh))
                pending.append((number, metrics, numbers))
                last = number == total or stop.asked or checkpoints.stop_asked(number)
                settle(0 if last or number % due["record"] == 0 else LAG)
            fresh: Mapping[str, float] = {}
            if last or number % due["record"] == 0:
                session.lock.check()
                lr = float(rate(number - 1)) * plateau.scale(state.opt_state)
                results = fresh = recorder.write(number, lr=lr, skipped=clips.skipped(run.data))
            if last or number % due["save"] == 0:
                session.lock.check()
                session.save(state)
            if evaluates(number):  # not when there is little time left
                results = _evaluate(session, state, fresh)
            if last or number % due["figures"] == 0:
                with recorder.spent.during("evaluation"):
                    images = _pictures(run, state, batch)
                    recorder.pictures(number, images, getattr(run.objective, "frontend", None))
            if last and number < total:
                with recorder.spent.during("save"):
                    checkpoints.wait()
                recorder.stopped(number)
                break
    return results


def _evaluate(session: Session, state: Any, known: Any, done: Any = ()) -> dict[str, float]:
    """Run the evaluators that are not done; return `known` with their results, and keep the best state."""
    run, results = session.run, dict(known)
    served = state.replace(params=merged.served(state))  # what is kept as the best, and loaded
    try:
        for name, evaluator in run.evals.items():
            if name in done:
                continue
            with session.recorder.spent.during("evaluation"):
                values = evaluator.run(run.objective, served, session.mesh)
            session.recorder.log(int(state.step), values, prefix=f"{name}/")
            results |= {f"{name}/{key}": value for key, value in values.items()}
        session.checkpoints.save_best(state, results)
    except Exception:
        if processes.count() == 1:  # several would have to fail together
            session.save(state)
        raise
    return results


def _pictures(run, state, batch) -> dict[str, np.ndarray]:
    predictor = run.objective.predictors().get("pictures")
    if predictor is None or processes.count() > 1:  # a host alone cannot run a program of all
        return {}
    few = {k: v[: run.record.clips] for k, v in batch.items()}
    return jax.device_get(jax.jit(predictor)(state.params, state.extra, few))
