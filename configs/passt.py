"""PaSST (Koutini et al. 2022, arXiv:2110.05069): tag audio, leaving out most patches in training.

Run:      ssl-audio train --config passt:root=AUDIOSET --workdir runs/passt
Try:      ssl-audio train --config passt:runlocal --workdir runs/try
Laptop:   ssl-audio train --config passt:laptop,root=ESC-50,fold=1 --workdir runs/laptop
Options:  patchout=structured|single|none  stride=10  encoder=ssast|ssamba_rms|ssamba
          size=tiny|small|base|large (published: base)
          pretrained=RUN (of the same encoder and frontend)
Results:  experiments/passt/README.md
"""

from typing import Any

from ml_collections import ConfigDict

from ssl_audio.config import parse_arg
from ssl_audio.data import entries
from ssl_audio.presets import patch_encoders, runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.tokens.patchify import grid
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

RATE = 32_000
# patches out: at full size (AudioSet, stride 10), on the laptop
PATCHOUT = {
    "structured": (dict(time=40, freq=4, single=0), dict(time=0.4, freq=0.25, single=0)),
    "single": (dict(time=0, freq=0, single=400), dict(time=0, freq=0, single=0.5)),
    "none": (None, None),
}


def get_config(arg=""):
    a = parse_arg(
        arg, root="", encoder="ssast", size="base", patchout="structured", stride=10, pretrained="",
        fold=1, laptop=False, runlocal=False,
    )  # fmt: skip
    if a.patchout not in PATCHOUT:
        raise ValueError(f"patchout '{a.patchout}': wanted one of {', '.join(PATCHOUT)}.")
    if not a.root and not a.runlocal:
        raise ValueError("root: say where the data is, with root=DIR.")
    if a.laptop:
        a.refuse("size stride runlocal", "laptop sets it")
        return laptop(a)
    a.refuse("fold", "it is for laptop")
    epoch = 100_000 // 12  # updates: drawn clips over the batch
    config = runs.run(
        objective=objective(
            a, a.size, bins=128, frames=998, classes=527, out=PATCHOUT[a.patchout][0]
        ),
        data=dict(
            sources=dict(audioset=source("sets.audioset", a, segments="unbalanced_train")),
            batch_size=12,
            entries=dict(
                audio=entries.audio(10 * RATE), label=dict(kind="entries:Labels", classes=527)
            ),
            rate=RATE,
            mixup=0.5,
            mixup_beta=0.3,
            balanced=True,
        ),
        optim=Optim(
            lr=2e-5,
            weight_decay=1e-4,
            warmup=5 * epoch,
            schedule="steps",
            # to a hundredth between epochs 50 and 100
            steps_at=tuple(n * epoch for n in range(50, 100, 5)),
            gamma=0.631,
            average_every=5 * epoch,
            average_from=50 * epoch,
        ),
        steps=130 * epoch,
        checkpoint=Checkpoint(every=str(epoch), keep=1),
        record=Record(every=50, figures="0"),
    )
    test = source("sets.audioset", a, segments="eval")
    config.evals = evaluation(test, 10 * RATE, 527, 24)
    config.eval_every = str(10 * epoch)
    if not a.runlocal:
        return warm(config, a)
    a.refuse("size", "runlocal sets it")
    if a.patchout != "none":
        a.refuse("patchout", "runlocal leaves patches out in rows and columns")
    a.refuse("root pretrained", "runlocal is on synthetic sounds, from nothing")
    return runlocal(config)


def objective(a, size, *, bins, frames, classes, out, criterion="sigmoid") -> dict[str, Any]:
    patch, stride = (16, 16), (a.stride, a.stride)
    places = grid(frames, bins, patch, stride)
    encoder = patch_encoders.encoder(a.encoder, size, places)
    encoder |= dict(positions=dict(kind="positions:Separate", grid=places), drop_path=0.0)
    made = dict(
        kind="tagging",
        frontend=dict(kind="stft", rate=RATE, bins=bins, frames=frames),
        tokenizer=dict(kind="patchify", width=encoder["width"], patch=patch, stride=stride),
        encoder=encoder,
        head=dict(kind="classify:Classifier", classes=classes, pool="special"),
        criterion=criterion,
        spec_augment=dict(kind="augment:SpecAugment", freq=48, time=192),
    )
    return made | (
        dict(masking=dict(kind="masking:TimeFrequency", shared=True, **out)) if out else {}
    )


def source(kind, a, **options) -> dict[str, Any]:
    return dict(kind=kind, root=a.root, rate=RATE, **options)


def evaluation(source, samples, classes, batch) -> dict[str, Any]:
    return dict(
        test=dict(
            kind="classify", source=source, samples=samples, classes=classes, batch_size=batch
        )
    )


def warm(config, a):
    if a.pretrained:
        config.warm_start = written.warm_start(a.pretrained)
    return config


def laptop(a):
    """Return supervised training on ESC-10, four folds of five, 64 bins, stride 16."""
    a.stride = 16
    samples = 5 * RATE
    made = objective(
        a, "mini", bins=64, frames=496, classes=10, out=PATCHOUT[a.patchout][1], criterion="softmax"
    )
    made["spec_augment"].update(freq=16, time=96)
    folds = range(1, 6)
    if a.fold not in folds:
        raise ValueError(f"fold={a.fold}: ESC-10 has folds 1 to 5.")
    rest = tuple(fold for fold in folds if fold != a.fold)
    config = runs.run(
        objective=made,
        data=dict(
            sources=dict(esc10=source("sets.esc", a, subset="esc10", folds=rest)),
            batch_size=16,
            entries=dict(
                audio=entries.audio(samples), label=dict(kind="entries:Labels", classes=10)
            ),
            rate=RATE,
            mixup=0.5,
            mixup_beta=0.3,
        ),
        optim=Optim(lr=1e-3, weight_decay=1e-4, warmup="10%", schedule="cosine", clip=1.0),
        steps=800,
        checkpoint=Checkpoint(every="10%", keep=1),
        record=Record(every=20, figures="0"),
    )
    test = source("sets.esc", a, subset="esc10", folds=(a.fold,))
    config.evals = evaluation(test, samples, 10, 16)
    config.eval_every = "20%"
    return warm(config, a)


def runlocal(config):
    """Shrink to four steps on synthetic sounds."""
    config.data.sources = dict(synthetic=dict(kind="synthetic"))
    config = runs.runlocal(config)
    config.data.entries.label.classes = config.objective.head.classes = 12
    config.data.balanced = False
    if "masking" in config.objective:
        config.objective.masking.update(time=2, freq=1, single=0)
    config.objective.spec_augment.update(freq=8, time=8)
    config.evals.test.source = ConfigDict(dict(kind="synthetic", size=32, seconds=1.0, rate=RATE))
    config.evals.test.update(classes=12, samples=config.data.entries.audio.samples, batch_size=8)
    config.optim.update(average_every=0, average_from=0, schedule="constant")
    config.eval_every = "4"
    return config
