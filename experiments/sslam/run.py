"""Does going on with mixtures help? EAT for a while, then two ways on; probes of clips and of pairs.

    python experiments/sslam/run.py --esc10 DIR --fsdd DIR --out runs/sslam [--steps 200] [--seeds 0 1]

For each seed: EAT's laptop run; from it SSLAM's, and EAT's again with the same learning rate and as many
steps; then of both a linear probe of single ESC-10 clips (5 folds), and mean average precision of telling
both classes of sums of two clips at equal power, both of one fold. The same command goes on after a kill.
"""

import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
RATE, PARTNERS = 16_000, 2


def main() -> None:
    """Parse the command line, run what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--esc10", required=True, type=pathlib.Path, help="folder of ESC-10")
    parser.add_argument("--fsdd", required=True, type=pathlib.Path, help="folder of FSDD")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=200, help="of the second stage")
    parser.add_argument("--first", type=int, default=400, help="steps of EAT before")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    print("| seed | encoder | ESC-10, single clips | pairs, mAP |\n|---|---|---|---|", flush=True)
    for seed in args.seeds:
        for name in ("eat", "eat_continued", "sslam"):
            work = args.out.resolve() / f"{name}_{seed}"
            train(name, work, seed, args)
            print(
                f"| {seed} | {name} | {single(work, args):.3f} | {pairs(work, args):.3f} |",
                flush=True,
            )


def train(name: str, work: pathlib.Path, seed: int, args: argparse.Namespace) -> None:
    """Train a system unless it is done."""
    if (work / "done").exists():
        return
    data = f"{args.esc10.resolve()}/audio+{args.fsdd.resolve()}/recordings"
    config, first = ("sslam" if name == "sslam" else "eat"), args.out.resolve() / f"eat_{seed}"
    begun = "" if name == "eat" else f",pretrained={first}"
    more = f"--config.steps={args.first}"
    if name != "eat":  # both ways on alike
        more = f"--config.steps={args.steps} --config.optim.lr=3e-4"
    run(
        f"train --config {config}:laptop,data={data}{begun} --workdir {work} {more}"
        f" --config.seed={seed} --config.data.seed={seed}"
    )
    (work / "done").write_text("")


def single(work: pathlib.Path, args: argparse.Namespace) -> float:
    """Return the accuracy of a linear probe of single clips, mean of the folds."""
    file = work / "evals" / "single.jsonl"
    if not file.exists():
        run(
            f"evaluate --checkpoint {work} --set esc10 --root {args.esc10.resolve()} --layer best"
            f" --features encoder --classifier linear --output {file}"
        )
    rows = map(json.loads, file.read_text().splitlines())
    return next(row["accuracy"] for row in rows if row["fold"] == "mean")


def pairs(work: pathlib.Path, args: argparse.Namespace) -> float:
    """Return the mean average precision of both classes of a pair, mean of the folds."""
    file = work / "evals" / "pairs.json"
    if not file.exists():
        file.write_text(json.dumps(by_fold(work, args)))
    return statistics.mean(json.loads(file.read_text()))


def by_fold(work: pathlib.Path, args: argparse.Namespace) -> list[float]:
    """Return the mean average precision of each fold, after training on the others."""
    import ssl_audio
    from ssl_audio.data.sets.esc import Esc
    from ssl_audio.eval.metrics import mean_average_precision
    from ssl_audio.eval.probe import logistic_path

    clips: Any = Esc(str(args.esc10), "esc10", rate=RATE)
    examples = [clips[i] for i in range(len(clips))]
    label = np.array([example["label"] for example in examples])
    fold = np.array([example["fold"] for example in examples])
    sounds, both, where = [], [], []
    rng = np.random.default_rng(0)
    for i, example in enumerate(examples):
        others = np.flatnonzero((fold == fold[i]) & (label != label[i]))
        for j in rng.choice(others, PARTNERS, replace=False):
            sounds.append(mixed(example["audio"], examples[j]["audio"]))
            both.append((label[i], label[j]))
            where.append(fold[i])
    encoder = ssl_audio.load(work)
    features = np.concatenate(
        [encoder.embed(np.stack(sounds[i : i + 16]), RATE) for i in range(0, len(sounds), 16)]
    )
    hot = np.zeros((len(sounds), label.max() + 1), np.float32)
    hot[np.arange(len(sounds))[:, None], np.array(both)] = 1
    where, found = np.array(where), []
    for held in np.unique(where):
        seen = where != held
        centre, gain = features[seen].mean(0), features[seen].std(0) + 1e-6
        x = ((features - centre) / gain).astype(np.float32)
        ((w, b),) = logistic_path(x[seen], hot[seen], [0.1])
        found.append(float(mean_average_precision(x[~seen] @ w + b, hot[~seen])))
    return found


def mixed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return 5 s of two clips at equal power, each repeated to that length, at the mean of their levels."""
    both = [np.resize(x, 5 * RATE) for x in (one, other)]
    power = [float(np.sqrt(np.mean(x**2))) + 1e-6 for x in both]
    total = float(np.sqrt(power[0] * power[1])) * (both[0] / power[0] + both[1] / power[1])
    return (total / max(1.0, float(np.abs(total).max()))).astype(np.float32)


def run(command: str) -> None:
    """Run a verb of ssl_audio. SystemExit if it fails."""
    print(f"$ ssl-audio {command}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", "ssl_audio", *shlex.split(command)], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
