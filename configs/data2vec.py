"""data2vec (Baevski et al. 2022, arXiv:2202.03555) on speech: a moving average's latents, regressed.

Run:      ssl-audio train --config data2vec:data=LIBRISPEECH --workdir runs/data2vec
Try:      ssl-audio train --config data2vec:runlocal --workdir runs/try
Laptop:   ssl-audio train --config data2vec:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=tiny|base|large
Results:  experiments/data2vec/README.md; published weights: ssl-audio convert --from hf_data2vec
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs, speech
from ssl_audio.train.optim import Optim


def get_config(arg=""):
    a = parse_arg(arg, size="base", data="synthetic", laptop=False, runlocal=False, pretrained="")
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    small = a.laptop or a.runlocal
    if small:
        a.refuse("size", "laptop and runlocal set it")
    size = "tiny" if small else a.size
    groups = 4 if size == "tiny" else 16
    positions = dict(kind="convolutions", depth=5, size=19, groups=groups)
    objective: dict[str, Any] = dict(
        kind="latent_regress",
        frontend=dict(kind="raw"),
        tokenizer=speech.waveform(size, norm="layer"),
        encoder=speech.speech_encoder(size, positions),
        masking=dict(kind="masking:Spans", count=0.49, length=10),
        top=8,
        beta=0.0,
        decay=(0.999, 0.9999, 30_000),
    )
    if small:
        objective |= dict(top=3, decay=(0.99, 0.999, 500))
    if a.laptop:
        a.refuse("runlocal", "laptop is a run of its own")
        return runs.short(objective=objective, places=a.data, **runs.LAPTOP_SPEECH)
    optim = Optim(lr=5e-4, b2=0.98, eps=1e-6, weight_decay=0.01, warmup="3%", schedule="cosine")
    config: Any = runs.pretrain(
        places=a.data, objective=objective, batch=256, steps=400_000, optim=optim
    )
    config.data.entries.audio.update(samples=250_000, crop="random")
    if a.runlocal:
        config.objective.encoder.update(depth=2, remat="none")
        config.objective.top = 2
        config.optim.lr = 1e-5  # its losses must not tell one machine from another
        return runs.few_steps(config, 16_000)
    return config
