"""Bird-MAE (Rauch et al. 2025, arXiv:2504.12880): a masked autoencoder of bird sound at 32 kHz.

Run:      ssl-audio train --config birdmae:data=XENO_CANTO --workdir runs/birdmae
Try:      ssl-audio train --config birdmae:runlocal --workdir runs/try
Laptop:   ssl-audio train --config birdmae:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=base|large|huge  encoder=vit|ssamba|ssamba_rms
Results:  experiments/birdmae/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs
from ssl_audio.train.optim import Optim

FRONTEND: dict[str, Any] = dict(
    kind="fbank", rate=32_000, hop=320, window=800, bins=128, frames=512, padding="lowest",
    mean=-7.2, std=4.43,
)  # fmt: skip
FIXED = {"positions/": 0.0}  # the sine tables of encoder and decoder are not trained
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
        made = objective(a.encoder, "mini", FRONTEND | dict(bins=64, frames=496), 64, 2, 4)
        return runs.short(
            objective=made,
            places=a.data,
            batch=32,
            steps=1000,
            optim=optimizer(lr=1.5e-3, weight_decay=0.05, warmup="10%"),
        )
    config = runs.pretrain(
        places=a.data,
        objective=objective(a.encoder, a.size, FRONTEND, 512, 8, 16),
        batch=1024,
        steps="150ep",
        optim=optimizer(lr=4e-4, weight_decay=1e-4, warmup="9.4%"),
        seconds=5.0,
    )
    if not a.runlocal:
        return config
    a.refuse("size", "runlocal sets it")
    return runs.runlocal(config)


def objective(encoder, size, frontend, width, depth, heads) -> dict[str, Any]:
    """Return the objective; width, depth and heads are the decoder's."""
    parts = runs.parts(frontend=dict(frontend), encoder=encoder, size=size)
    parts["encoder"]["positions"]["start"] = "sincos"
    block = dict(
        kind="blocks:PreNorm", mixer=dict(kind="attention", heads=heads), norm=NORM, mlp=4.0
    )
    return parts | dict(
        kind="mae",
        decoder=dict(
            kind="decoders:Decoder",
            trunk=dict(kind="stack", width=width, depth=depth, block=block, final_norm=NORM),
            positions=dict(parts["encoder"]["positions"]),
            special=1,
        ),
        masking=dict(kind="masking:Random", count=0.75),
        standardise=True,
        augment=(
            dict(kind="waves:Mixture", share=0.3, most=3, low=5.0, high=25.0),
            dict(kind="waves:RollGain", beta=10.0),
        ),
    )


def optimizer(**options) -> Optim:
    return Optim(b2=0.95, schedule="cosine", clip=1.0, rates=FIXED, **options)
