"""Time a training step of Audio-MAE against the share of hidden patches: what encoding the others only saves.

    python experiments/compare/masking.py [--size small] [--batch 2] [--ratios 0.1,0.5,0.75,0.8,0.9]

Gradients of the whole loss, and of the encoder alone; on synthetic sounds of 10 s (512 patches).
"""

import argparse
import importlib.util
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio import config, startup
from ssl_audio.bench.measure import Row, compiled, matmul_flops, measure, table
from ssl_audio.tokens.masking import others

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "audiomae.py"


def main() -> None:
    """Parse the command line, measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="small", help="small, base, large")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--ratios", default="0.1,0.5,0.75,0.8,0.9")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    spec: Any = importlib.util.spec_from_file_location("audiomae", CONFIG)
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    options = recipe.get_config(f"size={args.size},decoder=global").objective.to_dict()
    rows = [row for ratio in args.ratios.split(",") for row in timed(options, float(ratio), args)]
    print(table(measure(rows, args.repeats, seconds=120)))


def timed(options: dict[str, Any], ratio: float, args: argparse.Namespace) -> list[Row]:
    """Return the rows of a share of hidden patches."""
    options = options | dict(masking=options["masking"] | dict(count=ratio))
    objective: Any = config.build(options, "objectives")
    samples = 160 * objective.frontend.frames + 240
    audio = 0.1 * np.random.default_rng(0).standard_normal((args.batch, samples), np.float32)
    clips = {"audio": audio, "length": np.full(args.batch, samples, np.int32)}
    params, extra = jax.jit(objective.init)(jax.random.key(0), clips)
    spec = objective.frontend(jnp.asarray(audio), jnp.asarray(clips["length"]))
    grid = objective.tokenizer.grid(*spec.shape[1:])
    hidden = objective.masking(jax.random.key(0), args.batch, grid)
    shown = others(hidden, grid[0] * grid[1])

    def loss(params):
        return objective.loss(params, extra, clips, jax.random.key(1), train=True).total

    def encoder(params):
        return jnp.mean(objective.visible(params, spec, shown, jax.random.key(1)).tokens.x ** 2)

    found = []
    for name, function in (("step", loss), ("encoder", encoder)):
        gradient = jax.grad(function)
        program, fields = compiled(gradient, params)
        labels = {"of": name, "hidden": f"{ratio:g}", "encoded": shown.shape[1]}

        def call(program=program):
            jax.block_until_ready(program(params))

        flops = matmul_flops(gradient, params)
        found.append(Row(labels, call, (name,), flops=flops, items=args.batch, **fields))
    return found


if __name__ == "__main__":
    startup.tune_cpu()
    startup.run(main)
