"""Audio-JEPA (Tuncay et al. 2025, arXiv:2507.02915): predict a teacher's features of hidden patches.

Run:      ssl-audio train --config audiojepa:data=AUDIOSET --workdir runs/audiojepa
Try:      ssl-audio train --config audiojepa:runlocal --workdir runs/try
Laptop:   ssl-audio train --config audiojepa:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=small|base|large
Results:  experiments/audiojepa/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.frontend.fbank import STATS
from ssl_audio.presets import runs
from ssl_audio.train.optim import Optim

FIXED = {"positions/": 0.0}  # the sine tables of encoder and predictor are not trained
NORM = dict(kind="norms:LayerNorm", eps=1e-5)
# 10 s are 510 frames of 48.8 ms, 19.5 ms apart, and 2 of padding; not normalised: mean 0, 2 std = 1.
FRONTEND: dict[str, Any] = dict(
    kind="fbank", rate=32_000, bins=96, hop=625, window=1562, frames=512, mean=0.0, std=0.5
)
LAPTOP: dict[str, Any] = dict(kind="fbank", bins=64, frames=496) | {
    name: STATS["audioset"][name] for name in ("mean", "std")
}


def get_config(arg=""):
    a = parse_arg(arg, size="base", data="synthetic", laptop=False, runlocal=False, pretrained="")
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    if a.laptop:
        a.refuse("size runlocal", "laptop sets it")
        return runs.short(
            objective=objective("mini", LAPTOP, 64, 2, 4, following=1000),
            places=a.data,
            batch=32,
            steps=1000,
            optim=optimizer(1.5e-3, "10%", 0.05),
        )
    config: Any = runs.pretrain(
        places=a.data,
        objective=objective(a.size, FRONTEND, 384, 6, 12, following=100_000),
        batch=256,
        steps=100_000,
        optim=optimizer(1e-3, 1000, 1e-6),
    )
    if not a.runlocal:
        return config
    a.refuse("size", "runlocal sets it")
    config = runs.runlocal(config)
    config.objective.decoder.trunk.block.mixer.heads = 4
    return config


def objective(size, frontend, width, depth, heads, following) -> dict[str, Any]:
    """Return the objective; width, depth and heads are the predictor's."""
    parts = runs.parts(frontend=dict(frontend), encoder="vit", size=size)
    encoder = parts["encoder"]
    positions = encoder["positions"] | dict(start="sincos", special=False)
    block = encoder["block"] | dict(norm=NORM)
    encoder |= dict(special=0, positions=positions, block=block, final_norm=NORM)
    return parts | dict(
        kind="context_prediction",
        decoder=dict(
            kind="set_predictor",
            trunk=dict(
                kind="stack",
                width=width,
                depth=depth,
                block=block | dict(mixer=dict(kind="attention", heads=heads)),
                final_norm=NORM,
            ),
            positions=positions,
        ),
        masking=dict(kind="contexts:Share", low=0.4, high=0.6),
        top=0,
        error="cosine",
        teacher=("tokenizer", "encoder"),
        momentum=dict(start=0.996, end=1.0, steps=following, shape="cosine"),
    )


def optimizer(lr, warmup, decay) -> Optim:
    return Optim(lr=lr, b2=0.95, weight_decay=decay, warmup=warmup, schedule="cosine", rates=FIXED)
