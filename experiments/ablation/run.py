"""Change one thing at a time in a contrastive recipe on few clips, probe each, print one table.

    python experiments/ablation/run.py --esc10 DIR --fsdd DIR --out runs/ablation [--steps N] [NAME …]

The clips are prepared once (OUT/shards), so that no step waits for a decoder. Each run trains `cola:laptop`
without labels with the overrides of VARIANTS; then a linear probe of frozen ESC-10 features, 5 folds, of the
encoder trained and untrained, with two poolings. The same command goes on after a kill.
"""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
POOLS = ("mean", "stats")
SAMPLES = 15_200  # of a crop of 0.95 s
NO_CROP = [
    "views.crop.canvas=(1.0,1.0)",
    "views.crop.frequency=(1.0,1.0)",
    "views.crop.time=(1.0,1.0)",
]
NO_VIEWS = ["views.mixup.most=0.0", *NO_CROP]
HALF = ["frontend.hop=320", "frontend.frames=48"]  # half as many frames of as much sound
LONG = ["frontend.hop=320", f"crop={2 * SAMPLES}"]  # as many frames of twice the sound
ANY = ["places=1"]  # silent crops too
# What rows have that say nothing else: half the channels of the laptop's recipe, the loudest of three places.
USUAL = ["encoder.channels=16", "places=3"]
# name: what is trained on, more of the config's argument, overrides of config.objective, others of config.
# Most change one thing of "loud", which is cheap; "together" is the laptop's recipe.
VARIANTS: dict[str, tuple[str, str, list[str], list[str]]] = {
    "base": ("esc10", "", ANY, []),
    "half_frames": ("esc10", "", HALF + ANY, []),
    "loud": ("esc10", "", HALF, []),
    "long_loud": ("esc10", "", LONG, []),
    "longer": ("esc10", "", [], ["steps=2500"]),
    "same_crop": ("esc10", "", HALF + ANY, [f"data.entries.audio.samples={SAMPLES}"]),
    "no_views": ("esc10", "", HALF + NO_VIEWS, []),
    "no_mixup": ("esc10", "", [*HALF, "views.mixup.most=0.0"], []),
    "no_resize": ("esc10", "", HALF + NO_CROP, []),
    "waves": ("esc10", ",waves", HALF, []),
    "with_digits": ("esc10+fsdd", "", HALF, []),
    "with_synthetic": ("esc10+synthetic", "", HALF, []),
    "temperature_0.5": ("esc10", "", [*HALF, "temperature=0.5"], []),
    "temperature_0.05": ("esc10", "", [*HALF, "temperature=0.05"], []),
    "rate_3e-3": ("esc10", "", HALF, ["optim.lr=3e-3"]),
    "rate_3e-4": ("esc10", "", HALF, ["optim.lr=3e-4"]),
    "batch_32": ("esc10", "", HALF, ["data.batch_size=32"]),
    "channels_32": ("esc10", "", [*HALF, "encoder.channels=32"], []),
    "together": ("esc10+fsdd", "", [*ANY, "encoder.channels=32"], ["steps=1200"]),  # what helped
}
POOLED = [f"{features}, `{pool}`" for features in ("trained", "untrained") for pool in POOLS]
COLUMNS = ["run", "steps", "clips/s", "pairs found", *POOLED]


def main() -> None:
    """Parse the command line, run what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--esc10", required=True, type=pathlib.Path, help="folder of ESC-10")
    parser.add_argument("--fsdd", required=True, type=pathlib.Path, help="folder of FSDD")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    if wrong := [name for name in args.names if name not in VARIANTS]:
        parser.error(f"{wrong[0]}: wanted some of {', '.join(VARIANTS)}")
    shards = {
        "esc10": prepared(args.esc10 / "audio", args.out / "shards" / "esc10"),
        "fsdd": prepared(args.fsdd / "recordings", args.out / "shards" / "fsdd"),
        "synthetic": "synthetic",
    }
    rows = [row(name, shards, args) for name in args.names or VARIANTS]
    table = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    (args.out / "table.md").write_text(text + "\n")
    print(text)


def prepared(folder: pathlib.Path, out: pathlib.Path) -> str:
    """Decode a folder once, unless it is done; return where."""
    if not (out / "index.json").exists():
        run(
            f"prepare --source folder --root {folder.resolve()} --output {out.resolve()} --uncompressed"
        )
    return str(out.resolve())


def row(name: str, shards: dict[str, str], args: argparse.Namespace) -> list[str]:
    """Train and probe a variant unless it is done; return its cells."""
    data, more, objective, other = VARIANTS[name]
    work = (args.out / name).resolve()
    if not (work / "trained").exists():
        places = "+".join(shards[part] for part in data.split("+"))
        changes = [f"objective.{change}" for change in [*USUAL, *objective]]
        changes = [f"steps={args.steps}", *changes, *other]
        run(
            f"train --config {ROOT}/configs/cola.py:laptop{more},data={places} --workdir {work}"
            + "".join(f" --config.{change}" for change in changes)
        )
        (work / "trained").touch()
    # Untrained, runs of one architecture are one encoder: it is probed once.
    same = [change for change in objective if change.startswith(("frontend", "encoder", "crop"))]
    untrained = (
        args.out.resolve() / "untrained" / (re.sub(r"[^\w.]", "_", "_".join(same)) or "laptop")
    )
    untrained.mkdir(parents=True, exist_ok=True)
    found = {}
    for features, folder in (("encoder", work / "evals"), ("random", untrained)):
        for pool in POOLS:
            probes = folder / f"{pool}.jsonl"
            if not probes.exists():
                run(
                    f"evaluate --checkpoint {work} --set esc10 --root {args.esc10.resolve()} --pool {pool}"
                    f" --features {features} --classifier linear --output {probes}"
                )
            (mean,) = [line for line in lines(probes) if line["fold"] == "mean"]
            found[features, pool] = f"{mean['accuracy']:.3f}"
    last = [line for line in lines(work / "metrics.jsonl") if "loss" in line][-1]
    cells = [
        f"`{name}`",
        str(last["step"]),
        f"{last['clips_per_second']:.0f}",
        f"{last['accuracy']:.2f}",
    ]
    cells += [found[features, pool] for features in ("encoder", "random") for pool in POOLS]
    print("| " + " | ".join(cells) + " |", flush=True)
    return cells


def run(command: str) -> None:
    """Run a verb of ssl_audio; SystemExit if it fails."""
    print(f"$ ssl-audio {command}", flush=True)
    done = subprocess.run([sys.executable, "-m", "ssl_audio", *shlex.split(command)], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def lines(path: pathlib.Path) -> list[dict]:
    """Return the records of a .jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
