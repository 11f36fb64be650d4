"""Processor time of a run of one step: all compiled anew, all from JAX's cache, with a saved step, with both.

    python experiments/speed/first_step.py --config ssamba:size=tiny --repeats 3 --json OUT.json

Runs `ssl-audio train` for one step in processes of their own, the ways in turn. A saved step alone still
compiles what makes the first state.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time


def run(arguments: list[str], cache: pathlib.Path) -> tuple[float, float]:
    """Return processor and wall seconds of a verb that must end well."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ssl_audio", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - begun


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--config", default="ssamba:size=tiny")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", default="cold,cache,saved,both", help="default: %(default)s")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        top = pathlib.Path(folder)
        config = ["--config", args.config, "--config.steps=1", "--config.data.batch_size=2"]
        config += ["--config.record.figures=0", "--config.record.logger=none"]
        run(["preview", *config, "--save", str(top / "step")], top / "unused")

        def train(number: str, cache: pathlib.Path, *more: str) -> tuple[float, float]:
            workdir = top / f"run_{number}"
            found = run(["train", *config, "--workdir", str(workdir), *more], cache)
            shutil.rmtree(workdir)
            return found

        train("warm_up", top / "cache")
        saved = ("--compiled", str(top / "step"))
        ways = {
            "cold": lambda i: train(f"cold{i}", top / f"cold{i}"),
            "cache": lambda i: train(f"cache{i}", top / "cache"),
            "saved": lambda i: train(f"saved{i}", top / f"saved{i}", *saved),
            "both": lambda i: train(f"both{i}", top / "cache", *saved),
        }
        names = args.ways.split(",")
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for i in range(args.repeats):
            for name in names:
                found[name].append(ways[name](i))
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    for name, times in found.items():
        cpu, wall = (statistics.median(each) for each in zip(*times, strict=True))
        print(f"{name:6} {cpu:6.1f} s processor, {wall:6.1f} s wall (median of {args.repeats})")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
