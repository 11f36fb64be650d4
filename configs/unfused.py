"""UnFuSeD (Seth et al. 2023, arXiv:2303.05668): an encoder learns a teacher's clusters, then few labels.

Run:      ssl-audio stages --workdir runs/unfused \\
              --config unfused:task=esc10,root=DIR,labels=10,data=AUDIOSET+FSD50K
          writes runs/unfused/1_teacher, 2_labels.csv (a table to look at), 3_student and 4_finetune;
          the same command goes on after an interruption
Laptop:   add `laptop`: small encoders and short stages
Scratch:  ssl-audio train --workdir runs/scratch \\
              --config unfused:stage=finetune,task=esc10,root=DIR,labels=10
Try:      ssl-audio train --config unfused:runlocal --workdir runs/try
Options:  task=esc10|spoken_digit|speech_commands|urbansound8k, its folder root=DIR, fold=1
          data=PLACES of the teacher's sounds (default: the task's training clips)
          teacher=RUN: any trained encoder, instead of the first stage
          clusters=K (default: the task's number of classes)  labels=N of each class (default: all)
          draw=SEED of those labels
          stage=teacher|student|finetune, with previous=what the stage before wrote, for `ssl-audio train`
Results:  experiments/unfused/README.md
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

from ssl_audio.config import build, escaped, parse_arg, plain
from ssl_audio.data import entries, places
from ssl_audio.presets import audio_ntt, runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record
from ssl_audio.train.sgd import Sgd

# `train`, `test`: options of the set; a number of `folds` gives each in turn to the test. `views`: of a test
# clip that is longer than a crop. `laptop`: other options of the log-mel; the mean and deviation of training
# crops, dB, among them.
TASKS: dict[str, dict[str, Any]] = {
    "esc10": dict(source=dict(kind="sets.esc", subset="esc10"), folds=5, classes=10, views=5),
    "spoken_digit": dict(
        source=dict(kind="sets.spoken_digit"), train=dict(split="train"), test=dict(split="test"), classes=10,
        laptop=dict(rate=8000, hop=160, window=512, high=3900.0, frames=48, mean=-54.2, std=19.4),
    ),
    "speech_commands": dict(
        source=dict(kind="sets.speech_commands"), train=dict(split="train"), test=dict(split="test"),
        classes=35,
    ),
    "urbansound8k": dict(source=dict(kind="sets.urbansound8k"), folds=10, classes=10, views=4),
}  # fmt: skip
LOWER = dict(hop=320, frames=48)  # the same with half as many frames
SOUNDS = 12  # classes of the synthetic sounds
STAGES = ("teacher", "student", "finetune")
# Epochs, batch and optimizer of each stage as published.
PUBLISHED: dict[str, dict[str, Any]] = dict(
    teacher=dict(
        steps="200ep", batch=512,
        optim=Sgd(
            lr=0.005, momentum=0.9, trust=0.001, weight_decay=1e-6, coupled=True, warmup="10ep",
            schedule="cosine",
        ),
    ),
    student=dict(
        steps="50ep", batch=64, optim=Sgd(lr=0.03, momentum=0.9, weight_decay=1e-4, coupled=True),
    ),
    finetune=dict(steps="100ep", batch=32, optim=Optim(lr=1e-3)),
)  # fmt: skip
LAPTOP: dict[str, dict[str, Any]] = dict(
    teacher=dict(steps="12ep", batch=64, optim=runs.LAPTOP_OPTIM),
    student=dict(steps="5ep", batch=64, optim=runs.LAPTOP_OPTIM),
    finetune=dict(steps="200", batch=32, optim=runs.LAPTOP_OPTIM),
)


def stages(arg: str) -> dict[str, str | Callable[[str, pathlib.Path], None]]:
    """Return the stages in turn, for `ssl-audio stages`: each one's argument, or what writes its file."""
    a = arguments(arg)
    a.refuse("stage previous", "`ssl-audio stages` sets it")
    a.refuse("runlocal", "it is for one stage at a time")
    if not a.root:
        raise ValueError(f"task {a.task}: say where the data is, with root=DIR.")
    small = dict(task=a.task, laptop=True) if a.laptop else {}
    task = dict(task=a.task, root=a.root, fold=a.fold) | small
    first = dict(data=a.data) | small if a.data else task
    if a.teacher:
        a.refuse("data", "the teacher is trained already")
        written.architecture(
            a.teacher
        )  # a folder that is none is told before the clips are looked at
    if a.clusters < 0:
        raise ValueError(f"clusters={a.clusters}: wanted at least 1, or none for the classes.")
    clips = words(stage="finetune", **task)
    last = words(stage="finetune", labels=a.labels, draw=a.draw, **task)
    check(last, a.clusters)  # before hours are spent on the stages before
    cluster = functools.partial(pseudo_labels, clips, a.clusters, a.teacher)
    found = {} if a.teacher else {"teacher": words(stage="teacher", **first)}
    return found | {
        "labels.csv": cluster,
        "student": words(stage="student", **small),
        "finetune": last,
    }


