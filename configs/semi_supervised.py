"""Learn to classify from few labelled clips and many without labels (Cances et al. 2022, arXiv:2102.08183).

Run:      ssl-audio train --workdir runs/fix_match \\
              --config semi_supervised:method=fix_match,task=esc10,root=ESC-50,fold=1,labels=10%
Methods:  supervised (view=none|weak|strong)  mean_teacher  deep_co_training  mix_match  re_mix_match
          fix_match  uda;  mixup=ALPHA for another than the method's, 0: none
Labels:   labels=10% of each class, labels=10 clips of each, labels=all (supervised only)
Encoder:  wrn28 (width=2), any of `presets/patch_encoders.py` (with size=, patch=), or pretrained=RUN
Laptop:   task=spoken_digit, or `laptop` for short runs of the others, on small networks
Try:      ssl-audio train --config semi_supervised:runlocal --workdir runs/try
Results:  experiments/semi_supervised/README.md
"""

from typing import Any

from ssl_audio.backbones.residual import WRN28
from ssl_audio.config import parse_arg
from ssl_audio.data import entries
from ssl_audio.frontend.views import published
from ssl_audio.presets import own_labels, patch_encoders, runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

# As published; `clips`: of training, in one fold. `folds` take turns as the test. Window and hop: samples.
TASKS: dict[str, dict[str, Any]] = {
    "esc10": dict(
        source=dict(kind="sets.esc", subset="esc10"), folds=5, classes=10, clips=320, rate=44_100,
        seconds=5.0, batch=60, laptop=dict(rate=16_000, window=1024),
    ),
    "esc50": dict(
        source=dict(kind="sets.esc"), folds=5, classes=50, clips=1600, rate=44_100, seconds=5.0, batch=60,
        laptop=dict(rate=16_000, window=1024),
    ),
    "urbansound8k": dict(
        source=dict(kind="sets.urbansound8k"), folds=10, classes=10, clips=7859, rate=22_050, seconds=4.0,
        batch=256, laptop=dict(rate=16_000, window=1024),
    ),
    "speech_commands": dict(
        source=dict(kind="sets.speech_commands"), train=dict(split="train"), test=dict(split="test"),
        classes=35, clips=84_843, rate=16_000, seconds=1.0, batch=256, laptop=dict(),
    ),
    "spoken_digit": dict(
        source=dict(kind="sets.spoken_digit"), train=dict(split="train"), test=dict(split="test"),
        classes=10, clips=2700, rate=8000, seconds=1.0, window=512, hop=256, laptop=dict(),
    ),
}  # fmt: skip
# `epochs` of the longer part; `parts`: clips with and without labels in a batch; without: half of the task's
# each; `ramp`: the weights that rise (to what, and how), within a share of a short run or within epochs or
# steps of a long one.
METHODS: dict[str, dict[str, Any]] = {
    "supervised": dict(epochs=300),
    "mean_teacher": dict(
        epochs=200, parts=(6, 58),
        ramp=dict(to=dict(weight=1.0), shape="exponential", share=0.25, epochs=50),
    ),
    "deep_co_training": dict(
        epochs=300, parts=(6, 58), lr=5e-4,
        ramp=dict(to=dict(agree=1.0, differ=0.5), shape="exponential", share=0.5, epochs=160),
    ),
    "mix_match": dict(
        epochs=300, ramp=dict(to=dict(weight=1.0), shape="linear", share=0.25, steps=16_000)
    ),
    # Published without a rise; in a short run it agrees with itself before it has learned the labels.
    "re_mix_match": dict(
        epochs=300, ramp=dict(to=dict(rise=1.0), shape="exponential", share=1.0, steps=0)
    ),
    "fix_match": dict(epochs=300),
    "uda": dict(epochs=300, kind="fix_match:Uda"),
}  # fmt: skip
LAPTOP = dict(batch=48, steps=1500)


