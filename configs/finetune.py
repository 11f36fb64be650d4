"""Fine-tune a pretrained SSAST or SSAMBA with the published recipes (Gong et al. 2022; Shams et al. 2024).

Run:      python -m ssl_audio.train --workdir runs/esc50_fold1 \\
              --config configs/finetune.py:task=esc50,root=DIR,pretrained=runs/ssamba,encoder=ssamba,fold=1
Try:      python -m ssl_audio.train --config configs/finetune.py:runlocal --workdir runs/try
Tasks:    esc50 speech_commands audioset20k audioset2m; speaker and emotion (VoxCeleb1 and IEMOCAP as in
          SUPERB) take root=MANIFEST.csv with columns path, label, fold or split.
Results:  experiments/ssast/README.md, experiments/ssamba/README.md
"""

import pathlib
from typing import Any

from ssl_audio import recipes
from ssl_audio.backbones import sizes
from ssl_audio.checkpoint import Checkpoint
from ssl_audio.config import parse_arg
from ssl_audio.frontend.fbank import STATS
from ssl_audio.optim import Optim
from ssl_audio.record import Record

# Every number of a recipe. `at`: first epoch with a lower rate, epochs between further ones, factor.
TASKS = {
    "esc50": dict(
        classes=50, stats="esc50", seconds=5.0, criterion="softmax", batch=48, epochs=50, lr=1e-4,
        head=1.0, mask=(24, 96), noise=True, mixup=0.0, at=(6, 1, 0.85), warmup=0, balanced=False,
    ),
    "speech_commands": dict(
        classes=35, stats="speech_commands", seconds=1.0, criterion="sigmoid", batch=128, epochs=30,
        lr=2.5e-4, head=1.0, mask=(48, 48), noise=True, mixup=0.6, at=(5, 1, 0.85), warmup=1000,
        balanced=False,
    ),
    "audioset20k": dict(
        classes=527, stats="audioset", seconds=10.0, criterion="sigmoid", batch=12, epochs=25, lr=5e-5,
        head=1.0, mask=(48, 192), noise=False, mixup=0.5, at=(10, 5, 0.5), warmup=0, balanced=False,
    ),
    "audioset2m": dict(
        classes=527, stats="audioset", seconds=10.0, criterion="sigmoid", batch=12, epochs=5, lr=1e-5,
        head=1.0, mask=(48, 192), noise=False, mixup=0.5, at=(10, 5, 0.5), warmup=0, balanced=True,
    ),
    "speaker": dict(
        classes=1251, stats="audioset", seconds=8.0, criterion="softmax", batch=32, steps=40_000, lr=1e-4,
        head=1.0, mask=(0, 0), noise=False, mixup=0.0, at=None, warmup=0, balanced=False, frames=1000,
    ),
    "emotion": dict(
        classes=4, stats="audioset", seconds=6.0, criterion="softmax", batch=32, steps=10_000, lr=1e-4,
        head=1.0, mask=(0, 0), noise=False, mixup=0.0, at=None, warmup=0, balanced=False, frames=600,
    ),
}  # fmt: skip
SSAMBA_AUDIOSET20K = dict(lr=1e-4, head=3.0, batch=24, epochs=50, at=(15, 10, 0.75))


def get_config(arg=""):
    a = parse_arg(
        arg,
        task="esc50",
        encoder="ssast",
        size="base",
        patch="16x16",
        stride="10x10",
        root="",
        pretrained="",
        fold=1,
        runlocal=False,
    )
    if a.task not in TASKS:
        raise ValueError(f"task '{a.task}': wanted one of {', '.join(TASKS)}.")
    task = dict(TASKS[a.task])
    if a.task == "audioset20k" and a.encoder != "ssast":
        task |= SSAMBA_AUDIOSET20K
    patch, stride = (tuple(int(n) for n in text.split("x")) for text in (a.patch, a.stride))
    stats = dict(STATS[task["stats"]]) | {k: task[k] for k in ("frames",) if k in task}
    # The grid of pretraining on 1024 frames: the encoder moves its table to the one it meets here.
    encoder = sizes.encoder(a.encoder, a.size, (128 // patch[0], 1024 // patch[1]))
    superb = a.task in ("speaker", "emotion")
    head = (
        dict(kind="heads:LayerMix", classes=task["classes"])
        if superb
        else dict(kind="heads:Classifier", classes=task["classes"], pool="mean")
    )
    objective = dict(
        kind="tagging",
        frontend=dict(kind="fbank", bins=128, **stats),
        tokenizer=dict(kind="patchify", width=encoder["width"], patch=patch, stride=stride),
        encoder=encoder,
        head=head,
        criterion=task["criterion"],
    )
    if any(task["mask"]):
        freq, time = task["mask"]
        objective["spec_augment"] = dict(kind="augment:SpecAugment", freq=freq, time=time)
    if task["noise"]:
        objective["noise"] = dict(kind="augment:NoiseRoll")
    optim: dict[str, Any] = dict(
        lr=task["lr"],
        b1=0.95,
        b2=0.999,
        weight_decay=5e-7,
        coupled=True,
        decay=".*",
        warmup=task["warmup"],
        warmup_hold=50,
        rates={"^head/": task["head"]},
    )
    if superb:
        optim |= dict(b1=0.9, weight_decay=0.0, clip=1.0)
    if task["at"]:
        first, between, gamma = task["at"]
        at = tuple(f"{n}ep" for n in range(first, task["epochs"], between))
        optim |= dict(schedule="steps", steps_at=at, gamma=gamma)
    data = dict(
        sources={a.task: source(a)},
        batch_size=task["batch"],
        samples=int(16_000 * task["seconds"]),
        crop="random" if superb else "first",
        mixup=task["mixup"],
        balanced=task["balanced"],
        classes=task["classes"],
    )
    config = recipes.run(
        objective=objective,
        data=data,
        optim=Optim(**optim),
        steps=task.get("steps") or f"{task['epochs']}ep",
        accumulate=8 if superb else 1,
        checkpoint=Checkpoint(every="1ep", keep=1),
        record=Record(every=50, figures="20%"),
    )
    if a.pretrained:
        config.warm_start = dict(path=a.pretrained, take="^(tokenizer|encoder)/", leave="")
    return runlocal(config) if a.runlocal else config


def source(a):
    """Return the training part of a task's data set."""
    if a.runlocal:
        return dict(kind="synthetic", size=32, seconds=1.0)
    if not a.root:
        raise ValueError(f"task {a.task}: say where the data is, with root=DIR.")
    folds = tuple(f for f in range(1, 6) if f != a.fold)
    if a.task == "esc50":
        return dict(kind="sets.esc", root=a.root, folds=folds)
    if a.task == "speech_commands":
        return dict(kind="sets.speech_commands", root=a.root, split="train")
    if a.task.startswith("audioset"):
        segments = "balanced_train" if a.task == "audioset20k" else "unbalanced_train"
        return dict(kind="sets.audioset", root=a.root, segments=segments)
    if pathlib.Path(a.root).suffix not in (".csv", ".jsonl"):
        raise ValueError(f"task {a.task}: root is '{a.root}', wanted a manifest, .csv or .jsonl.")
    part = dict(split="train") if a.task == "speaker" else dict(folds=folds)
    return dict(kind="source:Manifest", path=a.root, **part)


def runlocal(config):
    """Shrink to four steps on made-up sounds."""
    config = recipes.runlocal(config)
    config.accumulate = 1
    config.data.classes = config.objective.head.classes = 12
    if "spec_augment" in config.objective:
        config.objective.spec_augment.update(freq=8, time=8)
    return config
