"""Pictures of digits choose triplets of spoken digits; clusters of the sounds then label few pixels.

python experiments/terrain/digits.py --fsdd RECORDINGS --out runs/terrain --seeds 0,1,2
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import ssl_audio
from ssl_audio.data import cross_modal, drawn_digits
from ssl_audio.data.decode import decode
from ssl_audio.eval.segmentation import matched, mean_iou
from ssl_audio.inference.clip_clusters import agreement

RATE, TEST = 8000, 5  # Hz; takes of each speaker and digit that are held out
SIDE, TILE, CANVASES = 40, 8, 300  # pixels; pictures for the pixels, of which a third is tested
LABELLED = 0.05  # share of the tiles that sound labels
STEPS, PIXEL_STEPS = 900, 2500
# Two sizes see little more than a tile: what lies around one says nothing of it.
CHANNELS, NOISE = (32, 32), 0.4


def main() -> None:
    """Train and judge each seed, then print means."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--fsdd", required=True, type=pathlib.Path)
    made.add_argument("--out", required=True, type=pathlib.Path)
    made.add_argument("--seeds", default="0")
    made.add_argument("--steps", default=STEPS, type=int)
    made.add_argument("--pixel-steps", default=PIXEL_STEPS, type=int)
    args = made.parse_args()
    rows = [one_seed(args, int(seed)) for seed in args.seeds.split(",")]
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name:32} {np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")


def one_seed(args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Return what was measured with a seed, by name."""
    out = args.out / f"seed{seed}"
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images, digits = drawn_digits.load()
    files = sorted(args.fsdd.absolute().glob("*.wav"))
    said = np.array([int(path.stem.split("_")[0]) for path in files])
    held = np.array([int(path.stem.split("_")[2]) < TEST for path in files])
    pictures = np.array([rng.choice(np.flatnonzero(digits == digit)) for digit in said])
    seen = PCA(20, random_state=seed).fit_transform(16 * images.reshape(len(images), -1))[pictures]
    known = np.flatnonzero(~held)
    paths = [str(files[i]) for i in known]
    rows = cross_modal.rows(paths, seen[known], 10, seed)
    shuffled = rng.permutation(known)  # the control: pictures of other sounds
    control = cross_modal.rows(paths, seen[shuffled], 10, seed)
    looks = [int(row["cluster"]) for row in rows]
    found = {f"pictures, {k}": v for k, v in agreement(looks, said[known]).items()}
    for name, table, options in (
        ("triplets", rows, ()),
        ("reconstruction", rows, ("triplet=0.0",)),
        ("shuffled", control, ()),
    ):
        file = out / f"{name}.csv"
        if not file.exists():
            write(file, table)
        train(out / name, seed, args.steps, "terrain:laptop", f"data={file}", *options)
        x = embedded(out / name, files)
        fitted: Any = KMeans(10, n_init=10, random_state=seed).fit(x[known])  # pyright: ignore[reportArgumentType]
        clusters = fitted.predict(x)
        for part, which in (("trained on", ~held), ("held out", held)):
            scores = agreement(clusters[which], said[which])
            found |= {f"{name}, {part}, {k}": scores[k] for k in ("nmi", "accuracy")}
        if name == "triplets":
            names = matched(clusters[known], said[known], 10)
            heard = np.array([names.get(int(c), 0) for c in clusters])
            found |= segmented(args, out, seed, images[pictures], said, heard, held)
    print(json.dumps({"seed": seed, **found}), flush=True)
    return found


def segmented(
    args: argparse.Namespace,
    out: pathlib.Path,
    seed: int,
    pictures: np.ndarray,
    said: np.ndarray,
    heard: np.ndarray,
    held: np.ndarray,
) -> dict[str, float]:
    """Return mIoU on held-out pictures tiled with digits: labels of few pixels by sound, of few, of all.

    A tile is the picture of a clip; its pixels have the cluster of that clip's sound, named by the class that
    it fits best, where the sound was heard.
    """
    rng = np.random.default_rng((seed, 1))
    count = SIDE // TILE
    folder = out / "canvases"
    tests = CANVASES // 3
    labels = {n: np.full((CANVASES, SIDE, SIDE), -1, np.int32) for n in ("weak", "few", "full")}
    pool, canvases = np.flatnonzero(~held), []
    for number in range(CANVASES):
        clips = rng.choice(pool, (count, count))
        canvases.append(pictures[clips].swapaxes(1, 2).reshape(SIDE, SIDE))
        known = rng.random((count, count)) < LABELLED
        known[rng.integers(count), rng.integers(count)] |= not known.any()
        grids = dict(
            weak=np.where(known, heard[clips], -1),
            few=np.where(known, said[clips], -1),
            full=said[clips],
        )
        for name, grid in grids.items():
            labels[name][number] = grid.repeat(TILE, 0).repeat(TILE, 1)
    paths = drawn_digits.write(np.stack(canvases), folder)
    found = {}
    for name in ("weak", "few", "full"):
        arrays = (folder / f"{name}.npy").absolute()
        np.save(arrays, labels[name])
        table = out / f"pixels_{name}.csv"
        shown = range(tests, CANVASES)
        write(table, [dict(path=paths[i], pixels=f"{arrays}#{i}") for i in shown])
        config = f"terrain:stage=pixels,classes=10,side={SIDE},data={table}"
        train(out / f"pixels_{name}", seed, args.pixel_steps, config)
        model = ssl_audio.load(out / f"pixels_{name}")
        said_of = []
        for i in range(tests):
            picture = np.asarray(Image.open(paths[i]).convert("RGB"), np.float32)
            logits = model.predict("segment", image=(picture / 255 - 0.5) / 0.5)
            said_of.append(np.asarray(logits).argmax(-1))
        scores = mean_iou(np.stack(said_of), labels["full"][:tests], 10)
        found |= {f"pixels, {name} labels, {key}": value for key, value in scores.items()}
    return found


def embedded(workdir: pathlib.Path, files: list[pathlib.Path]) -> np.ndarray:
    """Return the clips' vectors [n, 32]."""
    model = ssl_audio.load(workdir)
    return model.embed([decode(str(path), RATE) for path in files], RATE, pool="special")


def write(file: pathlib.Path, rows: list[dict]) -> None:
    """Write a table."""
    with open(file, "w", newline="") as made:
        table = csv.DictWriter(made, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def train(workdir: pathlib.Path, seed: int, steps: int, *arguments: str) -> None:
    """Train a config; a run that is done costs nothing."""
    command = [sys.executable, "-m", "ssl_audio", "train", "--workdir", str(workdir)]
    command += ["--config", ",".join(arguments), f"--config.seed={seed}"]
    command += [f"--config.data.seed={seed}", f"--config.steps={steps}"]
    if "stage=pixels" in arguments[0]:
        command += [f"--config.objective.model.channels={CHANNELS}"]
        command += [f"--config.objective.noise={NOISE}"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
