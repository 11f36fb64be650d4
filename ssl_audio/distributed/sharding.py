"""The device mesh and who holds what: ordered (path regex, tactic) rules, called by the trainer.

Optimizer moments and teachers end in the same path as their parameter, so they inherit its layout.
"""

import collections
import dataclasses
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

log = logging.getLogger("ssl_audio")

# Logical activation axes → mesh axes, for the constraints inside the blocks.
ACTIVATIONS = (("batch", ("data", "fsdp")), ("tokens", None), ("width", None), ("inner", "tensor"))
BATCH = PartitionSpec(("data", "fsdp"))
AXES = ("data", "fsdp", "tensor")
TACTICS = ("replicate", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class Sharding:
    """How devices are arranged and parameters spread over them.

    Attributes:
      data: devices along the axis that splits the batch and copies the parameters; -1: all that are left. A
        process alone may leave some idle.
      fsdp: devices along the axis that splits both the batch and the parameters.
      tensor: devices along the axis that splits the parameters and the work on each example.
      rules: (regex, tactic) searched in order in "/"-joined paths. Tactic "replicate" copies; "fsdp"
        splits the longest axis that divides; "tensor" gives the longest to `tensor`, of two the first,
        and the next to `fsdp`: projections up are split by outputs, those back by inputs, as in Megatron.
      max_replicated: largest share of the parameter mass that may be held whole when fsdp or tensor > 1.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    rules: tuple = ((r"(scale|bias|special|mask_token)$", "replicate"), (r".*", "tensor"))
    max_replicated: float = 0.02

    def mesh(self) -> jax.sharding.Mesh:
        """Return the mesh over all devices of all hosts; `arrange` says how over several slices."""
        devices = jax.devices()
        rest = max(1, self.fsdp * self.tensor)
        data = len(devices) // rest if self.data == -1 else self.data
        shape = (data, self.fsdp, self.tensor)
        size = math.prod(shape)
        if min(shape) < 1 or size > len(devices) or (self.data == -1 and size != len(devices)):
            raise ValueError(
                f"config.sharding: data={self.data} x fsdp={self.fsdp} x tensor={self.tensor} does not "
                f"fit {len(devices)} devices."
            )
        if jax.process_count() > 1 and size != len(devices):
            raise ValueError(
                f"config.sharding: data={data} x fsdp={self.fsdp} x tensor={self.tensor} takes {size} of "
                f"{len(devices)} devices; several processes work on all of theirs: set data=-1, or start "
                "fewer processes."
            )
        if jax.local_device_count() % self.tensor:
            raise ValueError(
                f"config.sharding.tensor: {self.tensor} does not divide the {jax.local_device_count()} "
                "devices of a process, whose rows of the batch it would have to share with another."
            )
        # Explicit axes, this JAX's default, break linen's lifted transforms.
        kinds = (AxisType.Auto,) * 3
        if len({slice_of(device) for device in devices[:size]}) == 1:
            return jax.make_mesh(shape, AXES, kinds, devices=devices[:size])
        return jax.sharding.Mesh(arrange(devices[:size], shape), AXES, axis_types=kinds)

    def infer(self, tree: Any, mesh: jax.sharding.Mesh) -> Any:
        """Return a NamedSharding per leaf of a tree of shapes.

        Raises:
          ValueError: a path matches no rule, a rule matches nothing, or too much would be replicated.
        """
        sizes = {"fsdp": mesh.shape["fsdp"], "tensor": mesh.shape["tensor"]}
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
                spec = _split(leaf.shape, tactic, sizes)
            if not any(spec):
                replicated[name] = math.prod(leaf.shape)
            return NamedSharding(mesh, spec)

        layout = jax.tree_util.tree_map_with_path(place, tree)
        for i, (rule, _) in enumerate(self.rules):
            if i not in used and rule != ".*":
                raise ValueError(f"config.sharding: rule '{rule}' matched no parameter.")
        mass = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        share = sum(replicated.values()) / max(mass, 1)
        if max(sizes.values()) > 1 and share > self.max_replicated:
            worst = sorted(replicated, key=lambda name: -replicated[name])[:5]
            raise ValueError(
                f"config.sharding: {share:.1%} of the values would be copied to every device "
                f"(at most {self.max_replicated:.1%}); largest: {', '.join(worst)}."
            )
        return layout


def _split(shape: tuple[int, ...], tactic: str, sizes: Mapping[str, int]) -> PartitionSpec:
    wanted = {"replicate": (), "fsdp": ("fsdp",), "tensor": ("tensor", "fsdp")}[tactic]
    places: dict[int, str] = {}
    for name in wanted:
        free = [i for i, n in enumerate(shape) if n % sizes[name] == 0 and i not in places]
        if sizes[name] > 1 and free:
            places[max(free, key=lambda i: shape[i])] = name
    return PartitionSpec(*(places.get(i) for i in range(max(places, default=-1) + 1)))


def slice_of(device: Any) -> int:
    """Return which slice a device is in: devices of one are linked by a network of their own."""
    return getattr(device, "slice_index", None) or 0


def arrange(devices: Sequence[Any], shape: tuple[int, int, int]) -> np.ndarray:
    """Return the devices of several slices as an array data x fsdp x tensor, slow links outermost.

    Between slices (TPU slices, NVLink domains of GPUs) the network is an order slower than within one. So
    they lie along `data`, whose only exchange is that of gradients, once a step; what does not divide by
    it goes along `fsdp`, with a line in the log; never along `tensor`.

    Raises:
      ValueError: the slices are not equally large, or would lie along `tensor`.
    """
    sizes = collections.Counter(slice_of(device) for device in devices)
    slices, (data, fsdp, tensor) = len(sizes), shape
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{size} of slice {number}" for number, size in sorted(sizes.items()))
        raise ValueError(
            f"config.sharding: data={data} x fsdp={fsdp} x tensor={tensor} takes {len(devices)} devices, "
            f"{found}; wanted as many of each."
        )
    along = math.gcd(slices, data)
    rest = slices // along
    if fsdp % rest:
        raise ValueError(
            f"config.sharding: data={data} x fsdp={fsdp} x tensor={tensor} on {slices} slices of "
            f"{len(devices) // slices} devices: wanted a data (or data x fsdp) that the slices divide; "
            "tensor stays within a slice."
        )
    if rest > 1:
        log.warning(
            "config.sharding: fsdp=%d spans %d of the %d slices: parameters cross the slow network in "
            "every step. data=%d would keep them within a slice.", fsdp, rest, slices, slices,
        )  # fmt: skip
    within = (data // along, fsdp // rest, tensor)
    return mesh_utils.create_hybrid_device_mesh(within, (along, rest, 1), devices)


def path_name(path: tuple) -> str:
    """Return a tree path as "encoder/layers/mixer/a_log"."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def alone() -> jax.sharding.Mesh:
    """Return a mesh of one device of this process: for what every process computes for itself."""
    return jax.make_mesh((1, 1, 1), AXES, (AxisType.Auto,) * 3, devices=jax.local_devices()[:1])


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Return the layout of a value that every device holds."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """Return this process's rows of a batch as part of global arrays split over all devices."""
    layout = NamedSharding(mesh, BATCH)
    return {k: jax.make_array_from_process_local_data(layout, v) for k, v in batch.items()}


def by_rows(function: Callable[..., Any], x: jax.Array, *whole: jax.Array) -> Any:
    """Return function(x, *whole), computed by each device for its own rows of x [B, …].

    For what XLA cannot split (real FFTs, grouped convolutions, top_k): it would gather the whole batch on
    every device first. Outside a mesh, or where the rows do not divide, this is a plain call.

    Args:
      function: its results have the rows of x.
      x: split over the devices.
      whole: what every row needs whole, such as weights.
    """
    if x.shape[0] % _parts()[1]:
        return function(x, *whole)
    split = True, *[False] * len(whole)
    return over_batch(function, (x, *whole), split=split, results=True, along={"data", "fsdp"})


def over_batch(
    run: Callable[..., Any],
    operands: Sequence[Any],
    *,
    split: Any,
    results: Any,
    along: Set[str] = frozenset(),
) -> Any:
    """Return run(*operands), each device on its part of the batch where a mesh is set.

    For kernels that XLA cannot divide; where the batch does not divide either, each device runs all of it.

    Args:
      run: takes and returns arrays in nested sequences; None for one that is left out.
      operands: of `run`. The first axis of the first array is the batch.
      split: which operands have such an axis; the others are the same for every example.
      results: which results do.
      along: axes of the mesh that `run` must not be divided along by XLA; empty: all.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.manual_axes:
        return run(*operands)
    first = jax.tree.leaves(operands)[0]
    axes, parts = _parts()
    spec = PartitionSpec() if first.shape[0] % parts else PartitionSpec(axes)

    def specs(split):
        return jax.tree.map(lambda one: spec if one else PartitionSpec(), split)

    return jax.shard_map(
        run,
        in_specs=tuple(specs(split)),
        out_specs=specs(results),
        axis_names=set(along),
        check_vma=bool(along),
    )(*operands)


def _parts() -> tuple[tuple[str, ...], int]:
    """Return the axes of the mesh in force that divide a batch, and into how many parts."""
    shape = jax.sharding.get_abstract_mesh().shape
    axes = tuple(axis for axis in ("data", "fsdp") if axis in shape)
    return axes, math.prod(shape[axis] for axis in axes)


def spec(shapes: Mapping[str, tuple], mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Return name → shape, type and layout of a global batch, from name → (shape, type)."""
    layout = NamedSharding(mesh, BATCH)
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=layout)
        for name, (shape, dtype) in shapes.items()
        if name != "index"
    }


def check_batch(
    batch_size: int | Mapping[str, int],
    mesh: jax.sharding.Mesh,
    accumulate: int = 1,
    where: str = "config.data",
) -> None:
    """Raise ValueError unless the batch divides evenly over devices and accumulation steps.

    Args:
      batch_size: of the whole batch; of several beside each other, by the option in `config.data`.
      mesh: the devices.
      accumulate: parts that a step is divided into.
      where: the part of the config that says so.
    """
    if accumulate < 1:
        raise ValueError(f"config.accumulate: wanted at least 1, got {accumulate}.")
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * accumulate
    sizes = {"batch_size": batch_size} if isinstance(batch_size, int) else batch_size
    for option, size in sizes.items():
        if not size % parts:
            continue
        below = size // parts * parts
        nearest = ", ".join(str(n) for n in (below, below + parts) if n)
        what = f"{parts // accumulate} devices" + (
            f" x {accumulate} accumulation steps" if accumulate > 1 else ""
        )
        raise ValueError(
            f"{where}.{option}: {size} is not divisible by {what}; nearest: {nearest}."
        )