def check(finetune: str, clusters: int) -> None:
    """See that the clips of the task are there, and as many as are asked for."""
    config: Any = get_config(finetune)
    (clips,) = (build(plain(one), "data") for one in config.data.sources.values())
    tested = build(plain(config.evals.test.source), "data")
    whole = getattr(clips, "source", clips)
    if not len(clips) or not len(tested):
        raise ValueError(f"{clips.info.name}: {len(clips)} clips, and {len(tested)} of the test.")
    if clusters > len(whole):
        raise ValueError(
            f"clusters={clusters}: {whole.info.name} has {len(whole)} training clips; wanted no more."
        )


def words(**options: Any) -> str:
    """Return options as the argument of a config, without those that are not set."""
    return ",".join(f"{key}={escaped(str(value))}" for key, value in options.items() if value)


def arguments(arg):
    return parse_arg(
        arg, stage="teacher", task="spoken_digit", root="", data="", teacher="", previous="", clusters=0,
        labels=0, draw=0, fold=0, laptop=False, runlocal=False,
    )  # fmt: skip


def pseudo_labels(clips: str, clusters: int, teacher: str, previous: str, out: pathlib.Path):
    """Cluster the clips of a config by a teacher's features, and write them as a table."""
    from ssl_audio.inference import kmeans

    kmeans.main([
        "--clips", "--checkpoint", teacher or previous, "--config", f"{pathlib.Path(__file__)}:{clips}",
        "--out", str(out), *(["--codes", str(clusters)] if clusters else []),
    ])  # fmt: skip


def get_config(arg=""):
    a = arguments(arg)
    if a.stage not in STAGES:
        raise ValueError(f"stage '{a.stage}': wanted one of {', '.join(STAGES)}.")
    if a.task not in TASKS:
        raise ValueError(f"task '{a.task}': wanted one of {', '.join(TASKS)}.")
    if a.runlocal:
        a.refuse(
            "task root data teacher previous clusters labels draw fold laptop",
            "runlocal is a small model on synthetic sounds",
        )
    if "folds" not in TASKS[a.task]:
        a.refuse("fold", f"task {a.task} has none")
    config = {"teacher": teacher, "student": student, "finetune": finetune}[a.stage](a)
    return runlocal(config) if a.runlocal else config


