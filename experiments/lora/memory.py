"""Memory of a fine-tuning step with all parameters, LoRA or the head alone, from compiled programs.

python experiments/lora/memory.py --root ESC10 [--size base] [--batch 16]; nothing is run.
"""

import argparse
import math

import flax.linen as nn
import jax

from ssl_audio import config, config_files
from ssl_audio.distributed import sharding
from ssl_audio.train.loop import plan
from ssl_audio.train.run import Run

WAYS = {"full": None, "lora": dict(kind="lora", rank=8), "head": dict(kind="lora", rank=0)}


def held(tree) -> float:
    """Return the MB of the arrays of a tree of shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.shape) * getattr(x.dtype, "itemsize", 8) for x in leaves) / 1e6


def main() -> None:
    """Compile the three steps and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True)
    parser.add_argument("--size", default="base")
    parser.add_argument("--encoder", default="ssast")
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    place = f"finetune:task=esc10,root={args.root},encoder={args.encoder},size={args.size}"
    print("way | parameters M | learned M | optimizer MB | arguments MB | temporary MB | peak MB")
    for way, adapt in WAYS.items():
        options = config.plain(config_files.load(place))
        options["data"]["batch_size"] = args.batch
        options["optim"]["layer_decay"] = 1.0
        if adapt:
            options["adapt"] = adapt
        run = config.make(Run, options)
        mesh = run.sharding.mesh()
        with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.ACTIVATIONS):
            _, step, state = plan(run, mesh, 100, 10)
            batch = sharding.spec(run.data.spec(), mesh)
            memory = step.trace(state, batch).lower().compile().memory_analysis()
        learned = run.objective.phases[0].part(state.params)
        peak = (
            memory.argument_size_in_bytes
            + memory.temp_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
        )
        numbers = (
            f"{held(state.params) / 4:.2f}", f"{held(learned) / 4:.3f}", f"{held(state.opt_state):.1f}",
            f"{memory.argument_size_in_bytes / 1e6:.0f}", f"{memory.temp_size_in_bytes / 1e6:.0f}",
            f"{peak / 1e6:.0f}",
        )  # fmt: skip
        print(" | ".join((way, *numbers)), flush=True)


if __name__ == "__main__":
    main()
