"""Spoken captions meet English words by way of pictures (stamps of Tux Paint): features, runs, table.

    python experiments/vipant/stamps.py --stamps DIR --out runs/stamps --seeds 0,1,2 \
        --whisper FOLDER --lite0 FOLDER --minilm FOLDER

The folders are of `ssl-audio convert --from whisper`, `efficientnet`, `minilm`. A config, too: `get_config`.
"""

import argparse
import csv
import dataclasses
import json
import pathlib

import numpy as np

import ssl_audio
from ssl_audio.__main__ import module
from ssl_audio.config import parse_arg
from ssl_audio.data.decode import decode
from ssl_audio.eval.retrieval import ranks
from ssl_audio.presets import runs
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

WIDTHS = dict(sound=768, image=1280, text=384)
EDGES = dict(pivot=("image", "text"), pretrain=("sound", "image"), text=("sound", "text"))
OUT = 256  # width of the common space
FEW = 100  # pairs of sound and text that are added in the end
LANGUAGES = ("es", "fr")


def get_config(arg=""):
    """Return a stage's run: linear towers on features computed before; those of earlier stages stay."""
    a = parse_arg(arg, stage="pretrain", data="", pivot="")
    pair = EDGES[a.stage]
    learning = {"pivot": pair, "pretrain": ("sound",), "text": ("sound",)}[a.stage]
    names = pair if a.stage == "pivot" else tuple(WIDTHS)
    tower = dict(
        kind="towers:Tower",
        tokenizer=dict(kind="vectors"),
        encoder=dict(kind="identity"),
        pool=dict(kind="pools:Mean"),
        projector=dict(kind="projectors:OneLayer", out=OUT),
    )
    config = runs.run(
        objective=dict(
            kind="contrastive",
            towers={name: tower | dict(length=f"{name}_length") for name in names},
            edges=((*pair, 1.0),),
            temperature=0.1,
        ),
        data=dict(
            sources=dict(clips=dict(kind="pictures:Pictures", path=a.data, split="train")),
            batch_size=100 if a.stage == "text" else 128,
            entries={name: dict(kind="features", array=name, width=WIDTHS[name]) for name in names},
        ),
        optim=Optim(
            lr=1e-3,
            weight_decay=0.1,
            warmup="10%",
            schedule="cosine",
            rates={f"^{name}/": 0.0 for name in names if name not in learning},
        ),
        steps="100" if a.stage == "text" else "300",
        checkpoint=Checkpoint(every="100%", keep=1),
        record=Record(every=100, figures="0"),
    )
    if a.pivot:
        there = "sound|image|text" if a.stage == "text" else "image|text"
        config.warm_start = dict(pivot=dict(path=a.pivot, take=f"^({there})/", leave=""))
    return config


