"""Latent diffusion, as Stable Audio Open (Evans et al. 2024, arXiv:2407.14358) and Synthio: words to sound.

Run:      ssl-audio train --config diffusion:data=CAPTIONS.csv,autoencoder=RUN --workdir runs/diffusion
Laptop:   ssl-audio train --config diffusion:laptop,data=CAPTIONS.csv --workdir runs/laptop
Then:     ssl-audio train --config diffusion:laptop,data=PAIRS.csv,pretrained=runs/laptop --workdir runs/dpo
Try:      ssl-audio train --config diffusion:runlocal --workdir runs/try
Data:     a table with columns path, text; with pretrained= also rejected; default: synthetic sounds, labels
Options:  size=base|stable  autoencoder=RUN (of stage=autoencoder, or Oobleck converted; default: log-mels,
          and Griffin and Lim's way back)  pretrained=RUN (learn what is preferred: Diffusion-DPO)
          stage=autoencoder: train Oobleck on sounds, which need no words
Results:  experiments/diffusion/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import diffusion, runs


def get_config(arg=""):
    a = parse_arg(
        arg, data="synthetic", stage="model", size="base", autoencoder="", pretrained="", laptop=False,
        runlocal=False,
    )  # fmt: skip
    if a.laptop:
        a.refuse("runlocal", "laptop is a run of its own")
    small = a.laptop or a.runlocal
    if small:
        a.refuse("size", "laptop and runlocal set it")
    config: Any
    if a.stage == "autoencoder":
        a.refuse("size autoencoder pretrained", "it is for the model")
        config = diffusion.oobleck(a.data, small=small, channels=4 if a.runlocal else 0)
    elif a.stage != "model":
        raise ValueError(f"stage '{a.stage}': wanted model or autoencoder.")
    elif a.pretrained:
        a.refuse("size autoencoder runlocal", "the model is that of pretrained=RUN")
        config = diffusion.preference(a.data, a.pretrained, small=small)
    else:
        if a.size not in ("base", "stable"):
            raise ValueError(f"size '{a.size}': wanted base or stable.")
        size = "tiny" if a.runlocal else "laptop" if a.laptop else a.size
        config = diffusion.model(a.data, size=size, autoencoder=a.autoencoder, small=small)
    return runs.few_steps(config, 3200) if a.runlocal else config
