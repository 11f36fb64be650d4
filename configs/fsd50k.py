"""Baselines of FSD50K (Fonseca et al. 2022, arXiv:2010.00475): labels of clips, learned from patches of 1 s.

Run:      ssl-audio train --workdir runs/vgg --config fsd50k:model=vgg,root=DIR
Models:   model=vgg|crnn|resnet18|densenet121
ESC-10:   ssl-audio folds --folds 1-5 --workdir runs/esc10 --config fsd50k:task=esc10,root=DIR
Laptop:   add `laptop`: 64 bands, a third of the frames, 600 steps
Try:      ssl-audio train --config fsd50k:runlocal --workdir runs/try
Results:  experiments/fsd50k/README.md
"""

from typing import Any

from ssl_audio.backbones.cnn import VGG_LIKE
from ssl_audio.backbones.residual import RESNET18
from ssl_audio.config import parse_arg
from ssl_audio.data import entries
from ssl_audio.presets import runs
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

RATE = 22_050
BATCH_NORM = dict(kind="norms:BatchNorm")
# Encoder, and what makes one vector of its tokens.
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "vgg": (dict(kind="cnn", **VGG_LIKE), "MeanAndMax"),
    "crnn": (
        dict(kind="crnn", channels=(128, 128, 128), pools=(5, 4, 2), kernel=5, hidden=64, norm=BATCH_NORM),
        "Mean",
    ),
    "resnet18": (dict(kind="residual", **RESNET18, norm=BATCH_NORM), "Mean"),
    "densenet121": (
        dict(kind="densenet", depths=(6, 12, 24, 16), growth=32, stem=64, norm=BATCH_NORM),
        "Mean",
    ),
}  # fmt: skip
# `train`, `test`, `validation`: options of the set; a number of `folds` gives each in turn to the test.
TASKS: dict[str, dict[str, Any]] = {
    "fsd50k": dict(
        source=dict(kind="sets.fsd50k"), train=dict(split="train"), test=dict(split="eval"),
        validation=dict(split="val"), classes=200, criterion="sigmoid",
    ),
    "esc10": dict(source=dict(kind="sets.esc", subset="esc10"), folds=5, classes=10, criterion="softmax"),
}  # fmt: skip


def get_config(arg=""):
    a = parse_arg(arg, model="vgg", task="fsd50k", root="", fold=0, laptop=False, runlocal=False)
    for name, known in (("model", MODELS), ("task", TASKS)):
        if getattr(a, name) not in known:
            raise ValueError(f"{name} '{getattr(a, name)}': wanted one of {', '.join(known)}.")
    task = TASKS[a.task]
    if "folds" not in task:
        a.refuse("fold", f"task {a.task} has none")
    if a.runlocal:
        a.refuse("root laptop", "runlocal is a small model on synthetic sounds")
    encoder, pool = MODELS[a.model]
    classes, batch = task["classes"], 32 if a.laptop else 64
    # Windows of 30 ms every 10 ms; windows and hop of 67 and 33 ms.
    mel = dict(bins=64, window=1470, hop=735) if a.laptop else dict(bins=96, window=662, hop=220)
    data = dict(
        sources={a.task: dict(kind="patches", source=source(a, "train"), seconds=1.0, hop=0.5)},
        batch_size=batch,
        rate=RATE,
        entries=dict(
            audio=entries.audio(RATE, fill="repeat"),
            label=dict(kind="entries:Labels", classes=classes),
        ),
    )
    config = runs.run(
        objective=dict(
            kind="tagging",
            frontend=dict(kind="mel", rate=RATE, low=0.0, high=RATE / 2, **mel),
            # Each band is normalised by the batch's statistics.
            tokenizer=dict(kind="bins", norm=BATCH_NORM),
            encoder=encoder,
            head=dict(kind="classify:Pooled", classes=classes, pool=dict(kind=f"pools:{pool}")),
            criterion=task["criterion"],
        ),
        data=data,
        optim=Optim(lr=2e-3, warmup="5%", schedule="cosine") if a.laptop else Optim(lr=5e-4),
        steps=600 if a.laptop else "50ep",
        checkpoint=Checkpoint(
            every="25%" if a.laptop else "1ep",
            keep=1,
            best="validation/mAP" if "validation" in task else "",
        ),
        record=Record(every=20, figures="0"),
    )
    tested = [part for part in ("validation", "test") if part in task or part == "test"]
    evals: dict[str, Any] = {
        part: dict(
            kind="classify", source=source(a, part), samples=RATE, classes=classes, batch_size=batch,
            hop=RATE // 2, fill="repeat", average=task["criterion"],
        )
        for part in tested
    }  # fmt: skip
    evals["test"]["windows"] = True
    with config.unlocked():
        config.inference = dict(average=task["criterion"])
    config.evals = evals
    config.eval_every = 0 if a.laptop else "1ep"
    return runlocal(config) if a.runlocal else config


def source(a, part: str) -> dict[str, Any]:
    """Return the training, validation or test part of the task's data set."""
    if a.runlocal:
        return dict(kind="synthetic", size=32, seconds=1.0, rate=RATE)
    if not a.root:
        raise ValueError(f"task {a.task}: say where the data is, with root=DIR.")
    task = TASKS[a.task]
    found = task["source"] | dict(root=a.root, rate=RATE)
    if "folds" not in task:
        return found | task[part]
    test, folds = a.fold or 1, range(1, task["folds"] + 1)
    if test not in folds:
        raise ValueError(f"fold={test}: task {a.task} has the folds 1 to {task['folds']}.")
    return found | dict(
        folds=(test,) if part == "test" else tuple(fold for fold in folds if fold != test)
    )


def runlocal(config):
    """Shrink a run to four steps on synthetic sounds: a check that it runs."""
    sources = config.data.sources
    for name in list(sources):
        sources[name] = sources[name].source
    config = runs.few_steps(config, RATE)
    encoder = config.objective.encoder
    small = dict(
        channels=(4,) * len(encoder.get("channels", ())),
        depths=(1,) * len(encoder.get("depths", ())),
    )
    encoder.update({name: value for name, value in small.items() if value})
    config.data.entries.label.classes = config.objective.head.classes = 12
    for part in config.evals.values():
        part.update(classes=12, batch_size=8)
    config.checkpoint.best = ""
    return config
