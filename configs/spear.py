"""SPEAR (Yang et al. 2025, arXiv:2510.25955): masked prediction of several codebooks, speech and audio.

Run:      ssl-audio train --workdir runs/spear --config \\
              spear:data=AUDIO+SPEECH,audio=runs/audio_codes,speech=runs/speech_codes
          A teacher's codes:  ssl-audio train --workdir runs/speech_codes --config \\
              spear:data=SPEECH,stage=codes,teacher=FOLDER,layer=21
Try:      ssl-audio train --config spear:runlocal --workdir runs/try
Laptop:   ssl-audio train --config spear:laptop,data=DIR --workdir runs/laptop
Data:     one or two folders of audio files or of prepared shards with "+", audio before speech;
          default: synthetic sounds
Options:  size=tiny|base|large|xlarge  audio=FOLDER  speech=FOLDER (of codes; default: sums of random
          vectors)  books=N (8)  share=0.1 (weight of the audio codes)
          stage=student|codes  teacher=FOLDER  layer=N (for stage=codes)
Results:  experiments/spear/README.md; published weights: ssl-audio convert --from spear
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import places
from ssl_audio.presets import runs
from ssl_audio.storage import written
from ssl_audio.train.optim import Optim

RATES = (1, 2, 4, 8, 4, 2)
# size: widths, depths, hidden, kernels, heads, rates
SIZES = {
    "tiny": ((96, 128), (2, 2), (192, 256), (15, 15), (4, 4), (1, 2)),
    "base": (
        (192, 256, 448, 768, 448, 192),
        (2, 2, 3, 4, 3, 2),
        (512, 768, 1024, 1536, 1024, 768),
        (31, 31, 15, 15, 15, 31),
        (4, 4, 4, 8, 4, 4),
        RATES,
    ),
    "large": (
        (1024,) * 7,
        (1, 2, 2, 3, 1, 1, 1),
        (3072,) * 7,
        (31, 31, 15, 15, 15, 31, 31),
        (8,) * 7,
        (*RATES, 1),
    ),
    "xlarge": (
        (1280,) * 7,
        (1, 2, 3, 4, 1, 1, 1),
        (3840,) * 7,
        (31, 31, 15, 15, 15, 31, 31),
        (8,) * 7,
        (*RATES, 1),
    ),
}
NAMES = ("widths", "depths", "hidden", "kernels", "heads", "rates")


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        data="synthetic",
        audio="",
        speech="",
        books=8,
        share=0.1,
        stage="student",
        teacher="",
        layer=-1,
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    if a.size not in SIZES or a.stage not in ("student", "codes"):
        raise ValueError(f"size={a.size}, stage={a.stage}: wanted student or codes, {list(SIZES)}.")
    small = a.laptop or a.runlocal
    if small:
        a.refuse("size books", "laptop and runlocal set it")
    frames = 128 if a.laptop else 64 if a.runlocal else 1024
    books, codes = (2, 16) if small else (a.books, 256)
    frontend = dict(
        kind="fbank", bins=128, frames=frames, taper=0.85, remove_mean=False, mean=-6.0, std=2.5
    )
    pieces = dict(kind="patchify:Cut", patch=(128, 2), stride=(128, 2))
    if a.stage == "codes":
        if not a.teacher:
            raise ValueError("stage=codes: name the model to learn from, teacher=FOLDER.")
        a.refuse(
            "size audio speech share pretrained laptop runlocal", "stage=codes learns codes alone"
        )
        objective: dict[str, Any] = dict(
            kind="fit_codes",
            teacher=dict(kind="ssl_audio.inference.frozen:Frozen", path=a.teacher),
            quantizer=dict(
                kind="multi_codebook",
                books=books,
                codes=codes,
                width=written.trained(a.teacher, "encoder", "width"),
            ),
            layer=a.layer,
        )
        optim = Optim(lr=5e-3, b2=0.98, schedule="cosine")
        return runs.pretrain(
            places=a.data, objective=objective, batch=32, steps=20_000, optim=optim
        )

    a.refuse("teacher layer", "they are for stage=codes")

    def target(folder):
        if folder:
            return dict(kind="ssl_audio.inference.frozen:Frozen", path=folder)
        return dict(
            kind="features",
            frontend=frontend,
            tokenizer=pieces,
            encoder=dict(kind="identity"),
            quantizer=dict(kind="multi_codebook", books=books, codes=codes, width=256),
        )

    shape = dict(zip(NAMES, SIZES["tiny" if small else a.size], strict=True))
    objective = dict(
        kind="token_predict",
        frontend=frontend,
        tokenizer=dict(
            kind="subsample",
            width=shape["widths"][0],
            channels=(4, 8, 16) if small else (8, 32, 128),
        ),
        encoder=dict(kind="zipformer", **shape),
        masking=dict(kind="masking:Spans", count=0.48, length=10),
        hide="frames",
        unmasked=1.0,
        spec_augment=dict(kind="augment:SpecAugment", freq=32, time=0),
        targets={},
        heads={},
        weights={},
    )
    # Sources are told apart by their place among their sorted names.
    given = a.data.split("+")
    names = list(places.sources(a.data))
    domains = ("speech",) if len(given) == 1 else ("audio", "speech")
    if len(given) == 1:
        a.refuse("audio share", "they are for data=AUDIO+SPEECH")
    if all((a.audio, a.speech)[-len(domains) :]):
        a.refuse("books", "there are as many as the folders of codes have")
    for domain in domains:
        folder = a.audio if domain == "audio" else a.speech
        objective["targets"][domain] = target(folder)
        size = dict(codes=codes, books=books)
        if folder:
            size = {name: written.trained(folder, "quantizer", name) for name in size}
        objective["heads"][domain] = dict(kind="codes:Codes", **size)
    if len(given) == 2:
        audio = sorted(names).index(names[0])
        objective["weights"] = dict(audio=(a.share, 0.0) if audio == 0 else (0.0, a.share))
    if a.laptop:
        a.refuse("runlocal", "laptop is a run of its own")
        config: Any = runs.short(
            objective=objective, places=a.data, samples=400 + 160 * (frames - 1)
        )
    else:
        optim = Optim(lr=1e-3, b2=0.98, weight_decay=0.01, warmup="2%", schedule="cosine")
        config = runs.pretrain(
            places=a.data, objective=objective, batch=128, steps=400_000, optim=optim
        )
    if len(given) == 2:
        config.data.entries.source = dict(kind="entries:SourceNumber")
    if a.runlocal:
        config.objective.encoder.update(remat="none", depths=(1, 1))
        return runs.few_steps(config, runs.crop(frontend, frames))
    return config
