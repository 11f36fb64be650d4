"""Count a model's parameters and time it: clips of five seconds, one by one, processor time.

taskset -c 0 python experiments/distill/sizes.py FOLDER … [--seconds 5] [--repeats 20]
"""

import argparse
import statistics
import time

import jax
import numpy as np

import ssl_audio
from ssl_audio import startup


def main() -> None:
    """Parse the command line, time the models in turns, print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    encoders = {path: ssl_audio.load(path).encoder for path in args.models}
    wave = 0.1 * np.random.default_rng(0).standard_normal(round(args.seconds * 16_000), np.float32)
    taken: dict[str, list[float]] = {path: [] for path in encoders}
    for turn in range(args.repeats + 1):
        for path, encoder in encoders.items():
            begin = time.process_time()
            encoder.embed(wave, 16_000, pad="columns")
            if turn:  # not the first, which compiles
                taken[path].append(time.process_time() - begin)
    print("| model | parameters of the encoder, M | ms a clip | clips/s |\n|---|---|---|---|")
    for path, encoder in encoders.items():
        own = {name: encoder.params[name] for name in ("tokenizer", "encoder")}
        count = sum(x.size for x in jax.tree.leaves(own))
        middle = statistics.median(taken[path])
        print(f"| {path} | {count / 1e6:.2f} | {1e3 * middle:.0f} | {1 / middle:.1f} |")


if __name__ == "__main__":
    startup.tune_cpu()
    startup.run(main)
