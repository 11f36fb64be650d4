"""wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477): contrast of quantised latents of masked speech.

Run:      ssl-audio train --config wav2vec2:data=LIBRISPEECH --workdir runs/wav2vec2
Try:      ssl-audio train --config wav2vec2:runlocal --workdir runs/try
Laptop:   ssl-audio train --config wav2vec2:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=tiny|base|large
Results:  experiments/wav2vec2/README.md; published weights: ssl-audio convert --from hf_wav2vec2
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs, speech
from ssl_audio.train.optim import Optim

# size: (samples of a clip, clips in a batch, updates, learning rate)
PUBLISHED = {
    "tiny": (250_000, 64, 100_000, 5e-4),
    "base": (250_000, 368, 400_000, 5e-4),
    "large": (320_000, 488, 250_000, 3e-4),
}


def get_config(arg=""):
    a = parse_arg(arg, size="base", data="synthetic", laptop=False, runlocal=False, pretrained="")
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    if a.size not in PUBLISHED:
        raise ValueError(f"size '{a.size}': wanted one of {', '.join(PUBLISHED)}.")
    small = a.laptop or a.runlocal
    if small:
        a.refuse("size", "laptop and runlocal set it")
    size = "tiny" if small else a.size
    objective: dict[str, Any] = dict(
        kind="latent_contrast",
        frontend=dict(kind="raw"),
        tokenizer=speech.waveform(size, gradient=1.0 if size == "large" else 0.1),
        encoder=speech.speech_encoder(size),
        masking=dict(kind="masking:Spans", count=0.49, length=10),
        quantizer=dict(kind="codebooks:Gumbel", groups=2, codes=320, width=256),
        width=256,
        negatives=100,
        temperature=0.1,
        diversity=0.1,
        penalty=10.0,
        draw=(2.0, 0.5, 0.999995),
    )
    if small:
        # A few hundred steps are too few for convolutions that learn a tenth as fast, and for codes and
        # gaps that only much sound makes predictable: so few codes, short gaps.
        objective["tokenizer"]["tokenizer"]["gradient"] = 1.0
        objective["masking"]["length"] = 3
        objective["quantizer"] |= dict(codes=8, width=64)
        objective |= dict(width=64, negatives=20, draw=(2.0, 0.5, 0.995))
    if a.laptop:
        a.refuse("runlocal", "laptop is a run of its own")
        return runs.short(objective=objective, places=a.data, **runs.LAPTOP_SPEECH)
    samples, batch, steps, lr = PUBLISHED[size]
    optim = Optim(lr=lr, b2=0.98, eps=1e-6, weight_decay=0.01, warmup="8%", schedule="linear")
    config: Any = runs.pretrain(
        places=a.data, objective=objective, batch=batch, steps=steps, optim=optim
    )
    config.data.entries.audio.update(samples=samples, crop="random")
    if a.runlocal:
        config.objective.encoder.update(depth=2, remat="none")
        config.optim.lr = 1e-5  # its losses must not tell one machine from another
        return runs.few_steps(config, 16_000)
    return config
