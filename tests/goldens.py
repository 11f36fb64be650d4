"""Golden files of reference models: state dict, options, inputs and outputs; how far ours are off."""

import dataclasses
import json
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Golden:
    """What a golden file holds."""

    state: dict[str, np.ndarray]
    options: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    def differences(self, found):
        """Return name → largest difference, after checking that names and shapes are the same."""
        assert set(found) == set(self.outputs)
        for name, want in self.outputs.items():
            assert found[name].shape == want.shape, (name, found[name].shape, want.shape)
        return {n: float(np.abs(found[n] - want).max()) for n, want in self.outputs.items()}

    def check_same_bits(self, back):
        """Assert that a state dict is that of the file, bit by bit."""
        assert back.keys() == self.state.keys()
        assert all(np.array_equal(back[name], value) for name, value in self.state.items())


def load(path):
    data = dict(np.load(path, allow_pickle=False))
    state, inputs, outputs = (
        {k.removeprefix(start): v for k, v in data.items() if k.startswith(start)}
        for start in ("param/", "in/", "out/")
    )
    options = data.get("meta/config_json", data.get("config_json"))
    return Golden(state, json.loads(str(options)), inputs, outputs)
