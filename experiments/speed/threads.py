"""What threads that read ahead cost, in processor time a clip, over prepared shards.

Shards are made of synthetic sound, if they are not there. For each tree of the source code a process of its
own reads batches without threads and with them, by turns; the trees take turns too.

    python experiments/speed/threads.py --tree . --tree ../before --seconds 1,10
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any


def measured(root: str, seconds: float, threads: list[int], batch: int, rounds: int) -> dict:
    """Return, for each number of threads, the median of µs of processor time a clip."""
    from ssl_audio.data.entries import Audio
    from ssl_audio.data.pipeline import Pipeline
    from ssl_audio.data.shards import Shards

    found: dict[int, list[float]] = {number: [] for number in threads}
    for turn in range(rounds + 1):  # the first one warms up
        for number in threads:
            entries = {"audio": Audio(round(16_000 * seconds))}
            batches: Any = Pipeline({"a": Shards(root)}, batch, entries, threads=number).batches()
            for _ in range(3):
                next(batches)
            begun = time.process_time()
            for _ in range(12):
                next(batches)
            took = time.process_time() - begun
            batches.close()
            if turn:
                found[number].append(1e6 * took / 12 / batch)
    return {number: statistics.median(some) for number, some in found.items()}


def shards(folder: pathlib.Path, seconds: float, compress: bool) -> str:
    """Return the folder of prepared shards of clips of so many seconds, made at need."""
    from ssl_audio.data.prepare import prepare
    from ssl_audio.data.synthetic import Synthetic

    root = folder / f"{'c' if compress else 'u'}{seconds:g}"
    prepare(Synthetic(512, seconds=seconds), root, shard_size=64, compress=compress)
    return str(root)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--tree", action="append", help="the source code to measure; may be repeated")
    made.add_argument("--seconds", default="1,10", help="of a clip, with commas")
    made.add_argument(
        "--threads", default="0,8", help="with commas; the first is what others relate to"
    )
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--folder", help="where shards are kept; default: a temporary one")
    made.add_argument("--measure", help=argparse.SUPPRESS)
    return made


def main() -> None:
    """Make the shards, measure, print."""
    args = parser().parse_args()
    threads = list(map(int, args.threads.split(",")))
    if args.measure:
        root, _, seconds = args.measure.rpartition("@")
        print(json.dumps(measured(root, float(seconds), threads, args.batch, args.rounds)))
        return
    trees = args.tree or ["."]
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(args.folder or temporary)
        names = " | ".join(f"{n} threads, µs a clip" for n in threads)
        print(f"| shards | tree | {names} | ratio |\n|---|---|{'---|' * len(threads)}---|")
        for seconds in map(float, args.seconds.split(",")):
            for compress in (False, True):
                root = shards(folder, seconds, compress)
                found: dict[str, list[dict]] = {tree: [] for tree in trees}
                for _ in range(args.repeats):
                    for tree in trees:
                        environment = {
                            **os.environ,
                            "PYTHONPATH": str(pathlib.Path(tree).resolve()),
                        }
                        command = [sys.executable, __file__, "--measure", f"{root}@{seconds}"]
                        command += [f"--threads={args.threads}", f"--batch={args.batch}"]
                        command += [f"--rounds={args.rounds}"]
                        made = subprocess.check_output(command, env=environment, text=True)
                        found[tree].append(json.loads(made.splitlines()[-1]))
                for tree, some in found.items():
                    each = [statistics.median(one[str(n)] for one in some) for n in threads]
                    kind = f"{seconds:g} s, {'compressed' if compress else 'uncompressed'}"
                    numbers = " | ".join(f"{value:.0f}" for value in each)
                    print(f"| {kind} | {tree} | {numbers} | {each[-1] / each[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
