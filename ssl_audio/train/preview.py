"""What a run will need, without data or devices: ssl-audio preview --config ssamba

Compiles the training step for a mesh of simulated CPU devices: the layout and the collectives are those
that XLA gives any device; memory and the time to compile are those of its CPU back end.
"""

import argparse
import collections
import contextlib
import dataclasses
import logging
import math
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from ssl_audio import config_files, slots
from ssl_audio.train import collectives

log = logging.getLogger("ssl_audio")

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
      traffic: what devices exchange in one step; None without compilation.
    """

    devices: int
    parameters: dict[str, int]
    state_bytes: int
    batch_bytes: int
    flops: float
    peak_bytes: int | None = None
    traffic: collectives.Traffic | None = None


def preview(options: Any, *, compiled: bool = True, save: pathlib.Path | None = None) -> Preview:
    """Lower (and compile) the training step of a config on the devices that JAX has.

    Args:
      options: a config.
      compiled: also compile, for memory and traffic.
      save: folder to save the compiled step in, for runs of this very config, code and devices.

    Raises:
      TypeError, ValueError: the config is wrong, or does not fit the mesh.
    """
    import flax.linen as nn
    import jax

    from ssl_audio import config
    from ssl_audio.distributed import sharding
    from ssl_audio.train import flops, programs
    from ssl_audio.train.run import Run, fitting, plan

    run = config.make(Run, options)
    epoch = run.data.epoch_steps if save else EPOCH
    total = config.duration(run.steps, total=0, epoch=epoch)
    mesh = run.sharding.mesh()
    run.check_batches(mesh)
    if save:
        run.objective.prepare()  # as `train` does: all processes choose the same
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.ACTIVATIONS):
        _, step, state = plan(run, mesh, total, epoch)
        batch = sharding.spec(run.data.spec(), mesh)
        with fitting(batch):
            traced = step.trace(state, batch)
        with programs.anew() if save else contextlib.nullcontext():
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
    if save:
        known = programs.of(options, (total, epoch), (state, batch))
        log.info("saved: %s", programs.save(save, program, known, found.flops))
    memory: Any = program.memory_analysis()
    return dataclasses.replace(
        found,
        # Arguments that are given away hold the results.
        peak_bytes=memory.argument_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
        traffic=collectives.read(program.as_text() or ""),
    )


def _share(tree: Any) -> int:
    """Return the bytes of a tree of shapes with shardings on one device."""
    import jax

    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * getattr(leaf.dtype, "itemsize", 8)
        for leaf in jax.tree.leaves(tree)
    )


def report(found: Preview, mesh: str, where: str, seconds: float) -> str:
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
        lines.append(f"peak memory     {size(found.peak_bytes)} per device ({where})")
    if found.traffic is not None:
        for kind, (times, total) in sorted(found.traffic.kinds.items()):
            lines.append(f"{kind:15} {times} per step, {size(total)} per device")
        if found.traffic.widest:
            lines.append(f"largest         {found.traffic.widest}")
        if found.traffic.uncounted:
            lines.append(
                f"loops           {found.traffic.uncounted} of unknown length exchange: counted as one turn"
            )
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
        "--mesh", type=axes, help="simulated devices along each axis; default: data=8"
    )
    other = made.add_mutually_exclusive_group()
    other.add_argument(
        "--no-compile", action="store_true", help="leave out peak memory and collectives; faster"
    )
    other.add_argument(
        "--save", type=pathlib.Path, metavar="FOLDER",
        help="compile for the devices that are here, as the config arranges them, and save the step for "
        "`ssl-audio train --compiled FOLDER`; it has to read the data as training does",
    )  # fmt: skip
    return made


def main(argv: Sequence[str] | None = None) -> Preview:
    """Parse the command line, make the devices, print the report."""
    from ssl_audio import config

    began = time.monotonic()
    args, options = config_files.parse(parser(), argv)
    options = config.plain(options)
    if args.save:
        if args.mesh:
            raise ValueError(
                "--mesh simulates devices, --save compiles for those that are here: choose."
            )
        from ssl_audio.distributed import processes

        processes.start(args.save)
        arranged = "as config.sharding arranges them"
    else:
        mesh = args.mesh or {"data": 8}
        arranged = " x ".join(f"{name} {n}" for name, n in mesh.items())
        _simulate(math.prod(mesh.values()))
        options["sharding"] = {**options.get("sharding", {}), "data": 1, "fsdp": 1, **mesh}
    with slots.trusting(args.trust):
        found = preview(options, compiled=not args.no_compile, save=args.save)
    where = "this back end" if args.save else "XLA's CPU back end"
    print(report(found, arranged, where, time.monotonic() - began))
    return found


def _simulate(devices: int) -> None:
    """Let JAX find so many CPU devices; before it looks for any."""
    # The program is never run, so generating its code need not try hard.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    )
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)
