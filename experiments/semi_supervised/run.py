"""Methods of semi-supervised learning on spoken digits, 10 labels per class, one run after another.

python experiments/semi_supervised/run.py --root FSDD --workdir runs/few_labels [--pretrained RUN]
Start it again and it goes on with the first run that is not finished. Runs that the output's results.json
has are finished, wherever they were trained.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import jax.numpy as jnp

from ssl_audio import config
from ssl_audio.eval import features
from ssl_audio.frontend.mel import Mel
from ssl_audio.storage import atomic

STEPS, LABELS, SEEDS, RATE = 1500, 10, 3, 8000
# Name → arguments of the config. The first four are run with every seed, first; the others with the first.
BASE, LAST = "supervised, weak", "ReMixMatch"
MAIN = {
    BASE: "method=supervised",
    "MixMatch": "method=mix_match",
    "FixMatch": "method=fix_match",
    LAST: "method=re_mix_match",
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
    main = [(name, seed) for seed in range(SEEDS) for name in MAIN]
    main.sort(key=lambda run: run[0] == LAST)  # the slowest after all others
    runs = [(name, "WRN-28-1", seed, MAIN[name]) for name, seed in main]
    if args.pretrained:
        own = f",pretrained={args.pretrained}"
        more = [(name, "pretrained", seed, MAIN[name] + own) for name, seed in main]
        more.insert(1, (BASE, "untrained", 0, f"{MAIN[BASE]}{own},scratch"))
        first = len(main) - SEEDS + 1  # the slowest is run once before the pretrained encoder is
        runs = [*runs[:first], *more[:4], *runs[first:]]
        return runs + [(n, "WRN-28-1", 0, options) for n, options in MORE.items()] + more[4:]
    return runs + [(name, "WRN-28-1", 0, options) for name, options in MORE.items()]


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
    named = f"semi_supervised:task=spoken_digit,root={args.root},labels={LABELS},steps={STEPS},seed={seed}"
    command = [sys.executable, "-m", "ssl_audio", "train", "--config", f"{named},{options}"]
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
    seconds, score = used.ru_utime + used.ru_stime, accuracy(run)
    if whole and score is not None:  # one that is asked to stop ends with status 0 too
        noted = {"processor_seconds": seconds, "seconds": time.time() - start}
        atomic.write(run / "cost.json", json.dumps(noted))
    print(
        f"{run.name}: status {status}, {seconds:.0f} s of processor, accuracy {score}",
        flush=True,
    )


def results(args):
    """Return what the finished runs have found: (name, encoder, seed) → their numbers."""
    file = args.output / "results.json"
    runs = json.loads(file.read_text())["runs"] if file.exists() else []
    found = {(run["name"], run["encoder"], run["seed"]): run for run in runs}
    for name, encoder, seed, _ in plan(args):
        run = folder(args.workdir, name, encoder, seed)
        score = accuracy(run)
        if score is not None:
            cost = run / "cost.json"
            noted = json.loads(cost.read_text()) if cost.exists() else {}
            label = dict(name=name, encoder=encoder, seed=seed)
            found[name, encoder, seed] = label | dict(accuracy=score) | noted
    return found


def logistic(args, seed):
    """Return the accuracy of logistic regression on log-mel statistics of the same labelled clips.

    Of the clip itself, as `ssl-audio evaluate` takes them, and of the second of sound and padding that the
    networks see, by their frontend.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    digits = dict(kind="sets.spoken_digit", root=args.root, rate=RATE)
    few = dict(kind="few_labels", part="labelled", per_class=LABELS, seed=seed)
    mel = Mel(rate=RATE, bins=64, window=512, hop=256, low=0.0, high=0.0, scale="htk", area=False)
    found: dict[str, list[Any]] = {"clip": [], "second": []}
    for options in few | dict(source=digits | dict(split="train")), digits | dict(split="test"):
        source: Any = config.build(options, "data")
        clips = [source[i] for i in range(len(source))]
        label = np.array([clip["label"] for clip in clips])
        of_clip = [x for _, x in features.log_mel(RATE, 64)(clip["audio"] for clip in clips)]
        found["clip"].append((np.concatenate(of_clip), label))
        whole = [
            np.pad(clip["audio"][:RATE], (0, max(0, RATE - len(clip["audio"])))) for clip in clips
        ]
        spec = np.asarray(mel(jnp.asarray(np.stack(whole))))
        found["second"].append((np.concatenate([spec.mean(1), spec.std(1)], 1), label))
    scores = {}
    for name, (train, test) in found.items():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        scores[name] = float(model.fit(*train).score(*test))
    return scores


