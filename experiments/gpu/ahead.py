"""Compile the kernels and training steps for an H100 on a machine without one; print what the compiler says.

    python -m experiments.gpu.ahead [--sass] [--steps] [--out FILE.json]

Needs `pip install "jax[cuda13]" nvidia-cuda-nvdisasm`, no GPU and no driver. Nothing runs.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.gpu import scan, steps
from ssl_audio.layers.scan import choose

# The machine to compile for, in XLA's words (xla/stream_executor/device_description.proto).
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 patch: 0 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
SHARED = 227 * 1024  # bytes that a block of threads may have


def target() -> NamedSharding:
    """Return where programs are compiled for.

    Raises:
      RuntimeError: the CUDA plugin is not installed.
    """
    if not importlib.util.find_spec("jax_cuda13_plugin"):
        raise RuntimeError(
            "no compiler for CUDA here: pip install 'jax[cuda13]'; no GPU is needed."
        )
    jax.config.update("jax_platforms", "cpu")  # it must not look for a GPU
    os.environ["MOSAIC_GPU_DUMP_PTXAS"] = "1"  # read when a kernel is compiled
    topology = topologies.get_topology_desc(
        "h100", platform="cuda", target_config=H100, topology="1x1x1"
    )
    return NamedSharding(topologies.make_mesh(topology, (1,), ("x",)), P())


def compile_for(where: NamedSharding, function: Callable, *arguments: Any, **options: Any) -> dict:
    """Compile for shapes; return s, bytes, and ptxas's report on every kernel of ours."""
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), arguments
    )
    start = time.perf_counter()
    with said() as text:
        program = jax.jit(function, **options).lower(*placed).compile()
    took, memory, hlo = time.perf_counter() - start, program.memory_analysis(), program.as_text()
    calls = re.findall(r'custom_call_target="([^"]+)"', hlo)
    return dict(
        compile_s=took,
        temporaries_gb=memory.temp_size_in_bytes / 1e9,
        arguments_gb=memory.argument_size_in_bytes / 1e9,
        registers=[int(n) for n in re.findall(r"Used (\d+) registers", text())],
        spilled_bytes=sum(int(n) for n in re.findall(r"(\d+) bytes spill", text())),
        loops=loops(text()),
        calls={name: calls.count(name) for name in sorted(set(calls))},
    )


def loops(sass: str) -> list[list[dict[str, int]]]:
    """Return for each disassembled kernel the instructions of its innermost loops, of 40 or more."""
    found = []
    for kernel in re.split(r"//-+ \.text\.", sass)[1:]:
        labels, instructions, spans = dict[str, int](), list[str](), list[tuple[int, int]]()
        for line in kernel.partition("//--------------------- SYMBOLS")[0].splitlines():
            if label := re.match(r"\s*\.(L_x_\d+):", line):
                labels[label[1]] = len(instructions)
            elif text := re.search(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?\s*([A-Z].*?);", line):
                back = re.search(r"\bBRA\b.*\.(L_x_\d+)", text[1])
                if back and back[1] in labels:
                    spans.append((labels[back[1]], len(instructions)))
                instructions.append(text[1])
        inner = [
            (a, b)
            for a, b in spans
            if b - a >= 40 and not any(a <= c and d <= b and (c, d) != (a, b) for c, d in spans)
        ]
        found.append(
            [
                dict(
                    instructions=b - a + 1,
                    exp2=sum(i.startswith("MUFU.EX2") for i in instructions[a : b + 1]),
                    shared=sum(i.startswith(("LDS", "STS")) for i in instructions[a : b + 1]),
                )
                for a, b in inner
            ]
        )
    return found


@contextlib.contextmanager
def said() -> Iterator[Callable[[], str]]:
    """Give a function that returns what was written to standard output and error, by C++ too."""
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        found: list[str] = []
        try:
            yield lambda: found[0]
        finally:
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)
            file.seek(0)
            found.append(file.read().decode(errors="replace"))


@contextlib.contextmanager
def shared_memory() -> Iterator[list[int]]:
    """Give a list that receives the bytes of shared memory of every kernel that is traced meanwhile."""
    found, real = list[int](), plgpu.kernel

    def kernel(body, **options):
        found.append(sum(_bytes(scratch) for scratch in options["scratch_types"]))
        return real(body, **options)

    plgpu.kernel = kernel
    try:
        yield found
    finally:
        plgpu.kernel = real


def _bytes(scratch: Any) -> int:
    if isinstance(scratch, plgpu.Barrier):
        return 8 * int(np.prod(scratch.num_barriers))  # a tuple in newer versions of jax
    return math.prod(scratch.shape) * jnp.dtype(scratch.dtype).itemsize


def kernels(compile: Callable[..., dict]) -> list[dict[str, Any]]:
    """Return a row for each form of the scan: directions, dtype, and what was compiled."""
    found = []
    for dtype in ("bfloat16", "float32"):
        for reverse in ((False,), (True,), (False, True)):
            shape = (2, 512, scan.BASE["channels"], scan.BASE["states"])
            directions = [scan.operands(shape, dtype) for _ in reverse]
            y = jax.ShapeDtypeStruct(shape[:3], jnp.float32)
            cotangents = [(y, jax.ShapeDtypeStruct((2, *shape[2:]), jnp.float32)) for _ in reverse]
            for what, function, arguments in (
                ("forward", lambda d, r: choose.run("pallas_gpu", d, r), (directions,)),
                (
                    "forward + backward",
                    lambda d, c, r: scan.both("pallas_gpu", d, c, r),
                    (directions, cotangents),
                ),
            ):
                with shared_memory() as taken:
                    row = compile(functools.partial(function, r=reverse), *arguments)
                labels = dict(dtype=dtype, reverse=str(reverse), what=what)
                found.append(labels | row | dict(shared_bytes=taken))
                print(json.dumps(found[-1]), flush=True)
                assert max(taken) <= SHARED, f"{labels}: {max(taken)} bytes of shared memory"
    return found


def training_steps(compile: Callable[..., dict]) -> list[dict[str, Any]]:
    """Return a row for each variant of the training steps."""
    found = []
    for name, variants in steps.VARIANTS.items():
        for variant in variants:
            step = steps.Step(name, variant, dry=False)
            row = compile(step.function, step.state, step.batch, donate_argnums=0)
            work = dict(tflop=step.arithmetic() / 1e12)
            found.append(dict(encoder=name, variant=variant) | row | work)
            print(json.dumps(found[-1]), flush=True)
    return found


def longer_inputs(compile: Callable[..., dict]) -> list[dict[str, Any]]:
    """Return a row for each encoder and length of the token curve."""
    found = []
    for name, variants in steps.VARIANTS.items():
        _, mixer = variants[next(iter(variants))]
        for length in steps.LENGTHS:
            function, shapes = steps.longer(name, mixer, length, False)
            found.append(dict(encoder=name, tokens=length) | compile(function, *shapes))
            print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    """Parse the command line, compile, print a JSON line for each program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sass", action="store_true", help="count the instructions of loops")
    parser.add_argument("--steps", action="store_true", help="also whole steps: minutes each")
    parser.add_argument("--out", help="also write the rows to this file")
    args = parser.parse_args()
    if args.sass:
        os.environ["MOSAIC_GPU_DUMP_SASS"] = "1"
    compile = functools.partial(compile_for, target())
    rows = kernels(compile)
    if args.steps:
        rows += training_steps(compile) + longer_inputs(compile)
    if args.out:
        with open(args.out, "w") as file:
            json.dump(dict(jax=jax.__version__, rows=rows), file, indent=1)


if __name__ == "__main__":
    main()
