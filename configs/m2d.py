"""M2D (Niizumi et al. 2022, arXiv:2210.14648): predict what a teacher makes of the hidden patches alone.

Run:      python -m ssl_audio.train --config configs/m2d.py:data=AUDIOSET --workdir runs/m2d
Try:      python -m ssl_audio.train --config configs/m2d.py:runlocal --workdir runs/try
Laptop:   python -m ssl_audio.train --config configs/m2d.py:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=small|base|large  encoder=vit|ssamba|ssamba_rms
Results:  experiments/m2d/README.md
"""

import math
from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs
from ssl_audio.train.optim import Optim

EPOCH = 2_042_985 // 2048  # updates: the clips of AudioSet over the batch
DB = 10 / math.log(10)  # the published mean and deviation are of natural logarithms
FRONTEND: dict[str, Any] = dict(
    kind="mel", rate=16_000, bins=80, hop=160, window=400, low=50.0, high=8000.0, floor=2.0**-23,
    frames=608, mean=-7.1 * DB, std=4.2 * DB,
)  # fmt: skip
# Mean and deviation, dB, of ESC-10 and spoken digits, heard equally often.
LAPTOP: dict[str, Any] = dict(bins=64, frames=496, mean=-42.0, std=21.0)
FIXED = {"positions/": 0.0}  # the sine tables of encoder and predictor are not trained
NORM = dict(kind="norms:LayerNorm", eps=1e-6)


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
    if a.laptop:
        a.refuse("size runlocal", "laptop sets it")
        made = objective(a.encoder, "mini", FRONTEND | LAPTOP, 64, 2, 4)
        made["momentum"].update(start=0.997, end=0.9995, steps=1000)
        return runs.short(
            objective=made,
            places=a.data,
            batch=32,
            steps=1000,
            optim=optimizer(lr=1.5e-3, warmup="10%"),
        )
    config: Any = runs.pretrain(
        places=a.data,
        objective=objective(a.encoder, a.size, FRONTEND, 512, 8, 16),
        batch=2048,
        steps=300 * EPOCH,
        optim=optimizer(lr=2.4e-3, warmup=20 * EPOCH),
        seconds=6.08,
    )
    config.data.entries.audio.crop = "random"
    if not a.runlocal:
        return config
    a.refuse("size", "runlocal sets it")
    return runs.runlocal(config)


def objective(encoder, size, frontend, width, depth, heads) -> dict[str, Any]:
    """Return the objective; width, depth and heads are the predictor's."""
    parts = runs.parts(frontend=dict(frontend), encoder=encoder, size=size)
    parts["encoder"]["drop_path"] = 0.0
    positions = parts["encoder"]["positions"] | dict(start="sincos")
    parts["encoder"]["positions"] = positions | dict(special=False)
    block = dict(
        kind="blocks:PreNorm", mixer=dict(kind="attention", heads=heads), norm=NORM, mlp=4.0
    )
    return parts | dict(
        kind="masked_modeling_duo",
        decoder=dict(
            kind="decoders:Decoder",
            trunk=dict(kind="stack", width=width, depth=depth, block=block, final_norm=NORM),
            positions=positions,
            special=1,
        ),
        masking=dict(kind="masking:Random", count=0.7),
        momentum=dict(start=0.99995, end=0.99999, steps=300 * EPOCH, shape="linear"),
    )


def optimizer(lr, warmup) -> Optim:
    return Optim(
        lr=lr, b2=0.95, weight_decay=0.05, warmup=warmup, schedule="cosine", clip=3.0, rates=FIXED
    )
