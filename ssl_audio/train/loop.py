"""A training run: `train` takes a config and a workdir; `ssl-audio train` (command.py) calls it.

The loop knows batches, steps and schedules; what is learned is the objective's business alone.
"""

import collections
import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config, slots, versions
from ssl_audio.distributed import processes, sharding
from ssl_audio.storage import checkpoint
from ssl_audio.train import record
from ssl_audio.train.clips import check_clips
from ssl_audio.train.record import Recorder
from ssl_audio.train.run import Run, fitting
from ssl_audio.train.step import init_state, make_train_step

log = logging.getLogger("ssl_audio")

LAG = 2  # steps whose metrics may still be under way, so that the device never waits for the host


class NotFinite(RuntimeError):
    """The loss or a gradient became infinite or not a number."""


def train(
    options: Any, workdir: str | pathlib.Path, *, profile: tuple[int, int] | None = None
) -> dict[str, float]:
    """Run (or go on with) the training that a config describes; return the last metrics.

    `profile`: first and last step to trace.

    Raises:
      TypeError, ValueError: something in the config is wrong; nothing has been computed.
      NotFinite: with the step and the clips; the state before it has been saved.
    """
    with slots.trusting(slots.packages(options)):  # what it names itself, its own workdir may too
        return _train(options, pathlib.Path(workdir).resolve(), profile)


def _train(
    options: Any, workdir: pathlib.Path, profile: tuple[int, int] | None
) -> dict[str, float]:
    run = config.make(Run, options)
    check_clips(run, config.plain(options))
    epoch = run.data.epoch_steps
    total = config.duration(run.steps, total=0, epoch=epoch)
    every = functools.partial(config.duration, total=total, epoch=epoch)
    mesh = run.sharding.mesh()
    sharding.check_batch(run.data.batch_size, mesh, run.accumulate)
    record.write_config(options, workdir, lead=processes.is_lead())

    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.ACTIVATIONS):
        first, step, wanted = plan(run, mesh, total, epoch)
        checkpoints = checkpoint.Checkpoints(
            workdir,
            run.checkpoint.keep,
            every(run.checkpoint.keep_every),
            run.checkpoint.best,
        )
        state = checkpoints.resume(wanted)
        if state is None:
            state = first()
            for other in run.warm_start.values():
                params = checkpoint.warm_start(state.params, **dataclasses.asdict(other))
                state = state.replace(params=params)
        start = int(state.step)
        describe(run, state, total, start, workdir)
        batches = run.data.batches(start, shard=processes.index(), shards=processes.count())
        with Recorder(
            workdir, run.record, start=start, total=total, lead=processes.is_lead(), profile=profile
        ) as recorder:
            shapes = wanted, sharding.spec(run.data.spec(), mesh)
            with fitting(shapes[1]):
                recorder.price(step, *shapes)
                step = processes.compiled(step, *shapes)
            session = Session(run, mesh, step, batches, recorder, checkpoints, total, every)
            try:
                return _loop(session, state, start)
            finally:
                batches.close()
                checkpoints.close()


def plan(run: Run, mesh: jax.sharding.Mesh, total: int, epoch: int) -> tuple[Any, Any, Any]:
    """Return the jitted first state, the jitted step and the state's shapes; for use under the mesh."""
    txs = run.optim.make(run.objective.phases, total, epoch)
    batch = sharding.spec(run.data.spec(), mesh)

    def first():
        zeros = {k: jnp.zeros(s.shape, s.dtype) for k, s in batch.items()}
        return init_state(run.objective, txs, jax.random.key(run.seed), zeros)

    with fitting(batch):
        shapes = jax.eval_shape(first)
    layout = run.sharding.infer(shapes, mesh)
    wanted = jax.tree.map(
        lambda s, where: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes, layout
    )
    step = jax.jit(
        make_train_step(run.objective, txs, accumulate=run.accumulate),
        donate_argnums=0,
        out_shardings=(layout, sharding.replicated(mesh)),
    )
    return jax.jit(first, out_shardings=layout), step, wanted


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """What a run works with from its first step to its last.

    Attributes:
      run, mesh: what was asked for, and the devices.
      step: the compiled (state, batch) → (state, metrics).
      batches: of this host.
      recorder, checkpoints: where metrics and states go.
      total: number of steps.
      every: duration → number of steps.
    """

    run: Run
    mesh: jax.sharding.Mesh
    step: Callable
    batches: Iterator[dict[str, np.ndarray]]
    recorder: Recorder
    checkpoints: checkpoint.Checkpoints
    total: int
    every: Callable[[int | float | str], int]


