"""Methods of semi-supervised learning on spoken digits, 10 labels per class, one run after another.

python experiments/semi_supervised/run.py --root FSDD --workdir runs/few_labels [--pretrained RUN]
Start it again and it goes on with the first run that is not finished.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

from ssl_audio.storage import atomic

STEPS, LABELS, SEEDS = 1500, 10, 3
# Name → arguments of the config. The first four are run with every seed, first; the others with the first.
MAIN = {
    "supervised, weak": "method=supervised",
    "MixMatch": "method=mix_match",
    "FixMatch": "method=fix_match",
    "ReMixMatch": "method=re_mix_match",
}
MORE = {
    "Mean Teacher": "method=mean_teacher",
    "UDA": "method=uda",
    "Deep Co-Training": "method=deep_co_training",
    "supervised, no view": "method=supervised,view=none",
    "supervised, strong": "method=supervised,view=strong",
    "supervised, mixup": "method=supervised,view=none,mixup=0.4",
    "FixMatch, mixup": "method=fix_match,mixup=0.75",
    "MixMatch, no mixup": "method=mix_match,mixup=0",
    "ReMixMatch, no mixup": "method=re_mix_match,mixup=0",
    "Mean Teacher, mixup": "method=mean_teacher,mixup=0.75",
    "UDA, mixup": "method=uda,mixup=0.75",
    "Deep Co-Training, mixup": "method=deep_co_training,mixup=1.0",
}


def plan(args):
    """Return (name, encoder, seed, config arguments) of all runs, in their order."""
    wrn = [
        (name, "WRN-28-1", seed, options) for seed in range(SEEDS) for name, options in MAIN.items()
    ]
    if not args.pretrained:
        return wrn + [(name, "WRN-28-1", 0, options) for name, options in MORE.items()]
    own = f",pretrained={args.pretrained}"
    first = [(name, "pretrained", 0, options + own) for name, options in MAIN.items()]
    first.append(("supervised, weak", "untrained", 0, MAIN["supervised, weak"] + own + ",scratch"))
    rest = [
        (name, "pretrained", seed, options + own)
        for seed in range(1, SEEDS)
        for name, options in MAIN.items()
    ]
    return wrn + first + [(n, "WRN-28-1", 0, options) for n, options in MORE.items()] + rest


def folder(workdir, name, encoder, seed):
    """Return the workdir of a run."""
    words = "".join(c if c.isalnum() else " " for c in f"{encoder} {name} {seed}".lower()).split()
    return workdir / "-".join(words)


def accuracy(run):
    """Return a run's accuracy at its last step; None: it is not finished."""
    file = run / "metrics.jsonl"
    for line in reversed(file.read_text().splitlines() if file.exists() else []):
        found = json.loads(line) if line.endswith("}") else {}
        if "test/accuracy" in found:
            return found["test/accuracy"] if found["step"] == STEPS else None
    return None


def train(args, run, seed, options):
    """Train one run to its end; note the processor time where it was not interrupted."""
    config = f"semi_supervised:task=spoken_digit,root={args.root},labels={LABELS},steps={STEPS},seed={seed}"
    command = [sys.executable, "-m", "ssl_audio", "train", "--config", f"{config},{options}"]
    command += [
        "--workdir",
        str(run),
        "--config.record.logger=none",
        "--config.record.progress=False",
    ]
    whole, start = not (run / "checkpoints").exists(), time.time()
    run.mkdir(parents=True, exist_ok=True)
    with (run / "log.txt").open("a") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, used = os.wait4(child.pid, 0)
    seconds = used.ru_utime + used.ru_stime
    if whole and not status:
        noted = {"processor_seconds": seconds, "seconds": time.time() - start}
        atomic.write(run / "cost.json", json.dumps(noted))
    print(
        f"{run.name}: status {status}, {seconds:.0f} s of processor, accuracy {accuracy(run)}",
        flush=True,
    )


def results(args):
    """Return what the finished runs have found."""
    found = []
    for name, encoder, seed, _ in plan(args):
        run = folder(args.workdir, name, encoder, seed)
        score = accuracy(run)
        if score is not None:
            cost = run / "cost.json"
            noted = json.loads(cost.read_text()) if cost.exists() else {}
            found.append(dict(name=name, encoder=encoder, seed=seed, accuracy=score) | noted)
    return found


def main():
    """Train all runs that are not finished, and write what is known after each."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--root", required=True, help="FSDD")
    made.add_argument("--workdir", required=True, type=pathlib.Path)
    made.add_argument("--pretrained", help="run of a pretrained encoder")
    args = made.parse_args()
    for name, encoder, seed, options in plan(args):
        run = folder(args.workdir, name, encoder, seed)
        if accuracy(run) is None:
            train(args, run, seed, options)
        atomic.write(args.workdir / "results.json", json.dumps(results(args), indent=1))


if __name__ == "__main__":
    main()
