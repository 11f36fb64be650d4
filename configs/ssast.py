"""SSAST (Gong et al. 2022, arXiv:2110.09784): joint discriminative and generative masked patches.

Run:      ssl-audio train --workdir runs/ssast \\
              --config ssast:data=AUDIOSET+LIBRISPEECH
Try:      ssl-audio train --config ssast:runlocal --workdir runs/try
Laptop:   ssl-audio train --config ssast:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=tiny|small|base|large  patch=16x16|128x2  masked=400  encoder=ssast|ssamba|ssamba_rms
Results:  experiments/ssast/README.md
"""

from ssl_audio.config import parse_arg
from ssl_audio.presets import patch_encoders, runs
from ssl_audio.train.optim import Optim

# size: (batch, learning rate, updates between looks at the plateau); large is not published: as base.
RECIPES = {
    "tiny": (120, 5e-4, 800),
    "small": (60, 2e-4, 1600),
    "base": (24, 1e-4, 4000),
    "large": (24, 1e-4, 4000),
}


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        encoder="ssast",
        patch="16x16",
        masked=400,
        data="synthetic",
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    if a.size not in RECIPES:
        raise ValueError(f"size '{a.size}': wanted one of {', '.join(RECIPES)}.")
    if a.laptop:
        a.refuse("size patch masked runlocal", "laptop sets it")
        return runs.laptop(encoder=a.encoder, places=a.data)
    batch, lr, plateau = RECIPES[a.size]
    config = runs.pretrain(
        places=a.data,
        objective=runs.masked_spectrogram(
            encoder=a.encoder,
            size=a.size,
            patch=patch_encoders.shape(a.patch, "patch"),
            masked=a.masked,
        ),
        batch=batch,
        steps="10ep",
        optim=Optim(
            lr=lr,
            b1=0.95,
            b2=0.999,
            weight_decay=5e-7,
            coupled=True,
            decay=".*",
            warmup=1000,
            warmup_hold=50,
            plateau=plateau,
            patience=2,
            gamma=0.5,
        ),
    )
    if not a.runlocal:
        return config
    a.refuse("size masked", "runlocal sets it")
    return runs.runlocal(config)
