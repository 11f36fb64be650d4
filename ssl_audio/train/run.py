"""What a training run is: the options of a config, as frozen objects."""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import config
from ssl_audio.data.entries import Labels
from ssl_audio.distributed import processes, sharding
from ssl_audio.distributed.sharding import Sharding, path_name
from ssl_audio.layers.lora import ADAPTERS
from ssl_audio.objectives.adapted import Adapted
from ssl_audio.objectives.base import Objective
from ssl_audio.slots import Adapter, Data, Evaluator
from ssl_audio.storage import checkpoint, links
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record
from ssl_audio.train.step import init_state, make_train_step

log = logging.getLogger("ssl_audio")


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Begin from another run's parameters; see `checkpoint.warm_start`."""

    path: str
    take: str = "^(tokenizer|encoder)/"
    leave: str = ""
    out_of: str = ""
    into: str = ""


@dataclasses.dataclass(frozen=True)
class Inference:
    """How the trained model takes clips by default; "": as its parts say.

    Attributes:
      pad: how a clip ends, see `Encoder.pad`.
      average: what is averaged over a clip's windows, see `Classifier.average`.
    """

    pad: str = ""
    average: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
    """A training run: every leaf of a config is a field of this or of something below it.

    Attributes:
      objective: what is learned.
      data: batches, and how they are drawn.
      optim: optimizer and schedule.
      steps: length of the run, a number of updates or epochs ("10ep").
      seed: of the parameters, masks and drop-path; the data has its own.
      accumulate: parts that a batch is split into to save memory.
      sharding: mesh and layout.
      checkpoint, record: when to save and to report.
      evals: name → evaluator, each run every `eval_every` and at the end.
      eval_every: duration between evaluations; 0: at the end only.
      warm_start: name → another run to begin from.
      adapt: freeze the encoder and learn adapters beside it; None: all learns.
      inference: how the trained model takes clips; nothing is trained by it.
    """

    objective: Objective
    data: Data
    optim: Optim
    steps: config.Duration
    seed: int = 0
    accumulate: int = 1
    sharding: Sharding = Sharding()
    checkpoint: Checkpoint = Checkpoint()
    record: Record = Record()
    evals: dict[str, Evaluator] = dataclasses.field(default_factory=dict)
    eval_every: config.Duration = "20%"
    warm_start: dict[str, WarmStart] = dataclasses.field(default_factory=dict)
    adapt: Adapter = None
    inference: Inference = Inference()

    def __post_init__(self):
        if self.accumulate < 1:
            raise ValueError(f"config.accumulate: wanted at least 1, got {self.accumulate}")
        if self.adapt and not isinstance(
            self.objective, Adapted
        ):  # as it is where a run is replaced
            object.__setattr__(self, "objective", Adapted(self.objective, self.adapt))

    def numbered(self) -> "Run":
        """Return a run whose evaluators number the classes as its training does, by their names.

        Raises:
          ValueError: one has classes that the training lacks.
        """
        labels = self.data.labels if "label" in self.data.spec() else ()
        evals = dict(self.evals)
        for name, evaluator in self.evals.items() if labels else ():
            if hasattr(evaluator, "numbered"):
                try:
                    evals[name] = evaluator.numbered(labels)
                except (ValueError, OSError) as error:
                    raise ValueError(f"config.evals.{name}: {error}") from error
        return dataclasses.replace(self, evals=evals)

    def named(self, options: Any) -> Any:
        """Return the config of this run with the names of its classes in it, so that a model knows them.

        Raises:
          ValueError: it has other names than the data.
        """
        found = config.plain(options)
        for key, entry in self.data.entries.items():
            labels = self.data.labels if isinstance(entry, Labels) else ()
            if (
                not labels or len(labels) != entry.classes
            ):  # of a part of the classes, or of numbers
                continue
            if entry.names not in ((), labels):
                other = sorted({*entry.names} ^ {*labels}) or ["none: their order differs"]
                raise ValueError(
                    f"config.data.entries.{key}.names: not the classes of the data, in their order; in one "
                    f"of them only: {', '.join(other)}."
                )
            found["data"]["entries"][key]["names"] = labels
        return found

    def check_batches(self, mesh: Any) -> None:
        """Raise ValueError unless batches, of evaluators too, divide over devices and accumulation steps."""
        sharding.check_batch(self.data.batch_sizes, mesh, self.accumulate)
        for name, evaluator in self.evals.items():
            sizes = getattr(evaluator, "batch_sizes", {})
            sharding.check_batch(sizes, mesh, where=f"config.evals.{name}")

    def check(self) -> None:
        """Open what the evaluators will read, and compare it with what is trained; nothing is computed.

        A memory of every clip has to have room for all of the data.

        Raises:
          ValueError: something is missing or does not fit, with the evaluator's name.
        """
        for name, evaluator in self.evals.items():
            if hasattr(evaluator, "check"):  # one of another package may have none
                try:
                    evaluator.check(self.objective, self.data)
                except (ValueError, OSError) as error:
                    raise ValueError(f"config.evals.{name}: {error}") from error
        remembered = getattr(self.objective, "clips", None)
        if "clip" in self.data.spec() and remembered is not None and remembered < self.data.clips:
            raise ValueError(
                f"config.objective.clips: got {remembered}, but config.data has {self.data.clips} clips, and "
                f"each needs a place in the memory: set it to {self.data.clips}."
            )
        self.record.check()
        name, given, _ = self.checkpoint.best.removeprefix("-").partition("/")
        if given and name not in self.evals:
            raise ValueError(
                f"config.checkpoint.best: '{self.checkpoint.best}': no evaluator '{name}'; "
                f"there are {', '.join(self.evals) or 'none'}."
            )


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
        make_train_step(run.objective, txs, accumulate=run.accumulate, learns=run.optim.learns),
        donate_argnums=0,
        out_shardings=(layout, sharding.replicated(mesh)),
    )
    return jax.jit(first, out_shardings=layout), step, wanted


