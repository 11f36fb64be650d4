"""Measure what a training step costs with half of the tokens and with all: alternated, processor time.

python experiments/vatt/drop.py --data DIR/sounds.jsonl
"""

import argparse
import statistics
import time
from typing import Any

import jax

from ssl_audio import config, config_files


def main() -> None:
    """Print the median step of both, s of processor time, and their ratio."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--data", required=True)
    made.add_argument("--steps", type=int, default=15)
    args = made.parse_args()
    steps: dict[str, Any] = {}
    for drop in ("0.0", "0.5"):
        options = config_files.load(f"vatt:laptop,data={args.data},drop={drop}")
        objective: Any = config.build(options.objective, "objectives")
        data: Any = config.build(options.data, "data")
        batch = jax.tree.map(jax.numpy.asarray, next(data.batches()))
        params, extra = jax.jit(objective.init)(jax.random.key(0), batch)

        def descent(params, batch, objective=objective, extra=extra):
            return objective.loss(params, extra, batch, jax.random.key(1), train=True).total

        steps[drop] = (jax.jit(jax.grad(descent)), params, batch)
        jax.block_until_ready(steps[drop][0](params, batch))
    spent: dict[str, list[float]] = {drop: [] for drop in steps}
    for _ in range(args.steps):
        for drop, (step, params, batch) in steps.items():
            before = time.process_time()
            jax.block_until_ready(step(params, batch))
            spent[drop].append(time.process_time() - before)
    medians = {drop: statistics.median(some) for drop, some in spent.items()}
    print(medians, "ratio", medians["0.5"] / medians["0.0"])


if __name__ == "__main__":
    main()
