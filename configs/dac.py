"""DAC (Kumar et al. 2023, arXiv:2306.06546), Descript's audio codec: sound to codes and back.

Run:      ssl-audio train --config dac:data=SOUNDS --workdir runs/dac
Try:      ssl-audio train --config dac:runlocal --workdir runs/try
Laptop:   ssl-audio train --config dac:laptop,data=DIR,adversarial=false --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  adversarial=true|false (learn from discriminators, too)
Results:  experiments/dac/README.md; published weights: ssl-audio convert --from dac
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs
from ssl_audio.presets.codec import dac, laptop
from ssl_audio.train.optim import Optim

STEPS = 250_000
OPTIM = Optim(
    lr=1e-4,
    b1=0.8,
    b2=0.99,
    weight_decay=0.01,
    decay=".*",  # published: all parameters, also lengths, biases and codebooks
    schedule="exponential",
    gamma=0.999996,
    clip=1000.0,
)
LAPTOP = 3000
QUICK = Optim(lr=2e-3, b1=0.8, b2=0.99, warmup="2%", schedule="cosine", clip=1000.0)


def get_config(arg=""):
    a = parse_arg(arg, data="synthetic", adversarial=True, laptop=False, runlocal=False)
    if a.laptop:
        a.refuse("runlocal", "laptop is a run of its own")
    if a.laptop or a.runlocal:
        small = a.runlocal
        judged: Any = dict(
            periods=(2,) if small else (2, 3, 5, 7), windows=(128,) if small else (256, 128)
        )
        made = dac(
            rate=8000,
            strides=(4, 5) if small else (4, 5, 8),
            channels=4 if small else 8,
            decoder_channels=4 if small else 8,
            books=2 if small else 4,
            codes=16 if small else 64,
            inner=4 if small else 8,
            spectra=((64, 10), (256, 40)) if small else ((64, 10), (128, 20), (256, 40), (512, 64)),
            **(judged if a.adversarial else dict(periods=(), windows=())),
            widths=(4, 8) if small else (8, 16, 32, 32),
            filters=4 if small else 8,
            edges=(0.5,) if small else (0.1, 0.25, 0.5, 0.75),
        )
        config = laptop(made, a.data, steps=LAPTOP, optim=QUICK)
        return runs.few_steps(config, 2000) if small else config
    config = runs.pretrain(
        places=a.data,
        objective=dac(
            rate=44_100,
            strides=(2, 4, 8, 8),
            channels=64,
            decoder_channels=96,
            books=9,
            codes=1024,
            inner=8,
            spectra=tuple((32 * 2**i, 5 * 2**i) for i in range(7)),
            periods=(2, 3, 5, 7, 11) if a.adversarial else (),
            windows=(2048, 1024, 512) if a.adversarial else (),
            widths=(32, 128, 512, 1024, 1024),
            filters=32,
        ),
        batch=72,
        steps=STEPS,
        optim=OPTIM,
        seconds=0.38,
    )
    config.data.entries.audio.crop = "random"
    return config
