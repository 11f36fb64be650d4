"""An objective whose encoder is frozen but for adapters; made by train/run.py where a config has `adapt`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from ssl_audio.arrays import Array
from ssl_audio.layers.lora import ADAPTERS
from ssl_audio.objectives.base import Batch, Extra, Objective, Params, Predictor
from ssl_audio.slots import Adapter, AnyObjective
from ssl_audio.structs import Loss

KEY = 2106  # folded into the key of the parameters: those of the model are the same with adapters


@dataclasses.dataclass(frozen=True)
class Adapted(Objective):
    """Learn what another objective learns, with the parameters that an adapter leaves to learn.

    Whatever it has beside (frontend, towers, …) is the other's.

    Attributes:
      objective: what is learned.
      adapter: which parameters are frozen, and what is put beside them.
    """

    objective: AnyObjective
    adapter: Adapter

    def __post_init__(self):
        trains = self.adapter.trains
        phases = tuple(
            dataclasses.replace(phase, trains=trains(phase.trains))
            for phase in self.objective.phases
        )
        for name, value in (
            ("phases", phases),
            ("couples_examples", self.objective.couples_examples),
            ("needs", self.objective.needs),
        ):
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "objective":  # while it is being made or copied
            raise AttributeError(name)
        found = getattr(self.objective, name)
        if name not in {phase.loss for phase in self.objective.phases}:
            return found
        return lambda params, *rest, **how: found(self.adapter.joined(params), *rest, **how)

    def init(self, key: Array, batch: Batch) -> tuple[Params, Extra]:
        """Return fresh parameters with adapters beside them, and the other state."""
        params, extra = self.objective.init(key, batch)
        adapters = self.adapter.init(jax.random.fold_in(key, KEY), params)
        return params | ({ADAPTERS: adapters} if adapters else {}), extra

    def loss(self, params: Params, extra: Extra, batch: Batch, key: Array, *, train: bool) -> Loss:
        """Return the loss of one global batch."""
        return self.objective.loss(self.adapter.joined(params), extra, batch, key, train=train)

    def refresh(self, params: Params, extra: Extra, step: Any) -> Extra:
        """Return `extra` after the update; teachers follow the adapted parameters."""
        return self.objective.refresh(self.adapter.merged(params), extra, step)

    def prepare(self) -> dict[str, str]:
        """Prepare the objective."""
        return self.objective.prepare()

    def predictors(self) -> Mapping[str, Predictor]:
        """Offer what the objective offers."""

        def adapted(predict: Predictor) -> Predictor:
            return lambda params, extra, batch: predict(self.adapter.joined(params), extra, batch)

        return {name: adapted(predict) for name, predict in self.objective.predictors().items()}