def teacher(a):
    """Return the run of DECAR-v2 on sounds without labels."""
    a.refuse("previous teacher", "this is the first stage")
    a.refuse("clusters labels draw", "it is of the stages after this one")
    if a.data or not a.root:
        a.refuse("root fold", "the sounds are those of data=PLACES")
        if not a.laptop:
            a.refuse("task", "the sounds are those of data=PLACES")
        found = places.sources(a.data or "synthetic", rated(a))
    else:
        found = {a.task: source(a, "train")}
    recipe = (LAPTOP if a.laptop else PUBLISHED)["teacher"]
    clips = sum(len(build(dict(one), "data")) for one in found.values())
    objective: dict[str, Any] = architecture(a) | dict(
        kind="deep_cluster",
        pool=dict(kind="pools:TimeMaxMean"),
        projector=dict(
            kind="projectors:Swav",
            out=64 if a.laptop else 512,
            hidden=256 if a.laptop else 2048,
        ),
        views=audio_ntt.views(512 if a.laptop else 2048),
        clips=clips,
        every=max(1, clips // recipe["batch"]),
        # Fewer where there are few clips: a cluster should have some.
        clusters=max(1, min(1024, clips // 16)),
        iterations=10,
        temperature=1.0,
        unit=False,
    )
    if a.laptop:  # DeepCluster-v2's: the vectors of DECAR-v2 ended in two or three clusters
        objective |= dict(temperature=0.1, unit=True)
    return run(a, objective, found, dict(clip=dict(kind="entries:ClipNumber")))


def student(a):
    """Return the run that learns pseudo-labels, from fresh parameters."""
    a.refuse("root fold data teacher clusters labels draw", "the table has all that is learned")
    if not a.laptop:
        a.refuse("task", "the table has all that is learned")
    if not a.previous and not a.runlocal:
        raise ValueError(
            "stage=student: name the table of pseudo-labels, previous=TABLE.csv; `ssl-audio kmeans "
            "--clips` makes one."
        )
    if a.runlocal:
        table, classes = source(a, "train"), SOUNDS
    else:
        table = dict(kind="source:Manifest", path=a.previous, rate=rated(a))
        classes = len(build(dict(table), "data").info.labels)
    objective = architecture(a) | dict(
        kind="layer_distill",
        head=dict(kind="classify:Pooled", classes=classes, pool=dict(kind="pools:TimeMaxMean")),
        shallow=dict(kind="projectors:BarlowTwins", out=classes, hidden=0),
        layers=(0, 1, 2),
        own=0.7,
        follow=0.3,
        align=0.003,
        views=audio_ntt.views(512 if a.laptop else 2048),
    )
    label = dict(kind="entries:Labels", classes=classes)
    return run(a, objective, dict(pseudo_labels=table), dict(label=label))


def finetune(a):
    """Return the run that learns the task's own labels, from the student's encoder or from nothing."""
    a.refuse("data teacher clusters", "it is of the stages before")
    if not a.labels:
        a.refuse("draw", "without labels=N all are used")
    task = TASKS[a.task]
    classes = SOUNDS if a.runlocal else task["classes"]
    objective = architecture(a) | dict(
        kind="tagging",
        head=dict(kind="classify:Classifier", classes=classes, pool="mean", eps=None),
        criterion="softmax",
    )
    whole = source(a, "train")
    few = dict(kind="few_labels", source=whole, part="labelled", per_class=a.labels, seed=a.draw)
    label = dict(kind="entries:Labels", classes=classes)
    config = run(a, objective, {a.task: few if a.labels else whole}, dict(label=label))
    config.evals = dict(
        test=dict(
            kind="classify", source=source(a, "test"), samples=samples(a),
            classes=classes, batch_size=32, views=task.get("views", 1),
        )
    )  # fmt: skip
    config.eval_every = 0
    if a.previous:
        config.warm_start = written.warm_start(a.previous)
    return config


def architecture(a) -> dict[str, Any]:
    """Return the log-mel of LAPE and AudioNTT2020, one architecture for teacher and student."""
    parts = audio_ntt.parts(256, 16) if a.laptop else audio_ntt.parts()
    if a.laptop:
        parts["frontend"] |= TASKS[a.task].get("laptop", LOWER)
    return parts


def rated(a) -> int:
    """Return the sampling rate of all stages, Hz."""
    return architecture(a)["frontend"]["rate"]


def samples(a) -> int:
    """Return the length of the random crops."""
    return audio_ntt.SAMPLES * rated(a) // 16_000


def run(a, objective: dict[str, Any], sources: dict[str, Any], more: dict[str, Any]):
    recipe, rate = (LAPTOP if a.laptop else PUBLISHED)[a.stage], rated(a)
    data: dict[str, Any] = dict(
        sources=sources,
        batch_size=recipe["batch"],
        entries=dict(audio=entries.audio(samples(a), crop="random")) | more,
    )
    return runs.run(
        objective=objective,
        data=data | ({} if rate == 16_000 else dict(rate=rate)),
        optim=recipe["optim"],
        steps=recipe["steps"],
        checkpoint=Checkpoint(every="20%", keep=1),
        record=Record(every=20, figures="0"),
    )


def source(a, part: str) -> dict[str, Any]:
    """Return the training or test part of the task's data set."""
    task, rate = TASKS[a.task], rated(a)
    given = {} if rate == 16_000 else dict(rate=rate)
    if a.runlocal:
        return dict(kind="synthetic", size=32, seconds=1.0) | given
    if not a.root:
        raise ValueError(f"task {a.task}: say where the data is, with root=DIR.")
    found = task["source"] | dict(root=a.root) | given
    if "folds" not in task:
        return found | task[part]
    test, folds = a.fold or 1, range(1, task["folds"] + 1)
    if test not in folds:
        raise ValueError(f"fold {test}: task {a.task} has the folds 1 to {task['folds']}.")
    kept = (test,) if part == "test" else tuple(fold for fold in folds if fold != test)
    return found | dict(folds=kept)


def runlocal(config):
    """Shrink a run to four steps on synthetic sounds: a check that it runs."""
    config = runs.few_steps(config, config.data.entries.audio.samples)
    objective = config.objective
    objective.encoder.update(width=16, channels=4)
    if "views" in objective:
        objective.views.mixup.clips = 16
    if objective.kind == "deep_cluster":
        # So few clips that all have been heard before the last two steps.
        config.data.sources.synthetic.size = 16
        objective.update(clips=16, every=2, clusters=4)
        objective.projector.update(out=8, hidden=8)
    return config