def warm_started(run: Run, state: Any) -> Any:
    """Return a state that has not begun with what `run.warm_start` takes from other runs.

    What `extra` holds as a copy of a parameter, as a teacher does, becomes a copy of the new one; an average
    of the parameters begins at the new ones.
    """
    params = state.params
    for other in run.warm_start.values():
        params = checkpoint.warm_start(params, **dataclasses.asdict(other))
    if not run.warm_start:
        return state
    before, after = (
        {
            path_name(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if path_name(path[:1]) != ADAPTERS  # whose paths end as those of what they adapt
        }
        for tree in (state.params, params)
    )

    def partner(path: Any) -> tuple[str, str]:
        """Return the tree that an entry of `extra` is of, and the parameter that it may copy; "": none."""
        parts = path_name(path).split("/")
        # The one whose path ends as this one does, for as long as it can be.
        for first in range(len(parts)):
            end = "/".join(parts[first:])
            names = [n for n in before if n == end or n.endswith(f"/{end}")]
            if names:
                return "/".join(parts[: max(1, first)]), names[0] if len(names) == 1 else ""
        return "", ""

    # A frozen model is no copy, though its biases of 0 are equal to fresh ones.
    others = set()
    for path, value in jax.tree_util.tree_leaves_with_path(state.extra):
        tree, name = partner(path)
        if name:
            old = before[name]
            if old.shape != value.shape or not bool(jnp.array_equal(old, value)):
                others.add(tree)

    def copied(path: Any, value: Any) -> Any:
        tree, name = partner(path)
        if not name or tree in others:
            return value
        # A step donates both, so that they must not be one buffer.
        return jax.device_put(after[name], value.sharding, may_alias=False)

    extra = jax.tree_util.tree_map_with_path(copied, state.extra)
    opt_state = links.begun(state.opt_state, params)
    return state.replace(params=params, extra=extra, opt_state=opt_state)


@contextlib.contextmanager
def fitting(batch: Any) -> Iterator[None]:
    """Name the config's parts where an objective turns out not to fit the batches that it is given.

    Raises:
      ValueError: with the shapes of a batch, and the options of the object where it came up.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        shapes = ", ".join(f"{name} {tuple(spec.shape)}" for name, spec in batch.items())
        raise ValueError(
            f"config.objective does not fit the batches of config.data ({shapes}): "
            f"{type(error).__name__}: {' '.join(str(error).split())[:600]}.{config.culprit(error)}"
        ) from error


def describe(run: Run, state: Any, total: int, start: int, workdir: pathlib.Path) -> None:
    """Log what is about to happen."""
    count = sum(x.size for x in jax.tree.leaves(state.params))
    log.info("%s", run.data.describe())
    inner = run.objective.objective if isinstance(run.objective, Adapted) else run.objective
    part = [phase.part(state.params) for phase in run.objective.phases]
    learned = sum(x.size for x in jax.tree.leaves(part))
    if learned < count:
        log.info("%.3f M of the parameters learn, the rest is frozen", learned / 1e6)
    log.info(
        "%s, %.2f M parameters, on %d %s device(s) of %d process(es)", type(inner).__name__,
        count / 1e6, jax.device_count(), jax.default_backend(), processes.count(),
    )  # fmt: skip
    others = ", ".join(other.path for other in run.warm_start.values())
    begun = f"from parameters of {others}" if others else "from scratch"
    how = f"resumed at step {start}" if start else begun
    log.info("%s, up to step %d, into %s", how, total, workdir)
