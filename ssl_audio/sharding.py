"""The device mesh and who holds what: ordered (path regex, tactic) rules, called by the trainer.

Optimizer moments and teachers end in the same path as their parameter, so they inherit its layout.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

# Logical activation axes → mesh axes, for the constraints inside the blocks.
ACTIVATIONS = (("batch", ("data", "fsdp")), ("tokens", None), ("width", None), ("inner", None))
BATCH = PartitionSpec(("data", "fsdp"))
TACTICS = ("replicate", "fsdp")


@dataclasses.dataclass(frozen=True)
class Sharding:
    """How devices are arranged and parameters spread over them.

    Attributes:
      data: devices along the axis that splits the batch and copies the parameters; -1: all that are left.
      fsdp: devices along the axis that splits both the batch and the parameters.
      rules: (regex, tactic) searched in order in "/"-joined paths; tactic is "replicate" or "fsdp"
        (split the longest axis that divides).
      max_replicated: largest share of the parameter mass that may be held whole when fsdp > 1.
    """

    data: int = -1
    fsdp: int = 1
    rules: tuple = ((r"(scale|bias|special|mask_token)$", "replicate"), (r".*", "fsdp"))
    max_replicated: float = 0.02

    def mesh(self) -> jax.sharding.Mesh:
        """Return the mesh over all devices of all hosts."""
        devices = jax.devices()
        data = len(devices) // self.fsdp if self.data == -1 else self.data
        if (
            data < 1
            or data * self.fsdp > len(devices)
            or (self.data == -1 and data * self.fsdp != len(devices))
        ):
            raise ValueError(
                f"config.sharding: data={self.data} x fsdp={self.fsdp} does not fit {len(devices)} devices."
            )
        shape = (data, self.fsdp)
        # Explicit axes, this JAX's default, break linen's lifted transforms.
        return jax.make_mesh(
            shape, ("data", "fsdp"), (AxisType.Auto,) * 2, devices=devices[: math.prod(shape)]
        )

    def infer(self, tree: Any, mesh: jax.sharding.Mesh) -> Any:
        """Return a NamedSharding per leaf of a tree of shapes.

        Raises:
          ValueError: a path matches no rule, a rule matches nothing, or too much would be replicated.
        """
        size = mesh.shape["fsdp"]
        used, replicated = set(), {}

        def place(path, leaf):
            name = path_name(path)
            spec = PartitionSpec()
            if math.prod(leaf.shape) > 1 and not jax.dtypes.issubdtype(
                leaf.dtype, jax.dtypes.prng_key
            ):
                number = next(
                    (i for i, (r, _) in enumerate(self.rules) if re.search(r, name)), None
                )
                if number is None:
                    raise ValueError(f"config.sharding: '{name}' matched no rule; add one.")
                used.add(number)
                tactic = self.rules[number][1]
                if tactic not in TACTICS:
                    raise ValueError(
                        f"config.sharding: tactic '{tactic}'; wanted one of {TACTICS}."
                    )
                fits = [i for i, n in enumerate(leaf.shape) if n % size == 0]
                if tactic == "fsdp" and size > 1 and fits:
                    axis = max(fits, key=lambda i: leaf.shape[i])
                    spec = PartitionSpec(*[None] * axis, "fsdp")
            if not any(spec):
                replicated[name] = math.prod(leaf.shape)
            return NamedSharding(mesh, spec)

        layout = jax.tree_util.tree_map_with_path(place, tree)
        for i, (rule, _) in enumerate(self.rules):
            if i not in used and rule != ".*":
                raise ValueError(f"config.sharding: rule '{rule}' matched no parameter.")
        mass = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        share = sum(replicated.values()) / max(mass, 1)
        if size > 1 and share > self.max_replicated:
            worst = sorted(replicated, key=lambda name: -replicated[name])[:5]
            raise ValueError(
                f"config.sharding: {share:.1%} of the values would be copied to every device "
                f"(at most {self.max_replicated:.1%}); largest: {', '.join(worst)}."
            )
        return layout


def path_name(path: tuple) -> str:
    """Return a tree path as "encoder/layers/mixer/a_log"."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Return the layout of a value that every device holds."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """Return this process's rows of a batch as part of global arrays split over all devices."""
    layout = NamedSharding(mesh, BATCH)
    return {k: jax.make_array_from_process_local_data(layout, v) for k, v in batch.items()}


def spec(shapes: Mapping[str, tuple], mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Return name → shape, type and layout of a global batch, from name → (shape, type)."""
    layout = NamedSharding(mesh, BATCH)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=layout)
        for name, (shape, dtype) in shapes.items()
        if name != "index"
    }


def check_batch(batch_size: int, mesh: jax.sharding.Mesh, accumulate: int = 1) -> None:
    """Raise ValueError unless the batch divides evenly over devices and accumulation steps."""
    parts = mesh.size * accumulate
    if batch_size % parts:
        below = batch_size // parts * parts
        nearest = ", ".join(str(n) for n in (below, below + parts) if n)
        what = f"{mesh.size} devices" + (
            f" x {accumulate} accumulation steps" if accumulate > 1 else ""
        )
        raise ValueError(
            f"config.data.batch_size: {batch_size} is not divisible by {what}; nearest: {nearest}."
        )
