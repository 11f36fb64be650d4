"""What a run will need, without data or devices: ssl-audio preview --config ssamba

Compiles the training step for a mesh of simulated CPU devices: the layout and the collectives are those
that XLA gives any device; memory and the time to compile are those of its CPU back end.
"""

import argparse
import collections
import dataclasses
import math
import os
import re
import time
from collections.abc import Sequence
from typing import Any

from ssl_audio import config_files, slots

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
EPOCH = 1000  # steps; schedules need a number, nothing here depends on it


@dataclasses.dataclass(frozen=True)
class Preview:
    """What a compiled step needs.

    Attributes:
      devices: that the mesh spans.
      parameters: number of trained values; by first part of their path.
      state_bytes: per device, of parameters, optimizer and the rest.
      batch_bytes: per device.
      flops: of the matrix products of one step, over all devices.
      peak_bytes: per device while the step runs, state included; None without compilation.
      collectives: kind → [number in the program, bytes of their results on one device].
      widest: the shape of the largest collective's result.
    """

    devices: int
    parameters: dict[str, int]
    state_bytes: int
    batch_bytes: int
    flops: float
    peak_bytes: int | None = None
    collectives: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    widest: str = ""


def preview(options: Any, *, compiled: bool = True) -> Preview:
    """Lower (and compile) the training step of a config on the devices that JAX has.

    Raises:
      TypeError, ValueError: the config is wrong, or does not fit the mesh.
    """
    import flax.linen as nn
    import jax

    from ssl_audio import config
    from ssl_audio.distributed import sharding
    from ssl_audio.train import flops
    from ssl_audio.train.loop import plan
    from ssl_audio.train.run import Run, fitting

    run = config.make(Run, options)
    total = config.duration(run.steps, total=0, epoch=EPOCH)
    mesh = run.sharding.mesh()
    sharding.check_batch(run.data.batch_size, mesh, run.accumulate)
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.ACTIVATIONS):
        _, step, state = plan(run, mesh, total, EPOCH)
        batch = sharding.spec(run.data.spec(), mesh)
        with fitting(batch):
            traced = step.trace(state, batch)
        program = traced.lower().compile() if compiled else None
    parameters = collections.Counter()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
        parameters[sharding.path_name(path[:1])] += leaf.size
    found = Preview(
        devices=mesh.size,
        parameters=dict(parameters),
        state_bytes=_share(state),
        batch_bytes=_share(batch),
        flops=flops.count(traced.jaxpr),
    )
    if program is None:
        return found
    memory: Any = program.memory_analysis()
    collectives, widest = count_collectives(program.as_text() or "")
    return dataclasses.replace(
        found,
        # Arguments that are given away hold the results.
        peak_bytes=memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
        collectives=collectives,
        widest=widest,
    )


def _share(tree: Any) -> int:
    """Return the bytes of a tree of shapes with shardings on one device."""
    import jax

    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * getattr(leaf.dtype, "itemsize", 8)
        for leaf in jax.tree.leaves(tree)
    )


def count_collectives(text: str) -> tuple[dict[str, tuple[int, int]], str]:
    """Return kind → (number, bytes) of the collectives in a compiled program, and the widest's shape.

    One inside the loop over the layers counts once.
    """
    found: dict[str, tuple[int, int]] = {}
    widest, most = "", -1
    pattern = re.compile(rf" = (.+?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
    for match in pattern.finditer(text):
        shapes = re.findall(r"(\w+?)(\d+)\[([\d,]*)\]", match[1])
        sizes = [
            math.prod(int(n) for n in dims.split(",") if n) * max(int(bits), 8) // 8
            for _, bits, dims in shapes
        ]
        number, total = found.get(match[2], (0, 0))
        found[match[2]] = (number + 1, total + sum(sizes))
        for (kind, bits, dims), size in zip(shapes, sizes, strict=True):
            if size > most:
                widest, most = f"{match[2]} {kind}{bits}[{dims}]", size
    return found, widest


def report(found: Preview, mesh: str, seconds: float) -> str:
    """Return the table that people read."""
    parts = ", ".join(f"{name} {n / 1e6:.2f} M" for name, n in sorted(found.parameters.items()))
    lines = [
        f"mesh            {mesh}: {found.devices} devices",
        f"parameters      {sum(found.parameters.values()) / 1e6:.2f} M ({parts})",
        f"state           {size(found.state_bytes)} per device (parameters, optimizer, the rest)",
        f"batch           {size(found.batch_bytes)} per device",
        f"matrix products {found.flops:.3g} FLOP per step, {found.flops / found.devices:.3g} per device",
    ]
    if found.peak_bytes is not None:
        lines.append(f"peak memory     {size(found.peak_bytes)} per device (XLA's CPU back end)")
        for kind, (number, total) in sorted(found.collectives.items()):
            lines.append(f"{kind:15} {number} in the program, {size(total)} per device")
        if found.widest:
            lines.append(f"largest         {found.widest}")
    return "\n".join([*lines, f"took            {seconds:.0f} s"])


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.3g} {unit}"
        count /= 1024
    raise AssertionError


def axes(text: str) -> dict[str, int]:
    """Return {"data": 8, "fsdp": 4} from "data=8,fsdp=4", for argparse."""
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in ("data", "fsdp", "tensor") or not number.isdigit() or int(number) < 1:
            raise argparse.ArgumentTypeError(
                f"wanted AXIS=NUMBER,… with axes data, fsdp, tensor; got {part!r}"
            )
        found[name] = int(number)
    return found


def parser() -> argparse.ArgumentParser:
    """Return the parser of `ssl-audio preview`."""
    made = config_files.with_config("preview", __doc__)
    made.add_argument(
        "--mesh", type=axes, default="data=8", help="devices along each axis (%(default)s)"
    )
    made.add_argument(
        "--no-compile", action="store_true", help="leave out peak memory and collectives; faster"
    )
    return made


def main(argv: Sequence[str] | None = None) -> Preview:
    """Parse the command line, make the devices, print the report."""
    from ssl_audio import config

    began = time.monotonic()
    args, options = config_files.parse(parser(), argv)
    # The program is never run, so generating its code need not try hard.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    )
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", math.prod(args.mesh.values()))
    options = config.plain(options)
    options["sharding"] = {**options.get("sharding", {}), "data": 1, "fsdp": 1, **args.mesh}
    with slots.trusting(args.trust):
        found = preview(options, compiled=not args.no_compile)
    mesh = " x ".join(f"{name} {n}" for name, n in args.mesh.items())
    print(report(found, mesh, time.monotonic() - began))
    return found
