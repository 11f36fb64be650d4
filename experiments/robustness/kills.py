"""Kill a small run with SIGKILL again and again; compare every loss with those of a run left alone.

python experiments/robustness/kills.py --workdir DIR [--kills 200] [--config finetune:runlocal]
Every second kill waits for a save to begin; the others come at any moment from the start on. Every step
is saved. Each run is a process of its own, forked from this one, which has imported what it needs (half
the time of a start). Prints counts as JSON; exits with 1 when a loss differs in one bit or a start fails.
"""

import argparse
import importlib
import json
import os
import pathlib
import random
import signal
import sys
import time

SPEED = ("clips_per_second", "input_wait", "flops_utilisation", "elapsed")  # differ from run to run
QUIET = [
    "--config.checkpoint.every=1",
    "--config.record.every=1",
    "--config.record.logger=none",
    "--config.record.progress=False",
]
IMPORTED = """grain orbax.checkpoint optax sklearn.metrics matplotlib.figure ssl_audio.train.loop
ssl_audio.data.pipeline ssl_audio.data.synthetic ssl_audio.objectives.tagging ssl_audio.backbones.stack
ssl_audio.layers.attention ssl_audio.eval.classify""".split()


def parse():
    """Return the arguments."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--workdir", required=True, type=pathlib.Path)
    made.add_argument("--kills", type=int, default=200)
    made.add_argument("--steps", type=int, default=200, help="of each run; after its end another")
    made.add_argument("--config", default="finetune:runlocal")
    made.add_argument("--seed", type=int, default=0, help="of the moments")
    made.add_argument("options", nargs="*", help="more overrides, after --")
    return made.parse_args()


def records(workdir):
    """Return the whole lines of metrics.jsonl, by step and names, without what a clock decides."""
    path = workdir / "metrics.jsonl"
    found = {}
    for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
        if line.endswith("\n"):
            record = json.loads(line)
            kept = {k: v for k, v in record.items() if k not in SPEED and "goodput/" not in k}
            found[record["step"], min(kept.keys() - {"step"})] = kept
    return found


class Process:
    """A run of the training command in a process of its own."""

    def __init__(self, arguments, log):
        self.status = None
        self.pid = os.fork()
        if self.pid:
            return
        from ssl_audio import startup
        from ssl_audio.train import command

        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = 1
        try:
            startup.logs()
            startup.run(lambda: command.main(arguments))
            status = 0
        except SystemExit as end:
            print(end)
        finally:
            sys.stdout.flush()
            os._exit(status)

    def poll(self):
        """Return the exit status, or None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status

    def kill(self):
        """Send SIGKILL and wait for the end."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def end(self):
        """Wait; return the exit status."""
        while self.poll() is None:
            time.sleep(0.01)
        return self.status


def saving(workdir):
    """Tell whether a checkpoint is being written."""
    folder = workdir / "checkpoints"
    return folder.exists() and any("tmp" in path.name for path in folder.iterdir())


def main():
    """Run, kill, compare and print."""
    args = parse()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from ssl_audio import startup

    startup.use_compilation_cache()
    for name in IMPORTED:  # no device is touched: that must come after the fork
        importlib.import_module(name)
    chance = random.Random(args.seed)

    log = args.workdir / "log"
    args.workdir.mkdir(parents=True, exist_ok=True)

    def run(workdir):
        fixed = ["--config", args.config, "--workdir", str(workdir), f"--config.steps={args.steps}"]
        return Process([*fixed, *QUIET, *args.options], log)

    def finish(workdir):
        process = run(workdir)
        if process.end():
            sys.exit(log.read_text()[-2000:])
        return records(workdir)

    whole = args.workdir / "whole"
    want = finish(whole)
    begun = time.monotonic()
    finish(whole)
    start = time.monotonic() - begun  # of a run that has nothing left to do, s

    count = dict(kills=0, at_saves=0, starts=0, runs=0, differences=0, compared=0, failed=0)
    workdir = args.workdir / "killed0"
    while count["kills"] < args.kills:
        aimed = count["kills"] % 2 == 1
        process = run(workdir)
        count["starts"] += 1
        deadline = time.monotonic() + (1000 if aimed else chance.uniform(0, 2 * start))
        left, before = chance.randint(1, 8), False  # the save that is waited for
        while process.poll() is None and time.monotonic() < deadline:
            if aimed:
                now = saving(workdir)
                left, before = left - (now and not before), now
                if not left:
                    break
            time.sleep(0.001 if aimed else 0.01)
        if aimed:
            time.sleep(chance.uniform(0, 0.1))
        status = process.poll()
        if status is None:
            hit = saving(workdir)
            process.kill()
            count["kills"] += 1
            count["at_saves"] += hit
        elif status != 0:
            count["failed"] += 1
            print(log.read_text()[-2000:], file=sys.stderr)
            break
        found = records(workdir)
        count["compared"] += len(found)
        count["differences"] += sum(want.get(key) != record for key, record in found.items())
        if status == 0:
            count["differences"] += found.keys() != want.keys()
            count["runs"] += 1
            workdir = args.workdir / f"killed{count['runs']}"
        if count["starts"] % 10 == 0:
            print(json.dumps(count), file=sys.stderr, flush=True)
    if not count["failed"]:
        found = finish(workdir)
        count["compared"] += len(found)
        count["differences"] += found != want
        count["runs"] += 1
    print(json.dumps(count))
    sys.exit(1 if count["differences"] or count["failed"] else 0)


if __name__ == "__main__":
    main()
