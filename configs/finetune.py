"""Fine-tune a pretrained encoder: on sounds and labels of your own, or by published recipes.

Own:      ssl-audio finetune --data FOLDER|TABLE.csv|SHARDS --pretrained RUN --workdir runs/mine
          which is `train --config finetune:data=…,pretrained=RUN`; see docs/finetune.md
Recipes of Gong et al. 2022 and Shams et al. 2024, and two small ones:
Run:      ssl-audio train --workdir runs/esc50_fold1 \\
              --config finetune:task=esc50,root=DIR,pretrained=RUN,fold=1
Folds:    ssl-audio folds --folds 1-5 --workdir runs/esc50 \\
              --config finetune:task=esc50,root=DIR,pretrained=RUN
LoRA:     add adapt=lora,rank=8 (or adapt=head): the encoder is frozen, see docs/track.md
In two:   folds with adapt=head in runs/heads, then with pretrained=runs/heads,keep_head
Scratch:  add `scratch` for the encoder of RUN untrained; or leave RUN out and name encoder=, size=, patch=
Try:      ssl-audio train --config finetune:runlocal --workdir runs/try
Results:  experiments/finetune/README.md
"""

import dataclasses
from typing import Any

from ssl_audio.config import build, parse_arg
from ssl_audio.data import entries
from ssl_audio.frontend.fbank import STATS
from ssl_audio.layers.lora import Lora
from ssl_audio.presets import kept_head, own_labels, patch_encoders, runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

# Every number of a recipe. `at`: first epoch with a lower rate, epochs between further ones, factor.
# `whole`: a test clip that is longer than `seconds` is tested from its begin to its end, in windows half a
# window apart whose probabilities are averaged, and trained on at any place.
# `gentle`: instead, from a pretrained encoder all of which learns.
# `train`, `test`, `validation`: options of the set; a number of `folds` gives each in turn to the test.
TASKS: dict[str, dict[str, Any]] = {
    "esc50": dict(
        source=dict(kind="sets.esc"), folds=5, classes=50, stats="esc50", seconds=5.0, criterion="softmax",
        batch=48, epochs=50, lr=1e-4, at=(6, 1, 0.85), mask=(24, 96), noise=True,
    ),
    "speech_commands": dict(
        source=dict(kind="sets.speech_commands"), train=dict(split="train"), test=dict(split="test"),
        validation=dict(split="validation"), classes=35, stats="speech_commands", seconds=1.0,
        criterion="sigmoid", batch=128, epochs=30, lr=2.5e-4, at=(5, 1, 0.85), warmup=1000, mask=(48, 48),
        noise=True, mixup=0.6,
    ),
    "audioset20k": dict(
        source=dict(kind="sets.audioset"), train=dict(segments="balanced_train"), test=dict(segments="eval"),
        classes=527, stats="audioset", seconds=10.0, criterion="sigmoid", batch=12, epochs=25, lr=5e-5,
        at=(10, 5, 0.5), mask=(48, 192), mixup=0.5, average=("1ep", "6ep"),
    ),
    "urbansound8k": dict(
        source=dict(kind="sets.urbansound8k"), folds=10, classes=10, stats="esc50", seconds=4.0,
        criterion="softmax", batch=48, epochs=50, lr=1e-4, at=(20, 10, 0.85), mask=(24, 96),
    ),
    "fsd50k": dict(
        source=dict(kind="sets.fsd50k"), train=dict(split="train"), test=dict(split="eval"),
        validation=dict(split="val"), classes=200, stats="audioset", seconds=10.0, criterion="sigmoid",
        batch=24, epochs=50, lr=5e-5, at=(10, 5, 0.5), mask=(48, 192), mixup=0.5, metric="mAP", whole=True,
    ),
    "speaker": dict(
        source=dict(kind="sets.voxceleb1"), train=dict(split="train"), test=dict(split="test"),
        validation=dict(split="validation"), classes=1251, stats="audioset", seconds=8.0, frames=1000,
        criterion="softmax", batch=32, steps=40_000, lr=1e-4, superb=True,
    ),
    "emotion": dict(
        source=dict(kind="sets.iemocap"), folds=5, classes=4, stats="audioset", seconds=6.0, frames=600,
        criterion="softmax", batch=32, steps=10_000, lr=1e-4, superb=True,
    ),
    "esc10": dict(
        source=dict(kind="sets.esc", subset="esc10"), folds=5, classes=10, seconds=5.12,
        criterion="softmax", batch=16, epochs=10, lr=7e-4, laptop=True, mixup=0.3, speed=0.1, gain=6.0,
    ),
    "spoken_digit": dict(
        source=dict(kind="sets.spoken_digit"), train=dict(split="train"), test=dict(split="test"),
        classes=10, seconds=0.8, criterion="softmax", batch=32, epochs=15, lr=1e-3, laptop=True,
        mask=(24, 16), mixup=0.5, speed=0.2, gain=10.0, gentle=dict(lr=4e-4, layer_decay=0.6),
    ),
}  # fmt: skip
# A fold for each of the six speakers.
TASKS["unseen_speaker_digit"] = {k: v for k, v in TASKS["spoken_digit"].items() if k != "train"} | {
    "folds": 6
}
TASKS["birdset"] = dict(
    source=dict(kind="sets.birdset", subset="HSN"), train=dict(split="train", per_class=500, per_recording=5),
    test=dict(split="test_5s"), classes=21, seconds=5.0, frames=512, criterion="asymmetric", batch=128,
    epochs=30, lr=3e-4, mask=(50, 100), mixup=0.9, patches="16x16",
    optim=dict(weight_decay=3e-4, warmup="6.7%", schedule="cosine", clip=2.0, layer_decay=0.75),
)  # fmt: skip
TASKS["audioset2m"] = TASKS["audioset20k"] | dict(
    train=dict(segments="unbalanced_train"), epochs=5, lr=1e-5, balanced=True, average=None
)
TASKS["speech_commands_v1"] = TASKS["speech_commands"] | dict(classes=30)
OWN = "validation test by share seconds steps batch max_bad_share"
MAMBA_AUDIOSET20K = dict(
    lr=1e-4, head=3.0, batch=24, epochs=50, at=(15, 10, 0.75), average=("1ep", "12ep")
)


