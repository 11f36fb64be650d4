"""BEATs and OpenBEATs (arXiv:2212.09058, 2507.14129): predict codes of masked patches, learn better codes.

Run:      ssl-audio stages --config openbeats:data=AUDIOSET --rounds 3 \\
              --workdir runs/openbeats    # encoder from random codes, tokenizer from it, encoder from that, …
          or one stage:  ssl-audio train --workdir runs/tokenizer --config \\
              openbeats:data=AUDIOSET,stage=tokenizer,previous=runs/encoder
Try:      ssl-audio train --config openbeats:runlocal --workdir runs/try
Laptop:   ssl-audio stages --config openbeats:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=tiny|base|large  stage=encoder|tokenizer  previous=FOLDER (of the stage before; for the
          encoder none: random codes)
Results:  experiments/openbeats/README.md; published weights: ssl-audio convert --from beats
"""

import dataclasses
from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs, speech
from ssl_audio.train.optim import Optim

STAGES = ("encoder", "tokenizer")  # `ssl_audio.train.stages` goes through them in turn
# Constants of OpenBEATs' data; BEATs: 15.41663, 6.55582.
FRONTEND = dict(
    kind="fbank", taper=0.85, scale=32768.0, remove_mean=False, mean=15.66439, std=6.38312
)
PATCH = (16, 16)


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        data="synthetic",
        stage="encoder",
        previous="",
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    if a.stage not in STAGES:
        raise ValueError(f"stage={a.stage}: wanted one of {', '.join(STAGES)}.")
    small = a.laptop or a.runlocal
    if small:
        a.refuse("size", "laptop and runlocal set it")
    size = "tiny" if small else a.size
    width, _, heads, _ = speech.sized(size)
    frames = 128 if a.laptop else 64 if a.runlocal else 1024
    codes, vector = (64, 32) if small else (1024, 256)
    patches = dict(kind="patchify", width=width if small else 512, patch=PATCH, stride=PATCH)
    frontend = FRONTEND | dict(bins=128, frames=frames)
    shared = dict(
        frontend=frontend,
        tokenizer=dict(
            kind="waveform:Projected", tokenizer=patches | dict(bias=False), width=width
        ),
        encoder=speech.beats_encoder(size),
    )
    before = dict(kind="ssl_audio.inference.frozen:Frozen", path=a.previous)
    if a.stage == "tokenizer":
        if not a.previous:
            raise ValueError("stage=tokenizer: name the encoder to learn from, previous=FOLDER.")
        objective: dict[str, Any] = dict(
            kind="distill_codes",
            **shared,
            quantizer=dict(kind="codebooks:Cosine", hidden=width, codes=codes, width=vector),
            estimator=speech.beats_stack(width, 3, heads),
            teacher=before,
            decay=0.99,
            commitment=1.0,
        )
    else:
        random = dict(
            kind="features",
            frontend=frontend,
            tokenizer=dict(kind="patchify:Cut", patch=PATCH, stride=PATCH),
            encoder=dict(kind="identity"),
            quantizer=dict(kind="codebooks:RandomProjection", codes=codes, width=vector),
        )
        objective = dict(
            kind="token_predict",
            **shared,
            masking=dict(kind="masking:Random", count=0.75),
            targets=dict(codes=before if a.previous else random),
            heads=dict(codes=dict(kind="codes:Codes", codes=codes)),
            predictor=speech.beats_predictor(size),
            smoothing=0.1,
        )
    if a.laptop:
        a.refuse("runlocal", "laptop is a run of its own")
        return runs.short(
            objective=objective,
            places=a.data,
            samples=400 + 160 * (frames - 1),
            steps=3000,
            # At 4e-4 it stays with the most frequent codes.
            optim=dataclasses.replace(runs.LAPTOP_OPTIM, lr=1.5e-4),
        )
    optim = Optim(
        lr=1e-4 if size == "large" else 5e-4,
        b2=0.98,
        weight_decay=0.01,
        warmup="10%" if size == "large" else "8%",
        schedule="linear",
    )
    config: Any = runs.pretrain(
        places=a.data, objective=objective, batch=560, steps=400_000, optim=optim
    )
    if a.runlocal:
        config.objective.encoder.update(depth=2, remat="none")
        config.optim.lr = 1e-5  # its losses must not tell one machine from another
        return runs.few_steps(config, runs.crop(frontend, frames))
    return config
