"""WavJEPA (Yuksel et al. 2025, arXiv:2509.23238): predict a teacher's latents of the waveform from a context.

Run:      ssl-audio train --config wavjepa:data=AUDIOSET --workdir runs/wavjepa
Try:      ssl-audio train --config wavjepa:runlocal --workdir runs/try
Laptop:   ssl-audio train --config wavjepa:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=tiny|base|large
Results:  experiments/wavjepa/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs, speech
from ssl_audio.train.optim import Optim

FIXED = {"positions/": 0.0}  # the sine tables of encoder and predictor are not trained
CROP = 32_160  # samples: 2.01 s, 200 tokens
# size: width, depth and heads of the predictor
PREDICTORS = {"tiny": (96, 4, 3), "base": (384, 12, 12), "large": (384, 12, 12)}


def get_config(arg=""):
    a = parse_arg(arg, size="base", data="synthetic", laptop=False, runlocal=False, pretrained="")
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    if a.laptop:
        a.refuse("size runlocal", "laptop sets it")
        made = objective("tiny", columns=129)
        made |= dict(top=3, momentum=dict(start=0.99, end=0.999, steps=500, shape="linear"))
        return runs.short(
            objective=made, places=a.data, samples=20_720, steps=2000, optim=optimizer(4e-4, "10%")
        )
    if a.runlocal:
        a.refuse("size", "runlocal sets it")
    config: Any = runs.pretrain(
        places=a.data,
        objective=objective("tiny" if a.runlocal else a.size, columns=99 if a.runlocal else 200),
        batch=512,
        steps=375_000,
        optim=optimizer(4e-4, 100_000),
        seconds=CROP / 16_000,
    )
    config.data.entries.audio.crop = "random"
    if not a.runlocal:
        return config
    config.objective.encoder.update(depth=2, remat="none")
    config.objective.decoder.trunk.update(depth=1, remat="none")
    config.objective.top = 2
    config.optim.lr = 1e-5  # its losses must not tell one machine from another
    return runs.few_steps(config, 16_000)


def objective(size, columns) -> dict[str, Any]:
    """Return the objective, for crops of so many tokens."""
    tokenizer = speech.waveform(size, norm="group")
    channels = speech.sized(size)[3]
    tokenizer["tokenizer"] |= dict(
        widths=(channels,) * 6,
        kernels=(10, 3, 3, 3, 3, 2),
        strides=(5, 2, 2, 2, 2, 2),
        bias=False,
    )
    positions = dict(
        kind="positions:Learned", grid=(1, columns), start="sincos_time", special=False
    )
    encoder = speech.speech_encoder(size, positions)
    norm = dict(kind="norms:LayerNorm", eps=1e-6)
    block = encoder["block"] | dict(kind="post_norm", norm=norm)
    width, depth, heads = PREDICTORS[size]
    return dict(
        kind="context_prediction",
        frontend=dict(kind="raw"),
        tokenizer=tokenizer,
        encoder=encoder | dict(block=block, first_norm=None, final_norm=speech.NORM),
        decoder=dict(
            kind="set_predictor",
            trunk=dict(
                kind="stack",
                width=width,
                depth=depth,
                block=block | dict(mixer=dict(kind="attention", heads=heads)),
                final_norm=speech.NORM,
            ),
            positions=positions,
        ),
        masking=dict(
            kind="contexts:SpanSets", hidden=0.65, target=0.25, length=10, sets=4, least=0.1
        ),
        top=8,
        error="square",
        teacher=("encoder",),
        momentum=dict(start=0.999, end=0.99999, steps=100_000, shape="linear"),
    )


def optimizer(lr, warmup) -> Optim:
    return Optim(
        lr=lr, b2=0.98, eps=1e-6, weight_decay=0.04, warmup=warmup, schedule="cosine", clip=5.0,
        rates=FIXED,
    )  # fmt: skip
