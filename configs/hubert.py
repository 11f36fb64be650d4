"""HuBERT (Hsu et al. 2021, arXiv:2106.07447): masked prediction of clusters, found again from its layers.

Run:      ssl-audio kmeans --data LIBRISPEECH --codes 100 --out runs/clusters0      # of MFCC
          ssl-audio train --config hubert:data=LIBRISPEECH,targets=runs/clusters0 \\
              --workdir runs/hubert1
          ssl-audio kmeans --checkpoint runs/hubert1 --layer 5 --codes 500 \\
              --data LIBRISPEECH --out runs/clusters1     # then train anew with targets=runs/clusters1
Try:      ssl-audio train --config hubert:runlocal --workdir runs/try
Laptop:   ssl-audio train --config hubert:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=tiny|base|large  targets=FOLDER (default: a random projection of MFCC, as BEST-RQ has)
          codes=N (of the targets; as many as the folder has, if there is one)
Results:  experiments/hubert/README.md; published weights: ssl-audio convert --from hf_hubert
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.presets import runs, speech
from ssl_audio.storage import written
from ssl_audio.train.optim import Optim


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        data="synthetic",
        targets="",
        codes=0,
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    small = a.laptop or a.runlocal
    if small:
        a.refuse("size", "laptop and runlocal set it")
    size = "tiny" if small else a.size
    codes = (
        written.trained(a.targets, "quantizer", "codes")
        if a.targets
        else a.codes or (50 if small else 500)
    )
    if a.targets:
        a.refuse("codes", "there are as many as the targets have")
        target = dict(kind="ssl_audio.inference.frozen:Frozen", path=a.targets)
    else:
        mfcc = dict(kind="mfcc")
        target = dict(
            kind="features",
            frontend=mfcc,
            tokenizer=dict(kind="patchify:Cut", patch=(39, 2), stride=(39, 2)),
            encoder=dict(kind="identity"),
            quantizer=dict(kind="codebooks:RandomProjection", codes=codes, width=16),
        )
    objective: dict[str, Any] = dict(
        kind="token_predict",
        frontend=dict(kind="raw", standardise=size == "large"),
        tokenizer=speech.waveform(size, gradient=1.0 if size == "large" else 0.1),
        encoder=speech.speech_encoder(size),
        masking=dict(kind="masking:Spans", count=0.55, length=10),
        targets=dict(clusters=target),
        heads=dict(clusters=dict(kind="codes:CosineCodes", codes=codes, width=256)),
        unmasked=0.0,
    )
    if small:
        # A few hundred steps are too few for convolutions that learn a tenth as fast.
        objective["tokenizer"]["tokenizer"]["gradient"] = 1.0
        objective["frontend"]["standardise"] = True
    if a.laptop:
        a.refuse("runlocal", "laptop is a run of its own")
        return runs.short(objective=objective, places=a.data, **runs.LAPTOP_SPEECH)
    optim = Optim(lr=5e-4, b2=0.98, eps=1e-6, weight_decay=0.01, warmup="8%", schedule="linear")
    config: Any = runs.pretrain(
        places=a.data, objective=objective, batch=176, steps=250_000, optim=optim
    )
    config.data.entries.audio.update(samples=250_000, crop="random")
    if a.runlocal:
        config.objective.encoder.update(depth=2, remat="none")
        config.optim.lr = 1e-5  # its losses must not tell one machine from another
        return runs.few_steps(config, 16_000)
    return config
