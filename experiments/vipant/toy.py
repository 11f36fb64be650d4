"""Run the toy of VIP-ANT from pictures to sounds and print its table; a run that is there goes on.

python experiments/vipant/toy.py --fsdd RECORDINGS --out runs/vipant-toy --seeds 0,1,2
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
from digits import TEMPLATES, WORDS

import ssl_audio
from ssl_audio.data.pictures import Pictures
from ssl_audio.data.source import Manifest
from ssl_audio.eval.retrieval import ranks
from ssl_audio.inference import mining


def main() -> None:
    """Train the pivot, sounds, the control and the fine-tuned model of each seed, then print."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--fsdd", required=True, type=pathlib.Path)
    made.add_argument("--out", required=True, type=pathlib.Path)
    made.add_argument("--seeds", default="0")
    args = made.parse_args()
    here = pathlib.Path(__file__).parent
    table = []
    for seed in map(int, args.seeds.split(",")):
        out = args.out / f"seed{seed}"
        data = out / "data"
        if not (data / "sounds.csv").exists():
            fsdd = ("--fsdd", str(args.fsdd), "--out", str(data), "--seed", str(seed))
            subprocess.run([sys.executable, str(here / "digits.py"), *fsdd], check=True)
        test = f"test={data / 'sounds_test.csv'}"
        pivot = out / "pivot"
        _train(pivot, seed, "stage=pivot", f"data={data / 'pictures.jsonl'}")
        for name, file in (("sound", "sounds"), ("shuffled", "sounds_shuffled")):
            _train(out / name, seed, f"pivot={pivot}", test, f"data={data / file}.csv")
        mined, right = _mine(pivot, data, random=None)
        _, by_chance = _mine(pivot, data, random=seed)
        _train(out / "text", seed, "stage=text", f"pivot={out / 'sound'}", test, f"data={mined}")
        row = dict(
            seed=seed,
            picture_to_word=_pictures(pivot, data),
            sound_to_word=_accuracy(out / "sound"),
            shuffled_pictures=_accuracy(out / "shuffled"),
            mined_right=right,
            random_right=by_chance,
            fine_tuned=_accuracy(out / "text"),
        )
        table.append(row)
        print(json.dumps(row), flush=True)
    for name in table[0]:
        if name != "seed":
            values = [row[name] for row in table]
            print(f"{name}: {np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")


def _train(workdir: pathlib.Path, seed: int, *arguments: str) -> None:
    config = ",".join(("vipant:laptop", *arguments))
    command = [sys.executable, "-m", "ssl_audio", "train", "--config", config]
    command += ["--workdir", str(workdir), f"--config.seed={seed}", f"--config.data.seed={seed}"]
    subprocess.run(command, check=True)


def _accuracy(workdir: pathlib.Path) -> float:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [row["zero_shot/accuracy"] for row in lines if "zero_shot/accuracy" in row][-1]


def _pictures(pivot: pathlib.Path, data: pathlib.Path) -> float:
    """Return how often a held-out picture is nearest to its digit's name."""
    model = ssl_audio.load(pivot)
    assert isinstance(model, ssl_audio.AudioTextModel)
    source = Pictures(str(data / "pictures_test.csv"))
    vectors = model.embed_image([clip.path for clip in source.clips])
    names = model.embed_labels(WORDS, TEMPLATES)
    labels = [clip.label for clip in source.clips if isinstance(clip.label, int)]
    own = np.array([WORDS.index(source.info.labels[label]) for label in labels])
    return float(np.mean(ranks(vectors @ names.T, own) < 1))


def _mine(
    pivot: pathlib.Path, data: pathlib.Path, random: int | None
) -> tuple[pathlib.Path, float]:
    """Mine three captions for each of a sound's four pictures; return the table, the share that is right."""
    model = ssl_audio.load(pivot)
    captions = (data / "captions.txt").read_text().splitlines()
    source = Manifest(str(data / "sounds.csv"))
    out = data / ("mined.jsonl" if random is None else "random.jsonl")
    found = mining.write(model, source, captions, out, top=3, random=random)
    # A file's name begins with its digit; captions are in order of digits.
    right = [
        np.mean([i // len(TEMPLATES) == int(pathlib.Path(clip.path).name[0]) for i in some])
        for clip, some in zip(source.clips, found, strict=True)
    ]
    return out, float(np.mean(right))


if __name__ == "__main__":
    main()
