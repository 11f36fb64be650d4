"""SSLAM (Alex et al. 2025, ICLR, openreview.net/forum?id=odU59TxdiB): EAT, continued on mixtures of clips.

Run:      ssl-audio train --config sslam:pretrained=runs/eat,data=AUDIOSET --workdir runs/sslam
Try:      ssl-audio train --config sslam:runlocal --workdir runs/try
Laptop:   ssl-audio train --config sslam:laptop,pretrained=runs/eat,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=base|large  encoder=eat|vit|ssamba|ssamba_rms  clones=8  pretrained=RUN: a run of eat
Results:  experiments/sslam/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg, plain
from ssl_audio.frontend.fbank import STATS
from ssl_audio.presets import runs
from ssl_audio.storage import written
from ssl_audio.train.optim import Optim

FIXED = {"positions/": 0.0}  # the sine table is not trained


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        encoder="eat",
        clones=8,
        data="synthetic",
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    config: Any = runs.from_pretrained(fresh(a), a)
    # The decoder goes on, too, where the other run had one of the same kind.
    old = written.trained(a.pretrained).get("decoder", {}) if a.pretrained else {}
    if old.get("kind") == config.objective.decoder.kind:
        with config.unlocked():
            config.objective.decoder = plain(old)
            config.warm_start.encoder.take = "^(tokenizer|encoder|decoder)/"
    return config


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    frontend: dict[str, Any] = dict(kind="fbank", bins=128, **STATS["audioset"])
    if a.laptop:
        a.refuse("size clones runlocal", "laptop sets it")
        made = objective(a.encoder, "mini", frontend | dict(bins=64, frames=496), 4, 800)
        made["decoder"].update(layers=2, groups=4)
        made["momentum"].update(start=0.998, end=0.9999)
        return runs.short(
            objective=made,
            places=a.data,
            batch=16,
            steps=200,
            optim=optimizer(lr=3e-4, warmup="10%"),
        )
    config = runs.pretrain(
        places=a.data,
        objective=objective(a.encoder, a.size, frontend, a.clones, 100_000),
        batch=48,
        steps=200_000,
        optim=optimizer(lr=5e-5, warmup=25_000),
    )
    if a.runlocal:
        a.refuse("size clones", "runlocal sets it")
        config = runs.runlocal(config)
        config.objective.update(clones=2, unmixed=0.5)
        config.objective.decoder.update(width=48, layers=2, groups=4)
    return config


def objective(encoder, size, frontend, clones, following) -> dict[str, Any]:
    """Return the objective; the teacher becomes as slow as it gets within `following` updates."""
    parts = runs.parts(frontend=frontend, encoder=encoder, size=size)
    parts["encoder"]["drop_path"] = 0.0
    parts["encoder"]["positions"].update(start="sincos", special=False)
    return parts | dict(
        kind="retention",
        decoder=dict(
            kind="decoders:ConvDecoder",
            width=parts["encoder"]["width"],
            layers=6,
            kernel=3,
            groups=16,
        ),
        masking=dict(kind="masking:InverseBlock", keep=0.2, side=5, more=0.07),
        clones=clones,
        utterance=1.0,
        noise=0.01,
        momentum=dict(start=0.9998, end=0.99999, steps=following, shape="linear"),
        unmixed=0.46875,
        retention=1.0,
    )


def optimizer(lr, warmup) -> Optim:
    return Optim(
        lr=lr, b2=0.95, weight_decay=0.05, warmup=warmup, schedule="cosine", clip=4.0, rates=FIXED
    )