def main() -> None:
    """Compute features, train every stage of every seed, print recalls."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("stamps", "out", "whisper", "lite0", "minilm"):
        made.add_argument(f"--{name}", required=True, type=pathlib.Path)
    made.add_argument("--seeds", default="0")
    args = made.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = _tables(args)
    table = []
    for seed in map(int, args.seeds.split(",")):
        out = args.out / f"seed{seed}"
        _train(out / "pivot", seed, "pivot", args.out / "pictures.csv")
        _train(out / "sound", seed, "pretrain", args.out / "spoken.csv", out / "pivot")
        _train(out / "shuffled", seed, "pretrain", args.out / f"shuffled{seed}.csv", out / "pivot")
        _train(out / "few", seed, "text", args.out / f"few{seed}.csv", out / "sound")
        row: dict[str, float] = dict(seed=seed, **_pictures(out / "pivot", args.out))
        for name in ("sound", "shuffled", "few"):
            row |= {f"{name}_{k}": v for k, v in _recalls(out / name, rows, args.out).items()}
        table.append(row)
        print(json.dumps(row), flush=True)
    for name in table[0]:
        if name != "seed":
            values = [row[name] for row in table]
            print(f"{name}: {np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")


def _train(
    workdir: pathlib.Path,
    seed: int,
    stage: str,
    data: pathlib.Path,
    pivot: pathlib.Path | None = None,
) -> None:
    if (workdir / "evals" / "done").exists():
        return
    config = f"{__file__}:stage={stage},data={data.absolute()}"
    config += f",pivot={pivot.absolute()}" if pivot else ""
    command = ["--config", config, "--workdir", str(workdir)]
    module("train").main([*command, f"--config.seed={seed}", f"--config.data.seed={seed}"])
    (workdir / "evals").mkdir(exist_ok=True)
    (workdir / "evals" / "done").touch()


def _tables(args: argparse.Namespace) -> list[dict[str, str]]:
    """Write features and tables that name their rows; return those of the spoken captions."""
    pictures = _read(args.stamps / "meta.csv")
    spoken = [row for row in _read(args.stamps / "spoken.csv") if row["lang"] in LANGUAGES]
    number = {row["id"]: i for i, row in enumerate(pictures)}
    training = np.array([row["split"] == "train" for row in pictures])
    if not (args.out / "sound.npy").exists():
        text = ssl_audio.load(args.minilm)
        assert isinstance(text, ssl_audio.AudioTextModel)
        _save(args.out / "text.npy", text.embed_text([r["caption"] for r in pictures]), training)
        seen = ssl_audio.load(args.lite0)
        assert isinstance(seen, ssl_audio.AudioTextModel)
        shown = [str(args.stamps / row["image"]) for row in pictures]
        _save(args.out / "image.npy", seen.embed_image(shown), training)
        heard = [decode(str(args.stamps / row["file"]), 16_000) for row in spoken]
        said = np.array([row["split"] == "train" for row in spoken])
        _save(args.out / "sound.npy", _short(args.whisper).embed(heard, 16_000, pool="stats"), said)
    _write(
        args.out / "pictures.csv",
        [
            dict(
                path="-", id=r["id"], split=r["split"], image=f"image.npy#{i}", text=f"text.npy#{i}"
            )
            for i, r in enumerate(pictures)
        ],
    )
    for seed in (None, *map(int, args.seeds.split(","))):
        rng = np.random.default_rng(seed)
        shown = [number[row["id"]] for row in spoken]
        if seed is not None:
            shown = [int(i) for i in rng.permutation(shown)]
        rows = [
            dict(
                path="-", id=f"{r['lang']}/{r['id']}", split=r["split"], sound=f"sound.npy#{i}",
                image=f"image.npy#{k}", text=f"text.npy#{k}",
            )
            for i, (r, k) in enumerate(zip(spoken, shown, strict=True))
        ]  # fmt: skip
        _write(args.out / ("spoken.csv" if seed is None else f"shuffled{seed}.csv"), rows)
        if seed is not None:
            own = _read(args.out / "spoken.csv")
            train = [i for i, row in enumerate(own) if row["split"] == "train"]
            few = rng.choice(train, FEW, replace=False)
            _write(args.out / f"few{seed}.csv", [own[i] for i in sorted(few)])
    return spoken


def _short(folder: pathlib.Path) -> ssl_audio.Encoder:
    """Return Whisper hearing 3 s at a time, as long as all but a few captions, not 30 s."""
    model = ssl_audio.load(folder)
    assert isinstance(model, ssl_audio.Encoder)
    config = json.loads(json.dumps(model.config))
    config["data"]["entries"]["audio"]["samples"] = 48_000
    frontend = dataclasses.replace(model.objective.frontend, frames=300)
    objective = dataclasses.replace(model.objective, frontend=frontend)
    return dataclasses.replace(model, objective=objective, config=config)


def _save(path: pathlib.Path, features: np.ndarray, training: np.ndarray) -> None:
    """Write features, standardised by those of the training part."""
    mean, deviation = features[training].mean(0), features[training].std(0)
    np.save(path, ((features - mean) / (deviation + 1e-5)).astype(np.float32))


def _recalls(
    workdir: pathlib.Path, rows: list[dict[str, str]], data: pathlib.Path
) -> dict[str, float]:
    """Return spoken caption → English caption on the test part, each language by itself."""
    found, table = {}, _read(data / "spoken.csv")
    for language in LANGUAGES:
        some = [i for i, r in enumerate(rows) if r["lang"] == language and r["split"] == "test"]
        sound = _vectors(workdir, "sound", np.load(data / "sound.npy")[some])
        places = [int(table[i]["text"].partition("#")[2]) for i in some]
        text = _vectors(workdir, "text", np.load(data / "text.npy")[places])
        found |= _at(f"{language}", sound @ text.T)
    return found


def _pictures(workdir: pathlib.Path, data: pathlib.Path) -> dict[str, float]:
    some = [i for i, row in enumerate(_read(data / "pictures.csv")) if row["split"] == "test"]
    image = _vectors(workdir, "image", np.load(data / "image.npy")[some])
    text = _vectors(workdir, "text", np.load(data / "text.npy")[some])
    return _at("picture", image @ text.T)


def _vectors(workdir: pathlib.Path, name: str, features: np.ndarray) -> np.ndarray:
    model = ssl_audio.load(workdir)
    embed = model.objective.predictors()[f"embed_{name}"]
    return np.asarray(embed(model.params, {}, {name: features}))


def _at(name: str, scores: np.ndarray) -> dict[str, float]:
    own = ranks(scores, np.arange(len(scores)))
    return {f"{name}_R@{k}": float(np.mean(own < k)) for k in (1, 5, 10)}


def _read(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _write(path: pathlib.Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
