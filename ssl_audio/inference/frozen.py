"""A trained model as part of what another one learns from: a teacher, or a tokenizer of targets.

An objective calls it like any other objective; its arrays go into that objective's `extra`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from ssl_audio import config, slots
from ssl_audio.objectives.base import Batch, Objective, Predictor
from ssl_audio.storage import checkpoint, written


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What a run, or an exported or converted folder, offers: "encode", "codes", …

    Attributes:
      path: the run's workdir, or the folder.
    """

    path: str

    def __post_init__(self):
        # It is read when it is first needed, long after the folder that names it was opened.
        vars(self)["trusted"] = slots.trusted()

    @functools.cached_property
    def objective(self) -> Objective:
        """Return the objective that trained it. Its config is checked as that of any folder.

        Raises:
          FileNotFoundError: no config there.
          ValueError: one that does not fit this version of the package.
        """
        with slots.trusting(vars(self)["trusted"]):
            return config.build(written.trained(self.path), "objectives")

    def init(self, key: Any, batch: Batch) -> tuple[Any, Any]:
        """Return its parameters, and what its predictors need beside them."""
        del key, batch
        path = pathlib.Path(self.path).expanduser()
        with slots.trusting(vars(self)["trusted"]):
            params, _ = checkpoint.load_params(path)
        return params, checkpoint.load_extra(path, self.objective.needs)

    def predictors(self) -> Mapping[str, Predictor]:
        """Return the predictors of the frozen model."""
        return self.objective.predictors()