def get_config(arg=""):
    a = parse_arg(
        arg, method="fix_match", mixup="", view="weak", task="esc10", root="", fold=0, labels="10%",
        encoder="wrn28", width=0, size="", patch="", pretrained="", scratch=False, seed=1234, steps=0,
        laptop=False, runlocal=False,
    )  # fmt: skip
    check(a)
    method, task = METHODS[a.method], dict(TASKS[a.task])
    short = a.laptop or a.task == "spoken_digit"
    if short:
        task |= task["laptop"] | dict(batch=LAPTOP["batch"])
    a.width = a.width or (1 if short or a.runlocal else 2)
    parts, samples = architecture(a, task)
    rate = parts["frontend"].get("rate", 16_000)
    labels = labelled(a)
    half = task["batch"] // 2
    sizes = (half, half)
    if a.method == "supervised":
        sizes = (half if short else task["batch"], 0)
    elif not (short or a.mixup and a.method == "mean_teacher"):  # it mixes as many with as many
        sizes = method.get("parts", sizes)
    known = round(labels["share"] * task["clips"]) or labels["per_class"] * task["classes"]
    epoch = max(1, known // sizes[0], (task["clips"] - known) // max(1, sizes[1]))
    steps = a.steps or (LAPTOP["steps"] if short else method["epochs"] * epoch)
    objective = parts | learned(a, method, steps, epoch, short)
    objective["head"] = head(parts, task["classes"])
    train = source(a, task, "train", rate)
    few = dict(kind="few_labels", source=train, seed=a.seed) | labels
    audio = entries.audio(samples)
    data: dict[str, Any] = dict(
        sources={a.task: train if a.labels == "all" else few | dict(part="labelled")},
        batch_size=sizes[0],
        entries=dict(audio=audio, label=dict(kind="entries:Labels", classes=task["classes"])),
        seed=a.seed,
    )
    data |= {} if rate == 16_000 else dict(rate=rate)
    more = dict(kind="pipeline") | ({} if rate == 16_000 else dict(rate=rate))
    beside = {}
    if sizes[1]:
        beside["unlabelled"] = more | dict(
            sources={a.task: few | dict(part="unlabelled")},
            batch_size=sizes[1],
            entries=dict(audio=audio),
            seed=a.seed,
        )
    if a.method == "deep_co_training":  # the second model has the same clips in another order
        names = ("sources", "batch_size", "entries")
        beside["second"] = more | {name: data[name] for name in names} | dict(seed=a.seed + 1)
    if beside:
        data |= dict(kind="beside", beside=beside)
    config = runs.run(
        objective=objective,
        data=data,
        optim=optimizer(a, method, parts),
        steps=steps,
        checkpoint=Checkpoint(every="20%", keep=1),
        record=Record(every=50, figures="0"),
    )
    config.seed = a.seed
    config.evals = dict(
        test=dict(
            kind="classify",
            source=source(a, task, "test", rate),
            samples=samples,
            classes=task["classes"],
            batch_size=task["batch"],
        )
    )
    config.eval_every = "20%"
    if a.pretrained and not a.scratch:
        runs.begin(config, a.pretrained)
        if a.method == "deep_co_training":
            other = written.warm_start(a.pretrained, into="second/")["encoder"]
            config.warm_start = {**config.warm_start, "second": other}
    return runlocal(config) if a.runlocal else config


def check(a) -> None:
    encoders = ("wrn28", *patch_encoders.ENCODERS)
    for name, allowed in (("method", METHODS), ("task", TASKS), ("encoder", encoders)):
        if getattr(a, name) not in allowed:
            raise ValueError(f"{name} '{getattr(a, name)}': wanted one of {', '.join(allowed)}.")
    if a.method != "supervised":
        a.refuse("view", "it is for method=supervised; the others have weak and strong views")
        if a.labels == "all":
            raise ValueError(f"labels=all: {a.method} wants clips without labels, as labels=10%.")
    if a.pretrained:
        a.refuse("encoder width size patch", "the architecture is that of pretrained=RUN")
    else:
        a.refuse("scratch", "without pretrained=RUN the encoder is untrained anyway")
    if a.width < 0:
        raise ValueError(f"width={a.width}: wanted 1, 2 or 4, or another number above 0.")
    if a.encoder == "wrn28":
        a.refuse("size patch", "encoder wrn28 has width=1, 2 or 4 instead")
    else:
        a.refuse("width", "it is of encoder=wrn28; the others have size=")
    if a.runlocal:
        a.refuse("root labels steps laptop", "runlocal is a small model on synthetic sounds")
        a.labels = "1"


def labelled(a) -> dict[str, Any]:
    """Return how many clips of each class are labelled, as options of the source."""
    if a.labels == "all":
        return dict(share=1.0, per_class=0)
    text, percent = a.labels.removesuffix("%"), a.labels.endswith("%")
    try:
        number = float(text) if percent else int(text)
    except ValueError:
        number = 0
    if not 0 < number <= (100 if percent else 10**6):
        raise ValueError(
            f"labels '{a.labels}': wanted 10% of each class, 10 clips of each, or all."
        )
    return dict(share=number / 100, per_class=0) if percent else dict(share=0.0, per_class=number)


def architecture(a, task) -> tuple[dict[str, Any], int]:
    """Return frontend, tokenizer and encoder, and the samples of a clip."""
    if a.pretrained:
        return own_labels.cut(runs.to_fine_tune(a.pretrained), task["seconds"], 0)
    if a.encoder == "wrn28":
        frontend = dict(
            kind="mel", rate=task["rate"], bins=64, window=task.get("window", 2048),
            hop=task.get("hop", 512), low=0.0, high=0.0, scale="htk", area=False,
        )  # fmt: skip
        encoder = dict(kind="residual", **WRN28, times=a.width)
        parts = dict(frontend=frontend, tokenizer=dict(kind="bins", norm=None), encoder=encoder)
        return parts, round(task["seconds"] * task["rate"])
    patch = patch_encoders.shape(a.patch or "16x16", "patch")
    frames = round(100 * task["seconds"]) // patch[1] * patch[1]
    frontend = dict(kind="fbank", bins=128, frames=frames)
    parts = runs.parts(frontend=frontend, encoder=a.encoder, size=a.size or "tiny", patch=patch)
    return parts, runs.crop(frontend, frames)


def head(parts, classes) -> dict[str, Any]:
    """Return a linear layer on the mean of the maps, or the usual head of an encoder of patches."""
    if parts["encoder"]["kind"] == "residual":
        return dict(kind="classify:Classifier", classes=classes, pool="mean", eps=None)
    return dict(kind="classify:Classifier", classes=classes, pool="stats")


def learned(a, method, steps, epoch, short) -> dict[str, Any]:
    """Return what a method adds to the objective."""
    found: dict[str, Any] = dict(kind=method.get("kind", a.method))
    # Published without: two models are fooled instead, and UDA labels clips as they are.
    if a.method not in ("deep_co_training", "uda"):
        found["weak"] = published("weak")
    if a.method != "deep_co_training":
        found["strong"] = published("strong")
    if a.method == "supervised":
        found["view"] = a.view
    if a.mixup:
        try:
            found["mixup"] = float(a.mixup)
        except ValueError:
            raise ValueError(f"mixup '{a.mixup}': wanted a number, 0: none.") from None
    if "ramp" in method:
        ramp = dict(method["ramp"])
        long = ramp["steps"] if "steps" in ramp else ramp["epochs"] * epoch
        length = round(ramp["share"] * steps) if short or a.steps else long
        for name, end in ramp["to"].items() if length else ():
            found[name] = dict(start=0.0, end=end, steps=length, shape=ramp["shape"])
    return found


def optimizer(a, method, parts) -> Optim:
    if parts["encoder"]["kind"] != "residual":
        return own_labels.optimizer(parts["encoder"])
    return Optim(lr=method.get("lr", 1e-3), schedule="cosine")


def source(a, task, part, rate) -> dict[str, Any]:
    """Return the training or test part of a task's data set."""
    if a.runlocal:
        return dict(kind="synthetic", size=36, seconds=0.5, rate=rate)
    if not a.root:
        raise ValueError(f"task {a.task}: say where the data is, with root=DIR.")
    if "folds" not in task:
        a.refuse("fold", f"task {a.task} has none")
        return task["source"] | dict(root=a.root) | task[part] | dict(rate=rate)
    folds, fold = range(1, task["folds"] + 1), a.fold or 1
    if fold not in folds:
        raise ValueError(f"fold={fold}: {a.task} has folds 1 to {task['folds']}.")
    mine = (fold,) if part == "test" else tuple(f for f in folds if f != fold)
    return task["source"] | dict(root=a.root, folds=mine, rate=rate)


def runlocal(config):
    """Shrink to four steps on synthetic sounds."""
    if "patch" in config.objective.tokenizer:
        config = runs.runlocal(config)
    else:
        config = runs.few_steps(config, config.objective.frontend.rate // 4)
    config.data.entries.label.classes = config.objective.head.classes = 12
    config.evals.test.update(classes=12, samples=config.data.entries.audio.samples, batch_size=8)
    config.eval_every = "4"
    return config