def get_config(arg=""):
    a = parse_arg(
        arg, task="esc50", root="", pretrained="", scratch=False, fold=0, stride="", encoder="", size="",
        patch="", runlocal=False, data="", validation="", test="", by="", share=0.2, seconds=0.0, steps="",
        batch=16, max_bad_share=0.01, adapt="", rank=8, alpha=16.0, keep_head=False,
    )  # fmt: skip
    if a.data:
        return own(a)
    a.refuse(OWN, "it is for clips of your own, data=PLACE")
    a.fold = a.fold or 1
    if a.task not in TASKS:
        raise ValueError(f"task '{a.task}': wanted one of {', '.join(TASKS)}.")
    task = dict(TASKS[a.task])
    if a.runlocal:
        a.refuse("root size", "runlocal is a small model on synthetic sounds")
    elif "folds" not in task:
        a.refuse("fold", f"task {a.task} has none")
    elif a.pretrained:
        a.pretrained = kept_head.of_fold(a.pretrained, a.fold)
    if not a.pretrained:
        a.refuse("scratch", "without pretrained=RUN the encoder is untrained anyway")
    parts = architecture(a)
    if a.task == "audioset20k" and parts["encoder"]["block"]["mixer"]["kind"] == "mamba":
        task |= MAMBA_AUDIOSET20K
    # At a recipe's rate from scratch a strong encoder forgets; adapters want more.
    gentle = task.get("gentle", {}) if a.pretrained and not (a.scratch or a.adapt) else {}
    superb, laptop = task.get("superb", False), task.get("laptop", False)
    rate = parts["frontend"].get("rate", 16_000)  # of the encoder, whatever the data's
    parts, samples = fitted(a, task, parts, rate)
    # More than one: of an encoder that takes less than the task's clips, which hears all of them in turn.
    views = own_labels.views(task["seconds"], samples, rate)
    classes = task["classes"]
    head = dict(kind="classify:LayerMix" if superb else "classify:Classifier", classes=classes)
    head |= dict(pool="stats") if laptop else {}
    objective = parts | dict(kind="tagging", head=head, criterion=task["criterion"], smoothing=0.0)
    frontend = build(parts["frontend"], "frontend")
    bands = hasattr(frontend, "log_mel")
    if "mask" in task and bands:  # of 128 bins and of frames of 10 ms
        shares = (frontend.bins / 128, frontend.rate / (100 * frontend.hop))
        freq, time = (
            max(1, round(n * share)) for n, share in zip(task["mask"], shares, strict=True)
        )
        objective["spec_augment"] = dict(kind="augment:SpecAugment", freq=freq, time=time)
    if task.get("noise") and bands:
        objective["noise"] = dict(kind="augment:NoiseRoll")
    data = dict(
        sources={a.task: source(a, task, "train", rate)},
        batch_size=task["batch"],
        entries=dict(
            audio=entries.audio(
                samples,
                crop="random" if superb or laptop or "whole" in task or views > 1 else "first",
                speed=task.get("speed", 0.0),
                gain=task.get("gain", 0.0),
            ),
            label=dict(kind="entries:Labels", classes=classes),
        ),
        mixup=task.get("mixup", 0.0),
        balanced=task.get("balanced", False),
    )
    data |= {} if rate == 16_000 else dict(rate=rate)
    config = runs.run(
        objective=objective,
        data=data,
        optim=optimizer(task | gentle, superb, laptop, parts["encoder"]),
        steps=task.get("steps") or f"{task['epochs']}ep",
        accumulate=8 if superb else 1,
        checkpoint=Checkpoint(
            every="5%" if superb or laptop else "1ep",
            keep=1,
            best=f"validation/{task.get('metric', 'accuracy')}" if "validation" in task else "",
        ),
        record=Record(every=50, figures="20%"),
    )
    config.evals = {
        part: dict(
            kind="classify",
            source=source(a, task, part, rate),
            samples=samples,
            classes=classes,
            batch_size=task["batch"],
            views=1 if "whole" in task else views,
        )
        | (dict(hop=samples // 2, average=task["criterion"]) if "whole" in task else {})
        for part in ("validation", "test")
        if part in task or (part == "test" and "folds" in task)
    }
    if "whole" in task:
        with config.unlocked():
            config.inference = dict(average=task["criterion"])
    config.eval_every = "20%" if laptop else "5%" if superb else "1ep"
    begun(a, config)
    return runlocal(config) if a.runlocal else config


def fitted(a, task, parts, rate: int) -> tuple[dict[str, Any], int]:
    """Return the architecture for the clips of a task, and their samples.

    The recipes' frames, strides and statistics are for patches of Kaldi's filterbank every 10 ms; what else
    is pretrained keeps its own.
    """
    frontend, laptop = parts["frontend"], task.get("laptop", False)
    hop = build(frontend, "frontend").hop
    if (parts["tokenizer"]["kind"], frontend["kind"], 100 * hop) != ("patchify", "fbank", rate):
        a.refuse("stride", "it is for encoders of patches of a filterbank every 10 ms")
        window = written.trained(a.pretrained).get("window", 0)
        return own_labels.cut(parts, task["seconds"], window)
    stats: dict[str, Any] = dict(STATS[task["stats"]]) if "stats" in task else {}
    frames = task.get("frames") or stats.get("frames") or round(100 * task["seconds"]) // 8 * 8
    pretraining = frontend.get("frames", 0)
    frontend |= stats | dict(frames=frames)
    if a.stride or not laptop:
        stride = a.stride or task.get("patches", "10x10")
        parts["tokenizer"]["stride"] = patch_encoders.shape(stride, "stride")
    if laptop and not a.stride and 0 < pretraining < frames:
        parts["window"] = pretraining // parts["tokenizer"]["stride"][1]
    return parts, int(rate * task["seconds"])


def begun(a, config) -> None:
    """Let the run begin from the pretrained one, where there is one, and freeze what is frozen."""
    if not a.pretrained or a.scratch:
        a.refuse("keep_head", "only with pretrained=RUN, and without scratch, is there one to keep")
    else:
        runs.begin(config, a.pretrained)
        kept_head.check_unseen(config, a.pretrained)
        if a.keep_head:
            kept_head.keep(config, a.pretrained)
    adapted(a, config)


def adapted(a, config) -> None:
    """Freeze the encoder, with `adapt=lora` or `adapt=head`: see docs/track.md."""
    if not a.adapt:
        a.refuse("rank alpha", "without adapt=lora there is no adapter")
        return
    if a.adapt not in ("lora", "head"):
        raise ValueError(f"adapt '{a.adapt}': wanted lora, or head for the head alone.")
    if a.adapt == "head":
        a.refuse("rank alpha", "adapt=head has no adapter")
    if not (a.pretrained or a.runlocal) or a.scratch:
        raise ValueError("adapt: what is frozen must be pretrained; name pretrained=RUN.")
    made = Lora(rank=a.rank if a.adapt == "lora" else 0, alpha=a.alpha)
    config.adapt = dict(kind="lora", **dataclasses.asdict(made))
    config.optim.layer_decay = 1.0  # all adapters begin at zero, near the head or far from it


def own(a):
    """Return the run on a user's own labelled clips."""
    a.refuse("task root runlocal stride", "data=PLACE says what is learned")
    if not a.pretrained:
        a.refuse("scratch", "without pretrained=RUN the encoder is untrained anyway")
    given = {name: getattr(a, name) for name in OWN.split() if name != "by"}
    parts = architecture(a)
    window = written.trained(a.pretrained).get("window", 0) if a.pretrained else 0
    by = tuple(filter(None, a.by.split("+")))
    config = own_labels.run(parts, data=a.data, by=by, fold=a.fold, window=window, **given)
    begun(a, config)
    return config


def architecture(a) -> dict[str, Any]:
    """Return frontend, tokenizer and encoder: those of the pretrained run, or the ones asked for."""
    if a.pretrained:
        given = [name for name in ("encoder", "size", "patch") if getattr(a, name)]
        if given:
            raise ValueError(
                f"{', '.join(given)}: these come from the pretrained run; leave them out."
            )
        return runs.to_fine_tune(a.pretrained)
    patch = patch_encoders.shape(a.patch or "16x16", "patch")
    # The grid of pretraining on 1024 frames: the encoder moves its table to the one it meets here.
    encoder = patch_encoders.encoder(
        a.encoder or "ssast", a.size or "base", (128 // patch[0], 1024 // patch[1])
    )
    return dict(
        frontend=dict(kind="fbank", bins=128),
        tokenizer=dict(kind="patchify", width=encoder["width"], patch=patch, stride=patch),
        encoder=encoder,
    )


def optimizer(task, superb, laptop, encoder) -> Optim:
    if "optim" in task:
        return Optim(lr=task["lr"], **task["optim"])
    if laptop:
        return Optim(
            lr=task["lr"],
            weight_decay=0.05,
            warmup="10%",
            schedule="cosine",
            clip=1.0,
            layer_decay=runs.layer_decay(encoder, task.get("layer_decay", 0.75)),
            rates={"^head/": 3.0},
        )
    options: dict[str, Any] = dict(b1=0.95, b2=0.999, weight_decay=5e-7, coupled=True, decay=".*")
    if superb:
        options |= dict(b1=0.9, weight_decay=0.0, clip=1.0)
    if "at" in task:
        first, between, gamma = task["at"]
        at = tuple(f"{n}ep" for n in range(first, task["epochs"], between))
        options |= dict(schedule="steps", steps_at=at, gamma=gamma)
    if task.get("average"):
        options["average_every"], options["average_from"] = task["average"]
    rates = {"^head/": task.get("head", 1.0)}
    return Optim(
        lr=task["lr"], warmup=task.get("warmup", 0), warmup_hold=50, rates=rates, **options
    )


def source(a, task, part, rate) -> dict[str, Any]:
    """Return the training, validation or test part of a task's data set."""
    given = {} if rate == 16_000 else dict(rate=rate)
    if a.runlocal:
        return dict(kind="synthetic", size=32, seconds=1.0) | given
    if not a.root:
        raise ValueError(f"task {a.task}: say where the data is, with root=DIR.")
    if "folds" not in task:
        return task["source"] | dict(root=a.root) | task[part] | given
    folds = range(1, task["folds"] + 1)
    if a.fold not in folds:
        raise ValueError(f"fold={a.fold}: {a.task} has folds 1 to {task['folds']}.")
    mine = (a.fold,) if part == "test" else tuple(f for f in folds if f != a.fold)
    return task["source"] | dict(root=a.root, folds=mine) | given


def runlocal(config):
    """Shrink to four steps on synthetic sounds."""
    config = runs.runlocal(config)
    config.accumulate = 1
    config.data.entries.label.classes = config.objective.head.classes = 12
    for part in config.evals.values():
        part.update(classes=12, samples=config.data.entries.audio.samples, batch_size=8)
    config.eval_every = "4"
    if "spec_augment" in config.objective:
        config.objective.spec_augment.update(freq=8, time=8)
    return config
