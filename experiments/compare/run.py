"""Train every pretraining objective on the same sounds for a few minutes, probe it, print one table.

    python experiments/compare/run.py --esc10 DIR --fsdd DIR --out runs/compare [--steps N] [SYSTEM …]

Each system is the `laptop` version of its config on all clips of both sets, without labels; then a linear
probe of frozen ESC-10 features (5 folds, mean over time and frequency, layer chosen on training folds), of
the trained encoder and of the same one untrained. The same command goes on after a kill.
"""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SYSTEMS = {
    "ssast": "masked_spectrogram",
    "ssamba": "masked_spectrogram",
    "audiomae": "mae",
    "birdmae": "mae",
    "asit": "self_distill",
    "eat": "latent_prediction",
    "bat": "latent_prediction",
    "openbeats": "token_predict",
    "spear": "token_predict",
    "hubert": "token_predict",
    "wav2vec2": "latent_contrast",
    "data2vec": "latent_regress",
    "cola": "crop_contrast",
    "audiomosaic": "masked_contrast",
    "m2d": "masked_modeling_duo",
    "audiojepa": "context_prediction",
    "wavjepa": "context_prediction",
    "dasheng": "mae",
}
COLUMNS = "config | objective | steps | loss, first → last | probe | untrained | steps/s | clips/s | peak GiB"


def main() -> None:
    """Parse the command line, run what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--esc10", required=True, type=pathlib.Path, help="folder of ESC-10")
    parser.add_argument("--fsdd", required=True, type=pathlib.Path, help="folder of FSDD")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--steps", type=int, help="default: what each config says")
    args = parser.parse_args()
    if wrong := [name for name in args.systems if name not in SYSTEMS]:
        parser.error(f"{wrong[0]}: wanted some of {', '.join(SYSTEMS)}")
    rows = [row(name, args) for name in args.systems or SYSTEMS]
    table = [COLUMNS, "|".join(["---"] * len(rows[0])), *(" | ".join(r) for r in rows)]
    text = "\n".join(f"| {line} |" for line in table)
    (args.out / "table.md").write_text(text + "\n")
    print(text)


def row(name: str, args: argparse.Namespace) -> list[str]:
    """Return a system's cells."""
    work = args.out.resolve() / name
    peak = train(name, work, args)
    probes = work / "evals" / "compare.jsonl"
    if not probes.exists():
        run(
            f"evaluate --checkpoint {work} --set esc10 --root {args.esc10.resolve()} --layer best"
            f" --features encoder,random --classifier linear --output {probes}"
        )
    probe = {r["features"]: r["accuracy"] for r in lines(probes) if r["fold"] == "mean"}
    metrics = [line for line in lines(work / "metrics.jsonl") if "loss" in line]
    clips = statistics.median(line["clips_per_second"] for line in metrics)
    batch = json.loads((work / "config.json").read_text())["data"]["batch_size"]
    return [
        f"`{name}.py`",
        SYSTEMS[name],
        str(metrics[-1]["step"]),
        f"{metrics[0]['loss']:.3f} → {metrics[-1]['loss']:.3f}",
        f"{probe['encoder']:.3f}",
        f"{probe['random']:.3f}",
        f"{clips / batch:.2f}",
        f"{clips:.1f}",
        f"{peak:.1f}",
    ]


def train(name: str, work: pathlib.Path, args: argparse.Namespace) -> float:
    """Train a system unless it is done; return the peak of its memory in GiB."""
    done = work / "peak_gib.json"
    if done.exists():
        return json.loads(done.read_text())
    data = f"{args.esc10.resolve()}/audio+{args.fsdd.resolve()}/recordings"
    command = f"train --config {ROOT}/configs/{name}.py:laptop,data={data} --workdir {work}"
    peak = run(command + (f" --config.steps={args.steps}" if args.steps else ""))
    done.write_text(json.dumps(peak))
    return peak


def run(command: str) -> float:
    """Run a verb of ssl_audio; return the peak of its memory in GiB. SystemExit if it fails."""
    print(f"$ ssl-audio {command}", flush=True)
    arguments = [sys.executable, "-m", "ssl_audio", *shlex.split(command)]
    process = subprocess.Popen(arguments, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(os.waitstatus_to_exitcode(status))
    return usage.ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def lines(path: pathlib.Path) -> list[dict]:
    """Return the records of a .jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
