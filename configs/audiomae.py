"""Audio-MAE (Huang et al. 2022, arXiv:2207.06405): encode a fifth of the patches, restore the rest.

Run:      ssl-audio train --config audiomae:data=AUDIOSET --workdir runs/audiomae
Try:      ssl-audio train --config audiomae:runlocal --workdir runs/try
Laptop:   ssl-audio train --config audiomae:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=small|base|large  decoder=local|global  masking=random|structured
          encoder=vit|ssamba|ssamba_rms
Results:  experiments/audiomae/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.frontend.fbank import STATS
from ssl_audio.presets import runs
from ssl_audio.train.optim import Optim

MASKING = {
    "random": dict(kind="masking:Random", count=0.8),
    "structured": dict(kind="masking:TimeFrequency", time=0.7, freq=0.3),
}
FIXED = {"positions/": 0.0}  # the sine tables of encoder and decoder are not trained
NORM = dict(kind="norms:LayerNorm", eps=1e-6)


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        encoder="vit",
        decoder="local",
        masking="random",
        data="synthetic",
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    if a.masking not in MASKING:
        raise ValueError(f"masking '{a.masking}': wanted one of {', '.join(MASKING)}.")
    frontend: dict[str, Any] = dict(kind="fbank", bins=128, **STATS["audioset"])
    if a.laptop:
        a.refuse("size runlocal", "laptop sets it")
        return laptop(a, frontend)
    config = runs.pretrain(
        places=a.data,
        objective=objective(a, frontend, a.size, width=512),
        batch=512,
        steps="32ep",
        optim=Optim(
            lr=4e-4,
            b2=0.95,
            weight_decay=1e-4,
            warmup="3ep",
            schedule="cosine",
            rates=FIXED,
        ),
    )
    if not a.runlocal:
        return config
    a.refuse("size", "runlocal sets it")
    return runs.runlocal(config)


def objective(a, frontend, size, width) -> dict[str, Any]:
    parts = runs.parts(frontend=frontend, encoder=a.encoder, size=size)
    parts["encoder"]["positions"]["start"] = "sincos"
    grid = parts["encoder"]["positions"]["grid"]
    return parts | dict(
        kind="mae",
        decoder=decoder(a.decoder, grid, width),
        masking=dict(MASKING[a.masking]),
        standardise=True,
        augment=(dict(kind="waves:RollGain", beta=10.0),),
    )


def decoder(name, grid, width, depth=None, heads=16) -> dict[str, Any]:
    """Return the config of a decoder: shifted windows ("local", without cls) or all tokens ("global")."""
    local = dict(
        kind="windows:ShiftedPair",
        mixer=dict(kind="windows:WindowAttention", heads=heads, rows=grid[0], window=(4, 4)),
        shift=2,
    )
    whole = dict(kind="blocks:PreNorm", mixer=dict(kind="attention", heads=heads))
    choices = {"local": (local, 16, 0), "global": (whole, 8, 1)}
    if name not in choices:
        raise ValueError(f"decoder '{name}': wanted one of {', '.join(choices)}.")
    block, layers, special = choices[name]
    return dict(
        kind="decoders:Decoder",
        trunk=dict(
            kind="stack",
            width=width,
            depth=depth or layers,
            block=block | dict(norm=NORM, mlp=4.0),
            final_norm=NORM,
        ),
        positions=dict(kind="positions:Learned", grid=grid, start="sincos"),
        special=special,
    )


def laptop(a, frontend):
    """Return a run of about ten minutes on two cores: 5-s clips of 64 bins, a small decoder."""
    made = objective(a, frontend | dict(bins=64, frames=496), "mini", width=64)
    if a.masking == "random":
        made["masking"]["count"] = 0.75
    grid = made["encoder"]["positions"]["grid"]
    made["decoder"] = decoder(a.decoder, grid, width=64, depth=2, heads=4)
    return runs.short(
        objective=made,
        places=a.data,
        batch=32,
        steps=1000,
        optim=Optim(
            lr=1.5e-3, b2=0.95, weight_decay=0.05, warmup="10%", schedule="cosine", rates=FIXED
        ),
    )
