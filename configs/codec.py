"""EnCodec (Défossez et al. 2022, arXiv:2210.13438), as AudioGen has it: sound to codes and back.

Run:      ssl-audio train --config codec:data=AUDIOSET --workdir runs/codec
Try:      ssl-audio train --config codec:runlocal --workdir runs/try
Laptop:   ssl-audio train --config codec:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  adversarial=true|false (learn from a discriminator, too)
Results:  experiments/codec/README.md; published weights: ssl-audio convert --from encodec
"""

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs
from ssl_audio.presets.codec import laptop, objective
from ssl_audio.train.optim import Optim

STEPS = 200 * 2000
OPTIM = Optim(lr=3e-4, b1=0.5, b2=0.9)
LAPTOP = 6000
QUICK = Optim(lr=2e-3, b1=0.8, b2=0.99, warmup="2%", schedule="cosine")


def get_config(arg=""):
    a = parse_arg(arg, data="synthetic", adversarial=True, laptop=False, runlocal=False)
    if a.laptop:
        a.refuse("runlocal", "laptop is a run of its own")
    if a.laptop or a.runlocal:
        small = a.runlocal
        made = objective(
            rate=8000,
            strides=(4, 5) if small else (4, 5, 8),
            channels=4 if small else 16,
            width=8 if small else 64,
            books=2 if small else 4,
            codes=16 if small else 64,
            recurrent=1,
            windows=(64, 256) if small else (128, 256, 512),
            bins=32 if small else 64,
            judged=((128,) if small else (256, 128)) if a.adversarial else (),
            filters=4 if small else 8,
        )
        # Beside gradients of norm 1 for each of 16 clips. With more, vectors shrink before they mean
        # anything.
        made["commitment"] = 0.16
        made["wave"] = 0.01  # so few codes are for what is heard, not for phases
        made["quantizer"]["decay"] = 0.95  # entries must follow an encoder that moves fast
        config = laptop(made, a.data, steps=LAPTOP, optim=QUICK)
        return runs.few_steps(config, 2000) if small else config
    config = runs.pretrain(
        places=a.data,
        objective=objective(
            rate=16_000,
            strides=(2, 4, 5, 8),
            channels=64,
            width=128,
            books=4,
            codes=2048,
            recurrent=2,
            windows=(64, 128, 256, 512, 1024),
            bins=64,
            judged=(2048, 1024, 512, 256, 128) if a.adversarial else (),
            filters=32,
        ),
        batch=64,
        steps=STEPS,
        optim=OPTIM,
        seconds=1.0,
    )
    config.data.entries.audio.crop = "random"
    return config
