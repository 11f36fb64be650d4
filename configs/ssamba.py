"""SSAMBA (Shams et al. 2024, arXiv:2405.11831): SSAST's task on a bidirectional Mamba encoder.

Run:      ssl-audio train --workdir runs/ssamba \\
              --config ssamba:data=AUDIOSET+LIBRISPEECH
Try:      ssl-audio train --config ssamba:runlocal --workdir runs/try
Laptop:   ssl-audio train --config ssamba:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=tiny|small|base|large  masked=300  encoder=ssamba|ssamba_rms|ssast
Results:  experiments/ssamba/README.md
"""

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs
from ssl_audio.train.optim import Optim


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        encoder="ssamba",
        masked=300,
        data="synthetic",
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    if a.laptop:
        a.refuse("size masked runlocal", "laptop sets it")
        return runs.laptop(encoder=a.encoder, places=a.data)
    config = runs.pretrain(
        places=a.data,
        objective=runs.masked_spectrogram(
            encoder=a.encoder,
            size=a.size,
            patch=(16, 16),
            masked=a.masked,
        ),
        batch=64,
        steps="10ep",
        optim=Optim(
            lr=1e-4,
            b1=0.95,
            b2=0.999,
            weight_decay=5e-8,
            decay=".*",
            warmup=1000,
            warmup_hold=50,
            plateau=4000,
            patience=2,
            gamma=0.5,
        ),
    )
    if not a.runlocal:
        return config
    a.refuse("size masked", "runlocal sets it")
    return runs.runlocal(config)
