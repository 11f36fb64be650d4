"""Distil any trained or converted encoder into a small one of any kind; after USAD (arXiv:2506.18843).

Run:      ssl-audio train --workdir runs/student --config distill:teacher=FOLDER,data=AUDIOSET
Try:      ssl-audio train --config distill:runlocal --workdir runs/try
Laptop:   ssl-audio convert --from whisper --checkpoint FOLDER --out runs/whisper
          ssl-audio train --workdir runs/student \\
              --config distill:laptop,teacher=runs/whisper,encoder=ssamba,data=DIR+DIR+synthetic
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  teacher=FOLDER (a run, an exported or a converted one; several with "+"; default: an untrained
          network, to try)  pairs=4 (layers that are taught, evenly)
          encoder=ssast|vit|ssamba|ssamba_rms  size=mini|tiny|small  depth=N
          patch=128x2 (20 ms a token; 128x4: half the tokens)
Results:  experiments/distill/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import distillation, patch_encoders, runs
from ssl_audio.storage import written
from ssl_audio.train.optim import Optim

# SSAMBA's layers have no perceptrons, and come in pairs.
LAPTOP_DEPTH = {"ssamba": 12, "ssamba_rms": 12}


def get_config(arg=""):
    a = parse_arg(
        arg,
        teacher="",
        pairs=4,
        encoder="ssast",
        size="tiny",
        depth=0,
        patch="128x2",
        data="synthetic",
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    if a.runlocal:
        a.refuse("size depth pairs laptop", "runlocal sets it")
        a.depth, a.pairs = 2, 1
        return runs.runlocal(pretrained(a, 64))
    if not a.laptop:
        return pretrained(a, 1024)
    depth = a.depth or LAPTOP_DEPTH.get(a.encoder, 6)
    return runs.short(objective=objective(a, depth, 512), places=a.data, steps=2000)


def pretrained(a, frames):
    """Return a run on clips of 10 s, with the numbers of the paper's small student."""
    optim = Optim(lr=8e-4, b2=0.98, weight_decay=0.01, warmup=8000, schedule="linear", clip=1.0)
    return runs.pretrain(
        places=a.data,
        objective=objective(a, a.depth or None, frames),
        batch=80,
        steps=400_000,
        optim=optim,
    )


def objective(a, depth, frames) -> dict[str, Any]:
    """Return the objective."""
    parts = runs.parts(
        frontend=dict(kind="fbank", bins=128, frames=frames),
        encoder=a.encoder,
        size=a.size,
        patch=patch_encoders.shape(a.patch, "patch"),
        depth=depth,
    )
    parts["encoder"]["drop_path"] = 0.0
    parts["encoder"]["positions"]["start"] = runs.LAPTOP_POSITIONS.get(a.encoder, "normal")
    student = written.architecture(a.pretrained)["encoder"] if a.pretrained else parts["encoder"]
    teachers = distillation.named(a.teacher)
    return parts | distillation.taught(student, teachers, a.pairs, hidden=384, standardise=True)
