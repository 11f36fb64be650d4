"""Universal source separation (Kong et al. 2023, arXiv:2305.07447): what a query asks for, out of a mixture.

Run:      ssl-audio train --config uss:data=AUDIOSET,classes=527 --workdir runs/uss
Laptop:   ssl-audio train --config uss:laptop,task=esc10,root=DIR --workdir runs/laptop
Try:      ssl-audio train --config uss:runlocal --workdir runs/try
Query:    query=label; query=soft|embedding|adaptor with tagger=RUN, a tagger that is heard and does not learn
Segments: mining=loudest|random|heard; heard with events=RUN, a model of events
Data:     folders whose sub-folders are classes, tables, prepared shards; or task=esc10,root=DIR,fold=N
Results:  experiments/uss/README.md; published weights: ssl-audio convert --from uss
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import entries, places
from ssl_audio.presets import runs
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

FROZEN = "ssl_audio.inference.frozen:Frozen"
WIDE = (32, 64, 128, 256, 384, 384)
NARROW = (8, 16, 32, 48)
ANCHORS = {"loudest": "Loudest", "random": "Anywhere", "heard": "Heard"}
QUERIES = ("label", "soft", "embedding", "adaptor")
ESC10 = 10


def get_config(arg=""):
    a = parse_arg(
        arg, data="", task="", root="", fold=1, classes=0, query="label", tagger="", mining="loudest",
        events="", sources=2, steps=0, laptop=False, runlocal=False,
    )  # fmt: skip
    check(a)
    small = a.laptop or a.runlocal
    rate, hop = (8000, 128) if small else (32_000, 320)
    samples = 3 * rate if small else 10 * rate  # of which two seconds are a source
    frames = (rate if a.runlocal else 2 * rate) // hop // 2 * 2
    classes = a.classes or (ESC10 if a.task else 12)
    anchor: dict[str, Any] = dict(kind=f"anchors:{ANCHORS[a.mining]}", frames=frames, hop=hop)
    if a.events:
        anchor["model"] = dict(kind=FROZEN, path=a.events)
    objective = dict(
        kind="separation",
        spectrum=dict(kind="spectrum", rate=rate, size=256 if small else 2048, hop=hop),
        model=dict(
            kind="resunet",
            channels=(4, 4) if a.runlocal else NARROW if small else WIDE,
            norm=dict(kind="norms:BatchNorm", momentum=0.01),
        ),
        sources=a.sources,
        query=query(a),
        anchor=anchor,
    )
    audio = entries.audio(samples, crop="random" if small else "first", fill="repeat")
    label = dict(kind="entries:Labels", classes=classes)
    data = dict(
        sources={a.task or "clips": source(a, rate, test=False)},
        rate=rate,
        batch_size=16,
        balanced=not a.runlocal,
        entries=dict(audio=audio, label=label),
    )
    # Published: 1e-3 times 0.001, 0.01, 0.1, 1 for blocks of 10,000 steps; a linear rise serves as well.
    optim = Optim(lr=2e-3, warmup="5%", schedule="cosine", clip=1.0) if small else Optim(
        lr=1e-3, warmup=30_000, schedule="constant"
    )  # fmt: skip
    config = runs.run(
        objective=objective,
        data=data,
        optim=optim,
        steps=a.steps or (1000 if small else 1_000_000),
        checkpoint=Checkpoint(every="50" if small else "1%", keep=1),
        record=Record(every=10 if small else 100, figures="0"),
    )
    if a.task:
        config.evals = dict(
            test=dict(
                kind="mixtures", source=source(a, rate, test=True), samples=samples, classes=classes,
                pairs=90,
            )
        )  # fmt: skip
        config.eval_every = 0
    return runs.few_steps(config, samples) if a.runlocal else config


def check(a) -> None:
    """Raise ValueError for options that contradict each other."""
    for name, known in (("query", QUERIES), ("mining", tuple(ANCHORS)), ("task", ("", "esc10"))):
        if getattr(a, name) not in known:
            raise ValueError(f"{name} '{getattr(a, name)}': wanted one of {', '.join(known)}.")
    if a.runlocal:
        a.refuse(
            "data task root fold classes laptop steps",
            "runlocal is small, on synthetic sounds",
        )
    if not a.task:
        a.refuse("root fold", "they are of a task: task=esc10")
        if a.data and not a.classes:
            raise ValueError("data: say how many classes it has, with classes=N.")
    else:
        a.refuse("data classes", "a task has its own")
        if not a.root:
            raise ValueError(f"task {a.task}: say where the data is, with root=DIR.")
        if a.fold not in range(1, 6):
            raise ValueError(f"fold={a.fold}: task {a.task} has the folds 1 to 5.")
    if (a.query == "label") == bool(a.tagger):
        wanted = "leave tagger out" if a.tagger else "name a tagger: tagger=RUN"
        raise ValueError(f"query={a.query}: {wanted}.")
    if (a.mining == "heard") != bool(a.events):
        wanted = "leave events out" if a.events else "name a model of events: events=RUN"
        raise ValueError(f"mining={a.mining}: {wanted}.")


def query(a) -> dict[str, Any]:
    """Return what makes a condition of a clean clip."""
    model = dict(kind=FROZEN, path=a.tagger)
    if a.query == "label":
        return dict(kind="queries:Label")
    if a.query == "soft":
        return dict(kind="queries:Tags", tagger=model, exclusive=bool(a.task))
    hidden = (128 if a.laptop or a.runlocal else 2048) if a.query == "adaptor" else 0
    return dict(kind="queries:Embedding", encoder=model, hidden=hidden)


def source(a, rate: int, *, test: bool) -> dict[str, Any]:
    """Return the training or the test part of the data."""
    if a.task:
        folds = (a.fold,) if test else tuple(n for n in range(1, 6) if n != a.fold)
        return dict(kind="sets.esc", root=a.root, subset=a.task, folds=folds, rate=rate)
    return places.source(a.data or "synthetic", rate)
