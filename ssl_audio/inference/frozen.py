"""A trained model as part of what another one learns from: a teacher, or a tokenizer of targets.

An objective calls it like any other objective; its arrays go into that objective's `extra`.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

from ssl_audio import config, slots
from ssl_audio.objectives.base import Batch, Objective, Predictor
from ssl_audio.slots import AnyObjective
from ssl_audio.storage import checkpoint, written

KIND = "ssl_audio.inference.frozen:Frozen"

log = logging.getLogger("ssl_audio")


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What a run, or an exported or converted folder, offers: "encode", "codes", …

    Attributes:
      path: the run's workdir, or the folder.
      model: its objective, where the folder need not be there: its arrays lie in `extra` of what learned from
        it. `ssl-audio export` writes it (see `known`). None: the folder says it.
    """

    path: str
    model: AnyObjective = None

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
        if self.model is not None:
            return self.model
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


def known(options: Any) -> Any:
    """Return options with the objectives of frozen models in them, so that they go without their folders.

    One whose folder is not there stays as it is, with a warning.
    """
    if isinstance(options, (list, tuple)):
        return [known(option) for option in options]
    if not isinstance(options, Mapping):
        return options
    found = {name: known(option) for name, option in options.items()}
    if found.get("kind") == KIND and found.get("model") is None:
        try:
            found["model"] = known(written.trained(found["path"]))
        except (OSError, ValueError) as error:
            log.warning("%s: what is taken from it will not be known elsewhere", error)
    return found