def table(found):
    """Return Markdown: accuracy, its spread over seeds, and processor time relative to supervised."""
    rows: dict[tuple[str, str], list[Any]] = {}
    for run in found:
        rows.setdefault((run["encoder"], run["name"]), []).append(run)
    lines = [
        "| encoder | method | accuracy | seeds | over supervised | cost |",
        "|---|---|---|---|---|---|",
    ]
    for (encoder, name), runs in rows.items():
        scores = [run["accuracy"] for run in runs]
        spread = f" ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else ""
        base = {run["seed"]: run for run in rows.get((encoder, BASE), [])}
        gains = [r["accuracy"] - base[r["seed"]]["accuracy"] for r in runs if r["seed"] in base]
        gain = f"{statistics.mean(gains):+.3f}" if gains and name != BASE else ""
        times = [
            statistics.median(
                run["processor_seconds"] for run in some if "processor_seconds" in run
            )
            for some in (runs, rows.get((encoder, BASE), []))
            if any("processor_seconds" in run for run in some)
        ]
        cost = f"{times[0] / times[1]:.2f}" if len(times) == 2 else ""
        mean = f"{statistics.mean(scores):.3f}{spread}"
        lines.append(f"| {encoder} | {name} | {mean} | {len(scores)} | {gain} | {cost} |")
    return "\n".join(lines)


def figure(found, path):
    """Draw the accuracy of each method, a point per seed and a line at the mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows: dict[str, list[float]] = {}
    for run in found:
        rows.setdefault(f"{run['name']} ({run['encoder']})", []).append(run["accuracy"])
    order = sorted(rows, key=lambda name: statistics.mean(rows[name]))
    drawn, ax = pyplot.subplots(figsize=(8, 0.6 + 0.3 * len(order)))
    for place, name in enumerate(order):
        scores = rows[name]
        colour = "C1" if "WRN" not in name else "0.4" if "supervised" in name else "C0"
        ax.plot(scores, [place] * len(scores), "o", color=colour, ms=5, alpha=0.7)
        ax.plot([statistics.mean(scores)] * 2, [place - 0.3, place + 0.3], color=colour, lw=2)
    ax.locator_params(axis="x", nbins=7)
    ax.set(yticks=range(len(order)), yticklabels=order, xlabel="accuracy, takes 0 to 4 of FSDD")
    ax.grid(axis="x", color="0.9")
    drawn.tight_layout()
    with atomic.file(path) as file:
        drawn.savefig(file, dpi=110)


def report(args):
    """Write results.json, table.md and results.png of the runs that are finished."""
    runs = list(results(args).values())
    if not runs:
        return
    found = list(runs)
    known = args.output / "results.json"
    baselines = json.loads(known.read_text())["logistic"] if known.exists() else []
    baselines = baselines or [logistic(args, seed) for seed in range(SEEDS)]
    args.output.mkdir(parents=True, exist_ok=True)
    for name in ("clip", "second"):
        label = dict(name="logistic regression", encoder=f"log-mel statistics of the {name}")
        found += [label | dict(seed=n, accuracy=score[name]) for n, score in enumerate(baselines)]
    atomic.write(known, json.dumps(dict(logistic=baselines, runs=runs), indent=1))
    atomic.write(args.output / "table.md", table(found) + "\n")
    figure(found, args.output / "results.png")


def main():
    """Train all runs that are not finished, and write what is known after each."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--root", required=True, help="FSDD")
    made.add_argument("--workdir", required=True, type=pathlib.Path)
    made.add_argument("--pretrained", help="run of a pretrained encoder")
    made.add_argument(
        "--output", type=pathlib.Path, help="of table and picture; default: the workdir"
    )
    made.add_argument("--report", action="store_true", help="train nothing, write what is there")
    made.add_argument("--only", default="", help="runs whose folders' names begin so")
    args = made.parse_args()
    args.output = args.output or args.workdir
    if args.report:
        report(args)
        return
    for name, encoder, seed, options in plan(args):
        run = folder(args.workdir, name, encoder, seed)
        if (name, encoder, seed) not in results(args) and run.name.startswith(args.only):
            train(args, run, seed, options)
            report(args)


if __name__ == "__main__":
    main()