def _loop(session: Session, state: Any, start: int) -> dict[str, float]:
    run, total, recorder = session.run, session.total, session.recorder
    checkpoints = session.checkpoints
    periods = dict(record=run.record.every, save=run.checkpoint.every)
    periods |= dict(figures=run.record.figures, evals=run.eval_every)
    due = {
        what: session.every(period) or total for what, period in periods.items()
    }  # 0: at the end only
    pending: collections.deque = collections.deque()
    rate: Any = run.optim.rate(total, run.data.epoch_steps)
    results: dict[str, float] = {}

    def settle(keep: int) -> None:
        while len(pending) > keep:
            number, metrics, index = pending.popleft()
            metrics = jax.device_get(metrics)
            if not metrics["finite"][0]:
                checkpoints.save(state, _meta(run))
                raise NotFinite(
                    f"step {number}: loss or gradients are not finite. The update was not made and the "
                    f"state is saved. Clips of this host: {', '.join(run.data.ids(index))}. Look at "
                    "them, or lower optim.lr or set optim.clip, and run the same command again."
                )
            recorder.add(metrics, run.data.batch_size)

    with processes.Stop() as stop:
        for number in range(start + 1, total + 1):
            with processes.step(number), recorder.step(number):
                with recorder.waiting():
                    batch = next(session.batches)
                index = batch.pop("index")
                state, metrics = session.step(state, sharding.put_batch(batch, session.mesh))
                pending.append((number, metrics, index))
                last = number == total or stop.asked or checkpoints.stop_asked(number)
                settle(0 if last or number % due["record"] == 0 else LAG)
            if last or number % due["record"] == 0:
                results = recorder.write(
                    number, lr=float(rate(number - 1)), skipped=len(run.data.bad)
                )
            if number == total or number % due["evals"] == 0:  # not when there is little time left
                for name, evaluator in run.evals.items():
                    values = evaluator.run(run.objective, state, session.mesh)
                    recorder.log(number, values, prefix=f"{name}/")
                    results |= {f"{name}/{key}": value for key, value in values.items()}
                checkpoints.save_best(state, results)
            if last or number % due["save"] == 0:
                checkpoints.save(state, _meta(run))
            if last or number % due["figures"] == 0:
                images = _pictures(run, state, batch)
                recorder.pictures(number, images, getattr(run.objective, "frontend", None))
            if last and number < total:
                checkpoints.wait()
                recorder.stopped(number)
                break
    return results


def _pictures(run, state, batch) -> dict[str, np.ndarray]:
    predictor = run.objective.predictors().get("pictures")
    if predictor is None or processes.count() > 1:  # a host alone cannot run a program of all
        return {}
    few = {k: v[: run.record.clips] for k, v in batch.items()}
    return jax.device_get(jax.jit(predictor)(state.params, state.extra, few))


def _meta(run) -> dict[str, Any]:
    return {
        "batch_size": run.data.batch_size,
        "data_seed": run.data.seed,
        "versions": versions.versions(),
    }


def describe(run: Run, state: Any, total: int, start: int, workdir: pathlib.Path) -> None:
    """Log what is about to happen."""
    count = sum(x.size for x in jax.tree.leaves(state.params))
    log.info("%s", run.data.describe())
    log.info(
        "%s, %.2f M parameters, on %d %s device(s) of %d process(es)",
        type(run.objective).__name__,
        count / 1e6,
        jax.device_count(),
        jax.default_backend(),
        processes.count(),
    )
    how = f"resumed at step {start}" if start else "from scratch"
    log.info("%s, up to step %d, into %s", how, total, workdir)
