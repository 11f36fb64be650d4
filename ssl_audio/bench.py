"""Time forward passes and training steps: python -m ssl_audio.bench step --size tiny,base

Rows of one call are interleaved, so that their ratios hold on a machine that others use too.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssl_audio import config, hosts, recipes
from ssl_audio.objectives.base import Objective
from ssl_audio.optim import Optim
from ssl_audio.step import init_state, make_train_step


def prepare(encoder: str, size: str, frames: int, batch: int) -> dict[str, Callable[[], Any]]:
    """Return name → a call that runs a compiled program once and waits for it."""
    options = recipes.masked_spectrogram(
        encoder=encoder, size=size, patch=(16, 16), masked=0.75, frames=frames
    )
    objective: Objective = config.build(options, "objective")
    samples = 400 + 160 * (frames - 1)
    key = jax.random.key(0)
    clips = {
        "audio": 0.1 * jax.random.normal(key, (batch, samples)),
        "length": jnp.full(batch, samples, jnp.int32),
    }
    txs = Optim(lr=1e-4).make(objective.phases, 1000)
    state = jax.jit(lambda key, clips: init_state(objective, txs, key, clips))(key, clips)
    encode = objective.predictors()["encode"]
    forward = jax.jit(lambda params, clips: encode(params, {}, clips).tokens.x)
    step = jax.jit(make_train_step(objective, txs), donate_argnums=0)
    forward = forward.lower(state.params, clips).compile()
    step = step.lower(state, clips).compile()
    box = [state]

    def train():
        box[0], metrics = step(box[0], clips)
        jax.block_until_ready(metrics)

    return {"forward": lambda: jax.block_until_ready(forward(box[0].params, clips)), "train": train}


def measure(
    rows: dict[tuple, Callable[[], Any]], repeats: int, seconds: float
) -> dict[tuple, list[float]]:
    """Return the times of every row, in s: interleaved, after a warm-up, until `seconds` are spent."""
    for call in rows.values():
        call()
    times: dict[tuple, list[float]] = {name: [] for name in rows}
    start = time.perf_counter()
    for number in range(repeats):
        if number >= 3 and time.perf_counter() - start > seconds:
            break
        for name, call in rows.items():
            before = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - before)
    return times


def step(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Print the table of forward passes and joint pretraining steps; return its rows."""
    found = []
    device = jax.devices()[0].device_kind
    print(f"{args.frames} frames, batch {args.batch}, float32, {jax.device_count()} x {device}")
    print("| encoder | size | pass | s | steps/s | clips/s | ratio to the first |")
    print("|---|---|---|---|---|---|---|")
    for size in args.size.split(","):
        rows = {
            (encoder, size, name): call
            for encoder in args.encoder.split(",")
            for name, call in prepare(encoder, size, args.frames, args.batch).items()
        }
        times = measure(rows, args.repeats, args.seconds)
        first: dict[str, float] = {}
        for (encoder, _, name), values in times.items():
            s = statistics.median(values)
            ratio = s / first.setdefault(name, s)
            found.append(
                dict(
                    encoder=encoder,
                    size=size,
                    what=name,
                    seconds=s,
                    spread=max(values) - min(values),
                    repeats=len(values),
                    steps_per_second=1 / s,
                    clips_per_second=args.batch / s,
                    ratio=ratio,
                )
            )
            cells = [encoder, size, name, *(f"{v:.3g}" for v in (s, 1 / s, args.batch / s, ratio))]
            print(f"| {' | '.join(cells)} |", flush=True)
    return found


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["step"])
    parser.add_argument("--encoder", default="ssast,ssamba", help="names in backbones/sizes.py")
    parser.add_argument("--size", default="tiny", help="tiny, small, base; several with commas")
    parser.add_argument("--frames", type=int, default=1024, help="of 10 ms (default %(default)s)")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=60, help="time for a size; 3 repeats at least"
    )
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args(argv)
    hosts.use_compilation_cache()
    rows = step(args)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)
    return rows


if __name__ == "__main__":
    hosts.tune_malloc()
    config.run(main)
