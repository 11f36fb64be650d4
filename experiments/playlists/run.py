"""Learn vectors of lists, probe them beside baselines and controls, print tables; runs that are there go on.

python experiments/playlists/run.py --out runs/playlists --seeds 0,1,2
python experiments/playlists/run.py --out runs/playlists-esc10 --esc10 ESC-10 --vectors clips.npz
"""

import argparse
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np

import ssl_audio
from ssl_audio.data.sequences import Chains, Sequences, chain
from ssl_audio.data.sets.esc import Esc
from ssl_audio.eval import sequences as judged
from ssl_audio.inference.sequences import SequenceModel, Sif, mean, write_items

GENRES, CLASSES = 6, 5  # of lists of ESC-10: genres, and the classes that each prefers
STEPS, LISTS = 1500, 600


def main() -> None:
    """Write the lists, train, probe, print."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--out", required=True, type=pathlib.Path)
    made.add_argument("--seeds", default="0")
    made.add_argument("--encoders", default="both,ahead,plain")
    made.add_argument("--steps", default=STEPS, type=int)
    made.add_argument(
        "--lists", default=LISTS, type=int, help="to learn from; as many are judged as by default"
    )
    made.add_argument("--size", default="tiny", choices=["tiny", "base"], help="of the config")
    made.add_argument("--esc10", help="lists of its clips; default: synthetic items")
    made.add_argument("--vectors", help="of its clips: what `ssl-audio embed` wrote, .npz")
    args = made.parse_args()
    tables = [one_seed(args, int(seed)) for seed in args.seeds.split(",")]
    for name in tables[0]:
        for task in tables[0][name]:
            values = [table[name][task] for table in tables]
            print(
                f"{name:12} {task:16} {np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            )


def one_seed(args: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Return name of what makes vectors → task → accuracy."""
    out = args.out / f"seed{seed}"
    out.mkdir(parents=True, exist_ok=True)
    files = {part: out / f"{part}.jsonl" for part in ("train", "test")}
    for part, file in files.items():
        if not file.exists():
            count = args.lists if part == "train" else LISTS
            lists = (
                esc10(args.esc10, part, seed, count) if args.esc10 else synthetic(part, seed, count)
            )
            file.write_text("".join(json.dumps(row) + "\n" for row in lists))
    items = out / "items"
    if not args.esc10:
        train(items, args, seed, "stage=items", "length=20", f"data={files['train']}")
    elif not items.exists():
        found = np.load(args.vectors)
        write_items(items, [pathlib.Path(one).name for one in found["ids"]], found["embedding"])
    models = {}
    for encoder in args.encoders.split(","):
        where = out / encoder
        given = (f"encoder={encoder}", "length=20", f"items={items}", f"data={files['train']}")
        train(where, args, seed, *given)
        models[encoder] = ssl_audio.load(where)
    shown, hidden = (Sequences(str(file)) for file in files.values())
    lists, labels = contents(shown)
    queries, wanted = contents(hidden)
    tasks = judged.tasks(queries, wanted, seed)
    some = next(iter(models.values()))
    table, numbers = some.item_vectors, some.numbers
    sif = Sif(table, numbers(lists))
    embeds = {name: model.embed for name, model in models.items()}
    embeds |= {
        "untrained": untrained(models[max(models)], seed).embed,
        "mean": lambda some: mean([table[one] for one in numbers(some)]),
        "sif": lambda some: sif(numbers(some)),
    }
    found = {"chance": {name: task.chance for name, task in tasks.items()}}
    for name, embed in embeds.items():
        found[name] = judged.scores(embed, tasks, seed)
        found[name] |= judged.recommendation(embed, lists, labels, queries, wanted)
        print(json.dumps({"seed": seed, "vectors": name, **found[name]}), flush=True)
    return found


def contents(source: Sequences) -> tuple[list, list]:
    """Return the lists of a table and their labels."""
    metas = [source.meta(i) for i in range(len(source))]
    return [meta["items"] for meta in metas], [meta.get("label") for meta in metas]


def untrained(model: SequenceModel, seed: int) -> SequenceModel:
    """Return a model with the same item vectors, and an encoder that has learned nothing."""
    params, _ = model.objective.init(jax.random.key(seed), model.blank())
    return type(model)(model.objective, {**params, "items": model.params["items"]}, model.config)


def synthetic(part: str, seed: int, count: int) -> list[dict]:
    """Return the rows of synthetic lists: those of the test are others, of the same genres."""
    source = Chains(size=count, seed=2 * seed + (part == "test"), world=seed)
    metas = [source.meta(i) for i in range(len(source))]
    return [
        dict(id=meta["id"], items=meta["items"], label=f"genre-{meta['label']}") for meta in metas
    ]


def esc10(root: str, part: str, seed: int, lists: int) -> list[dict]:
    """Return lists of clips of ESC-10; those of the test are of fold 5, which no other list has.

    A genre has a circle of five classes: what follows a clip is a clip of the next class.
    """
    world = np.random.default_rng((seed, 0))
    circles = np.stack([world.permutation(10)[:CLASSES] for _ in range(GENRES)])
    folds = (5,) if part == "test" else (1, 2, 3, 4)
    clips: dict[int, list[str]] = {}
    for clip in Esc(root, "esc10", folds).clips:
        assert isinstance(clip.label, int)
        clips.setdefault(clip.label, []).append(pathlib.Path(clip.path).name)
    rows = []
    for number in range(lists):
        rng = np.random.default_rng((seed, 1 + (part == "test"), number))
        genre, count = number % GENRES, int(rng.integers(10, 21))
        classes = chain(circles, genre, count, rng=rng, follow=0.8, stray=0.1, opens=0.9)
        items = [clips[one][rng.integers(len(clips[one]))] for one in classes]
        rows.append(dict(id=f"{part}-{number}", items=items, label=f"genre-{genre}"))
    return rows


def train(workdir: pathlib.Path, args: argparse.Namespace, seed: int, *arguments: str) -> None:
    """Train a config of `playlists`; a run that is done costs nothing."""
    command = [sys.executable, "-m", "ssl_audio", "train", "--workdir", str(workdir)]
    command += ["--config", ",".join((f"playlists:size={args.size}", *arguments))]
    command += [
        f"--config.seed={seed}",
        f"--config.data.seed={seed}",
        f"--config.steps={args.steps}",
    ]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
