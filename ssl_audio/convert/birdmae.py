"""Bird-MAE (Rauch et al. 2025, arXiv:2504.12880): Audio-MAE's names, a 32 kHz frontend."""

from typing import Any

import numpy as np

from ssl_audio.convert import audiomae
from ssl_audio.convert.base import Converted, State, plain_names

PREFIXES = ("model.", "encoder.", "decoder.")  # of training checkpoints
FRONTEND = dict(rate=32_000, hop=320, window=800, padding="lowest", mean=-7.2, std=4.43)


def from_state_dict(state_dict: State, **options: Any) -> Converted:
    """Convert a state dict of Bird-MAE: the released encoders, or a training checkpoint.

    Options and `forward`: those of `audiomae`; mask_ratio is 0.75 by default.

    Raises:
      ValueError: see `ssl_audio.convert.from_state_dict`.
    """
    state = {}
    for name, value in plain_names(state_dict).items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        state[name] = value
    return audiomae.from_state_dict(state, frontend=FRONTEND, **{"mask_ratio": 0.75} | options)


def to_state_dict(params: Any, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under the names of the released encoders."""
    return audiomae.to_state_dict(params, config)
