"""BAT (2026, arXiv:2602.16305): EAT with its own front end, gated attention, block targets, a ViT decoder.

Run:      ssl-audio train --config bat:data=AUDIOSET --workdir runs/bat
Try:      ssl-audio train --config bat:runlocal --workdir runs/try
Laptop:   ssl-audio train --config bat:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=base|large  encoder=bat|eat|vit|ssamba|ssamba_rms  decoder=vit|conv  target=block|mlp
          mel=clip|kaldi  clones=16
Results:  experiments/bat/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.frontend.fbank import STATS
from ssl_audio.presets import patch_encoders, runs
from ssl_audio.train.optim import Optim

# The encoder's sine table is not trained; the decoder's is.
FIXED = {"^encoder/positions/": 0.0}
MELS: dict[str, dict[str, Any]] = {
    "clip": dict(
        kind="mel",
        rate=16_000,
        bins=128,
        hop=160,
        window=1024,
        low=0.0,
        high=8000.0,
        scale="htk",
        area=False,
        top_db=80.0,
        per_clip=True,
        frames=1024,
    ),
    "kaldi": dict(kind="fbank", bins=128, **STATS["audioset"]),
}
DECODERS = ("vit", "conv")


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        encoder="bat",
        decoder="vit",
        target="block",
        mel="clip",
        clones=16,
        data="synthetic",
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    for name, known in (("mel", MELS), ("decoder", DECODERS)):
        if getattr(a, name) not in known:
            raise ValueError(f"{name} '{getattr(a, name)}': wanted one of {', '.join(known)}.")
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    frontend = MELS[a.mel]
    if a.laptop:
        a.refuse("size clones runlocal", "laptop sets it")
        # What goes from 0 to 1 says little beside the positions; 400 steps cannot learn to listen to it.
        scale = dict(mean=0.5, std=0.2) if a.mel == "clip" else {}
        made = objective(a, "mini", frontend | dict(bins=64, frames=496) | scale, 8, 2, 800)
        made["momentum"].update(start=0.998, end=0.9999)
        return runs.short(
            objective=made,
            places=a.data,
            samples=heard(made["frontend"]),
            batch=16,
            steps=400,
            optim=optimizer(lr=1e-3, warmup="10%"),
        )
    config = runs.pretrain(
        places=a.data,
        objective=objective(a, a.size, frontend, a.clones, 6, 100_000),
        batch=96,
        steps=400_000,
        optim=optimizer(lr=5e-4, warmup=53_000),
    )
    if a.runlocal:
        a.refuse("size clones", "runlocal sets it")
        config = runs.runlocal(config)
        config.data.entries.audio.samples = heard(config.objective.frontend)
        config.objective.clones = 2
        if a.decoder == "conv":
            config.objective.decoder.update(width=48, layers=2, groups=4)
        else:
            config.objective.decoder.trunk.width = 48  # a multiple of its heads
    return config


def heard(frontend) -> int:
    """Return the samples of a crop; frames of this mel are centred, the first on the first sample."""
    if frontend["kind"] == "mel":
        return frontend["hop"] * (frontend["frames"] - 1)
    return runs.crop(frontend, frontend["frames"])


def objective(a, size, frontend, clones, layers, following) -> dict[str, Any]:
    """Return the objective; the teacher becomes as slow as it gets within `following` updates."""
    parts = runs.parts(frontend=frontend, encoder=a.encoder, size=size)
    parts["encoder"]["drop_path"] = 0.0
    parts["encoder"]["positions"].update(start="sincos", special=False)
    return parts | dict(
        kind="latent_prediction",
        decoder=decoder(a, size, layers, parts["encoder"]["positions"]),
        masking=dict(kind="masking:InverseBlock", keep=0.2, side=5, more=0.07),
        clones=clones,
        utterance=1.0,
        noise=0.01,
        momentum=dict(start=0.9998, end=0.99999, steps=following, shape="linear"),
        target=a.target,
        scale="mean",
        augment=(dict(kind="waves:RollGain", beta=10.0),),
    )


def decoder(a, size, layers, positions) -> dict[str, Any]:
    """Return what predicts the hidden patches: a stack of the encoder's blocks, or EAT's convolutions."""
    width = patch_encoders.SIZES[size][0]
    if a.decoder == "conv":
        return dict(
            kind="decoders:ConvDecoder",
            width=width,
            layers=layers,
            kernel=3,
            groups=16 if width >= 768 else 4,
        )
    trunk = patch_encoders.encoder("bat", size, positions["grid"], layers)
    del trunk["positions"]
    return dict(
        kind="decoders:Decoder",
        trunk=trunk | dict(special=0, first_norm=None),
        positions=dict(kind="positions:Learned", grid=positions["grid"], start="sincos"),
        special=0,
        embed=False,  # both are as wide
        bias=False,
    )


def optimizer(lr, warmup) -> Optim:
    return Optim(
        lr=lr,
        b2=0.95,
        weight_decay=0.05,
        decay=".",
        warmup=warmup,
        schedule="cosine",
        rates=FIXED,
    )
