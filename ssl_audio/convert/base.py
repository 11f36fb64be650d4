"""What converters share: taking arrays out of a state dict, and the model that comes out."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Converted:
    """A converted model.

    Attributes:
      config: the resolved config; `ssl_audio.config.build` takes its `objective`.
      params: its parameters, numpy arrays.
      outputs: (params, **inputs) → dict of arrays, traceable.
    """

    config: dict[str, Any]
    params: dict[str, Any]
    outputs: Callable[..., Mapping[str, Any]]

    def forward(self, **inputs: Any) -> dict[str, np.ndarray]:
        """Run the model at full float32 precision, under the reference's names for in- and outputs."""
        with jax.default_matmul_precision("highest"):
            found = jax.jit(self.outputs)(self.params, **inputs)
        return {name: np.asarray(value) for name, value in found.items()}


def stacked(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the parameters of all layers along a new first axis."""
    first = layers[0]
    return {
        k: stacked([layer[k] for layer in layers])
        if isinstance(v, dict)
        else np.stack([layer[k] for layer in layers])
        for k, v in first.items()
    }


def plain_names(state: State) -> dict[str, np.ndarray]:
    """Return a state dict without the prefixes of data-parallel checkpoints and of golden files."""
    return {
        name.removeprefix("param/").removeprefix("module."): np.asarray(value)
        for name, value in state.items()
    }


class Reader:
    """Take arrays out of a state dict, remembering what was asked for."""

    def __init__(self, state: State):
        self.state = plain_names(state)
        self.taken: set[str] = set()
        self.missing: list[str] = []

    def has(self, name: str) -> bool:
        """Tell whether there is an array of this name."""
        return name in self.state

    def take(self, name: str) -> np.ndarray:
        """Return an array; a missing one is noted and reported by `finish`."""
        if name not in self.state:
            self.missing.append(name)
            return np.zeros((1, 1, 1, 1), np.float32)
        self.taken.add(name)
        return self.state[name]

    def count(self, prefix: str) -> int:
        """Return the number of layers whose names start so."""
        numbers = {int(k[len(prefix) :].split(".")[0]) for k in self.state if k.startswith(prefix)}
        if not numbers:
            raise ValueError(
                f"state dict: no key starts with '{prefix}'; is it a checkpoint of another model? "
                f"It has {', '.join(list(self.state)[:5])} …"
            )
        return 1 + max(numbers)

    def dense(self, name: str, change: Callable = np.transpose) -> dict[str, np.ndarray]:
        """Return a Linear's weight as a kernel, with its bias."""
        return {"kernel": change(self.take(f"{name}.weight")), "bias": self.take(f"{name}.bias")}

    def norm(self, name: str) -> dict[str, np.ndarray]:
        """Return a norm's weight as its scale, with its bias if it has one."""
        found = {"scale": self.take(f"{name}.weight")}
        return found | ({"bias": self.take(f"{name}.bias")} if self.has(f"{name}.bias") else {})

    def finish(self, ignore: tuple[str, ...]) -> None:
        """Raise ValueError unless every key was taken or starts with one of `ignore`."""
        left = [k for k in self.state if k not in self.taken and not k.startswith(ignore)]
        if self.missing or left:
            raise ValueError(
                f"state dict: missing keys: {', '.join(self.missing) or 'none'}; "
                f"keys nothing wants: {', '.join(left) or 'none'}."
            )
