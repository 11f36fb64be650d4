"""Calibration of a classifier: what makes its logits honest probabilities, and where to say yes.

`eval/calibrate.py` fits it on labelled clips; `Classifier` reads it from the folder of the model.
"""

import dataclasses
import json
import logging
import math
import pathlib
from typing import Any

import numpy as np

from ssl_audio.storage import atomic, checkpoint, exported, opened, written

NAME = "calibration.json"
WANTED = "what calibration writes: scale, bias, thresholds, clips"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Logits become logits * scale + bias, before softmax or sigmoid.

    Attributes:
      scale: above 0; for one label per clip the inverse of the temperature (Guo et al. 2017,
        arXiv:1706.04599, section 4.2).
      bias: per class [C]; (): none.
      thresholds: probability from which on a clip is said to have the class [C]; (): none.
      clips: on so many it was fitted.
      step: of the checkpoint whose logits it was fitted to; None: not known, it counts for all.
    """

    scale: float
    bias: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()
    clips: int = 0
    step: int | None = None

    def __post_init__(self):
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale: got {self.scale}, wanted a finite number above 0.")
        if not all(map(math.isfinite, self.bias)):
            raise ValueError("bias: wanted finite numbers.")
        if not all(0 <= value <= 1 for value in self.thresholds):
            raise ValueError("thresholds: wanted probabilities, from 0 to 1.")

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated logits [..., C], float64."""
        bias = np.asarray(self.bias or 0.0, np.float64)
        return np.asarray(logits, np.float64) * self.scale + bias

    def check(self, classes: int, where: str) -> None:
        """Raise ValueError unless it is of so many classes."""
        for name in ("bias", "thresholds"):
            if len(values := getattr(self, name)) not in (0, classes):
                raise ValueError(
                    f"{where}: {name}: got {len(values)} values, wanted one for each of {classes} classes."
                )

    def write(self, folder: Any) -> None:
        """Write calibration.json into a folder, whole or not at all."""
        text = json.dumps(dataclasses.asdict(self), indent=1)
        atomic.write(pathlib.Path(folder) / NAME, text + "\n")


def read(folder: Any) -> Calibration | None:
    """Return the calibration in a folder; None: there is none.

    Raises:
      ValueError: it is damaged.
    """
    path = pathlib.Path(folder) / NAME
    if not path.is_file():
        return None
    found = opened.json_file(path, WANTED)
    values: dict[str, Any] = {
        "scale": opened.member(found, "scale", (int, float), path),
        "clips": opened.member(found, "clips", int, path),
    }
    for name in ("bias", "thresholds"):
        some = opened.member(found, name, list, path)
        if not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in some):
            raise opened.error(f"{path}: {name}", opened.short(some), "a list of numbers")
        values[name] = tuple(map(float, some))
    if found.get("step") is not None:
        values["step"] = opened.member(found, "step", int, path)
    with opened.naming(path):
        return Calibration(**values)


def fitted(folder: pathlib.Path, step: int | str | None) -> Calibration | None:
    """Return the calibration in a folder, unless it is of another checkpoint than `load` opens for `step`.

    Raises:
      ValueError: it is damaged.
    """
    found = read(folder)
    if found is None or found.step is None or exported.is_plain(folder):
        return found
    taken = step
    if not isinstance(step, int):
        taken = checkpoint.chosen(folder, step, written.read(folder))[1][-1]
    if taken == found.step:
        return found
    log.warning(
        "%s/%s: it was fitted to step %d and is not used for step %d, whose scores are as the model gives "
        "them; the command that trained the run, given again, fits it to the step that it opens by default",
        folder, NAME, found.step, taken,
    )  # fmt: skip
    return None
