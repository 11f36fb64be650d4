"""ASiT (Atito et al. 2022, arXiv:2211.13189): local and global self-distillation with reconstruction.

Run:      ssl-audio train --config asit:data=AUDIOSET --workdir runs/asit
Try:      ssl-audio train --config asit:runlocal --workdir runs/try
Laptop:   ssl-audio train --config asit:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=small|base|large  encoder=vit|ssamba|ssamba_rms
Results:  experiments/asit/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.frontend.fbank import STATS
from ssl_audio.presets import runs
from ssl_audio.train.optim import Optim

EPOCH = 2_042_985 // 128  # updates: the clips of AudioSet over the batch


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        encoder="vit",
        data="synthetic",
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    frontend: dict[str, Any] = dict(kind="fbank", bins=128, **STATS["audioset"])
    frontend["frames"] = 592
    if a.laptop:
        a.refuse("size runlocal", "laptop sets it")
        frames, steps = 192, 1000
        return runs.short(
            objective=objective(
                a.encoder, "mini", frontend | dict(bins=64, frames=frames), steps, steps // 3,
                clip=512, patch=256, hidden=256, bottleneck=64, pixels=(128, 64),
            ),
            places=a.data,
            batch=16,
            steps=steps,
            samples=runs.crop(frontend, 2 * frames),
            optim=Optim(lr=5e-4, weight_decay=0.04, warmup="10%", schedule="cosine", clip=3.0),
        )  # fmt: skip
    config = runs.pretrain(
        places=a.data,
        objective=objective(
            a.encoder, a.size, frontend, 100 * EPOCH, 30 * EPOCH,
            clip=8192, patch=1024, hidden=2048, bottleneck=256, pixels=(768, 128), drop_path=0.1,
        ),
        batch=128,
        steps=100 * EPOCH,
        optim=Optim(lr=2.5e-4, weight_decay=0.04, warmup="10%", schedule="cosine", clip=3.0),
    )  # fmt: skip
    if not a.runlocal:
        return config
    a.refuse("size", "runlocal sets it")
    return runlocal(config)


def objective(
    encoder,
    size,
    frontend,
    steps,
    heating,
    *,
    clip,
    patch,
    hidden,
    bottleneck,
    pixels,
    drop_path=0.0,
) -> dict[str, Any]:
    """Return the objective; the teacher stops after `steps`, its temperature rises for `heating`."""
    parts = runs.parts(frontend=frontend, encoder=encoder, size=size)
    parts["encoder"]["drop_path"] = drop_path
    hop, window = 160, 400
    return parts | dict(
        kind="self_distill",
        projector=dict(
            kind="distill:DistillHead", clip=clip, patch=patch, hidden=hidden, bottleneck=bottleneck
        ),
        decoder=dict(kind="distill:PixelHead", hidden=pixels[0], bottleneck=pixels[1]),
        corruption=dict(
            kind="corrupt:GroupMask", least=0.5, most=0.7, alien=0.5, alien_share=0.3, side=0.3
        ),
        crop=window + hop * (frontend["frames"] - 1),
        roll=0.5,
        temperature=dict(start=0.04, end=0.07, steps=heating),
        student_temperature=0.1,
        centring=0.9,
        momentum=dict(start=0.996, end=1.0, steps=steps, shape="cosine"),
        clip=1.0,
        patch=1.0,
        restore=2.0,
    )


def runlocal(config):
    """Shrink to four steps on synthetic sounds."""
    config = runs.runlocal(config)
    config.data.entries.audio.samples = 16_000  # from which two crops are taken
    config.objective.crop = 400 + 160 * (config.objective.frontend.frames - 1)
    config.objective.projector.update(clip=24, patch=20, hidden=32, bottleneck=16)
    config.objective.decoder.update(hidden=32, bottleneck=16)
    return config
