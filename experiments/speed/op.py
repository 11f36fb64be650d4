"""Time training steps and scans of several source trees in turn, each in a process of its own.

    python experiments/speed/op.py --tree before=PATH --tree after=. [--torch PYTHON] [--what step,scan]

Prints, per tree, medians of processor time and wall time, ratios to the first, and temporaries.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def step(torch: bool, batch: int):
    """Return the call, and temporaries in bytes, of SSAMBA-tiny's step on 512 tokens of noise."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from ssl_audio import config
    from ssl_audio.bench import formulations
    from ssl_audio.bench.measure import compiled
    from ssl_audio.presets import patch_encoders
    from ssl_audio.structs import Tokens

    rows, columns = 8, 64
    built = patch_encoders.encoder("ssamba", "tiny", (rows, columns), None)
    shape, g = (batch, rows * columns, built["width"]), np.random.default_rng(0)
    x, target = (g.standard_normal(shape).astype(np.float32) for _ in range(2))
    if torch:
        import torch as pytorch

        model = formulations.torch_encoder(
            built["width"], built["depth"], built["block"]["mixer"], 0
        )
        tensors = pytorch.from_numpy(x), pytorch.from_numpy(target)
        return formulations.torch_training_step(model, *tensors, dtype="float32"), None
    index = jnp.broadcast_to(jnp.arange(shape[1])[None], shape[:2])
    stack, tx = config.build(built, "backbones"), optax.adamw(1e-4)

    def encode(params, x):
        tokens = Tokens(x=x, index=index, grid=(rows, columns))
        return stack.apply({"params": params}, tokens).tokens.x

    def update(state, x, target):
        params, moments = state
        loss, gradients = jax.value_and_grad(
            lambda params: jnp.mean((encode(params, x) - target) ** 2)
        )(params)
        updates, moments = tx.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), moments), loss

    tokens = Tokens(x=jnp.asarray(x), index=index, grid=(rows, columns))
    params = jax.jit(stack.init)(jax.random.key(0), tokens)["params"]
    box = [(params, jax.jit(tx.init)(params))]
    program, fields = compiled(update, box[0], x, target, donate_argnums=0)

    def call():
        box[0], loss = program(box[0], x, target)
        jax.block_until_ready(loss)

    return call, fields["temp"]


def scan(torch: bool, batch: int):
    """Return the same of `selective_scan` with all its inputs and gradients, 22,000 tokens."""
    from functools import partial

    import jax
    import numpy as np

    from ssl_audio.bench.measure import compiled
    from ssl_audio.layers.scan import selective_scan

    assert not torch, "--torch goes with --what step"
    g, length, channels, states = np.random.default_rng(0), 22000, 384, 16
    wide, mix = (batch, length, channels), (batch, length, states)
    rates = -np.broadcast_to(np.arange(1.0, states + 1), (channels, states))
    shapes = (wide, wide, rates, mix, mix, (channels,), wide, (channels,))
    operands = [
        g.standard_normal(s) - 2.0 * (i == 1) if isinstance(s, tuple) else s
        for i, s in enumerate(shapes)
    ]
    operands = [jax.device_put(x.astype(np.float32)) for x in operands]

    def both(operands, dy):
        y, pull = jax.vjp(partial(selective_scan, implementation="cpp"), *operands)
        return y, pull(dy)

    program, fields = compiled(both, operands, operands[0])
    return lambda: jax.block_until_ready(program(operands, operands[0])), fields["temp"]


def serve(what: str, torch: bool, batch: int) -> None:
    """Run the call once for every line that comes in, and answer with its times."""
    from ssl_audio import startup

    startup.tune_cpu()
    call, temp = {"step": step, "scan": scan}[what](torch, batch)
    call()
    print(json.dumps(temp), flush=True)
    for _ in sys.stdin:
        wall, busy = time.perf_counter(), time.process_time()
        call()
        times = time.perf_counter() - wall, time.process_time() - busy
        print(json.dumps(times), flush=True)


class Side:
    """A process that runs one tree's code."""

    def __init__(self, name: str, python: str, tree: str, *options: str):
        command = [python, os.path.abspath(__file__), "--serve", *options]
        tree = os.path.abspath(tree)
        self.name, self.times = name, []
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tree,
            env=os.environ | {"PYTHONPATH": tree},
        )
        self.temp = self.read()

    def read(self):
        """Return the next answer; other lines are messages of libraries."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                continue
        raise RuntimeError(f"{self.name}: the process ended; its errors are above.")

    def run(self) -> None:
        """Run the call once."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.times.append(self.read())


def main() -> None:
    """Parse the command line; start the processes; alternate; print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", action="append", default=[], help="NAME=PATH; the first is 1")
    parser.add_argument("--torch", metavar="PYTHON", help="also PyTorch eager, with this Python")
    parser.add_argument("--what", default="step", help="step, scan (default %(default)s)")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--with-torch", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.what, args.with_torch, args.batch)
    common = ["--what", args.what, "--batch", str(args.batch)]
    trees = dict(tree.split("=", 1) for tree in args.tree)
    if not trees:
        parser.error("--tree: none given; wanted NAME=PATH of a checkout, two or more times")
    sides = [Side(name, sys.executable, path, *common) for name, path in trees.items()]
    if args.torch:
        last = list(trees.values())[-1]
        sides.append(Side("PyTorch eager", args.torch, last, "--with-torch", *common))
    for _ in range(args.repeats):
        for side in sides:
            side.run()
    medians = [[statistics.median(x) for x in zip(*s.times, strict=True)] for s in sides]
    print(f"{args.what}, batch {args.batch}, {args.repeats} rounds, load {os.getloadavg()[0]:.1f}")
    print("| | cpu s | wall s | cpu ratio | wall ratio | temp MB |\n| --- |" + " --- |" * 5)
    for side, (wall, busy) in zip(sides, medians, strict=True):
        ratios = f"{busy / medians[0][1]:.3g} | {wall / medians[0][0]:.3g}"
        temp = "" if side.temp is None else f"{side.temp / 1e6:.0f}"
        print(f"| {side.name} | {busy:.3g} | {wall:.3g} | {ratios} | {temp} |")


if __name__ == "__main__":
    main()
