"""The objective's own loss on clips that it does not train on; an evaluator of `train/loop.py`."""

import contextlib
import dataclasses
import functools
import itertools
from typing import Any

import jax
import numpy as np

from ssl_audio.data.pipeline import Pipeline
from ssl_audio.data.source import by_names
from ssl_audio.distributed import processes, sharding
from ssl_audio.eval import inputs
from ssl_audio.structs import TrainState


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Measure the loss without training on it.

    Attributes:
      data: what to measure it on: always the first batches of this pipeline.
      batches: how many.
    """

    data: Pipeline
    batches: int = 8

    def __post_init__(self):
        if self.batches < 1:
            raise ValueError(f"HeldOut: batches is {self.batches}; it must be above 0.")

    @property
    def batch_sizes(self) -> dict[str, int]:
        """What has to divide over the devices, by the option that says it."""
        return {f"data.{option}": size for option, size in self.data.batch_sizes.items()}

    def check(self, objective: Any, training: Any) -> None:
        """Open the clips and compare their classes with those of `training`, a pipeline.

        Raises:
          ValueError: a source is missing, cannot be read or has other classes.
        """
        del objective
        self.data.check()
        spec, theirs = self.data.spec(), training.spec()
        if "label" in spec and "label" in theirs and spec["label"][0][1:] != theirs["label"][0][1:]:
            raise ValueError(
                f"data: labels of {spec['label'][0][1:]} classes, in training {theirs['label'][0][1:]}."
            )
        for source in self.data.sources.values():
            inputs.check_readable(source)

    def numbered(self, labels: tuple[str, ...]) -> "HeldOut":
        """Return the evaluator with the numbers that training has given these names of classes."""
        sources = {name: by_names(s, labels) for name, s in self.data.sources.items()}
        return dataclasses.replace(self, data=dataclasses.replace(self.data, sources=sources))

    def run(self, objective: Any, state: TrainState, mesh: jax.sharding.Mesh) -> dict[str, float]:
        """Return the means of loss and metrics. Masks depend on the batch's number alone."""
        measure = _program(objective, mesh)
        sums: dict[str, np.ndarray] = {}
        batches: Any = self.data.batches(shard=processes.index(), shards=processes.count())
        with contextlib.closing(batches):
            for number, batch in enumerate(itertools.islice(batches, self.batches)):
                batch.pop("index")
                key = jax.random.fold_in(jax.random.key(0), number)
                batch = sharding.put_batch(batch, mesh)
                found = jax.device_get(measure(state.params, state.extra, batch, key))
                for name, pair in found.items():
                    sums[name] = sums.get(name, 0.0) + np.array(pair, np.float64)
        with np.errstate(
            invalid="ignore"
        ):  # a mean over none is NaN, of which the run warns by name
            return {name: float(total / weight) for name, (total, weight) in sums.items()}


@functools.lru_cache(4)
def _program(objective: Any, mesh: jax.sharding.Mesh) -> Any:
    """Return the jitted measurement, the same one at every call of a run."""

    def measure(params, extra, batch, key):
        loss = objective.loss(params, extra, batch, key, train=False)
        return {**loss.metrics, "loss": (loss.total, 1.0)}

    return jax.jit(measure, out_shardings=sharding.replicated(mesh))
