"""USAD (Chang et al. 2025, arXiv:2506.18843): a student learns layers of several frozen teachers.

Run:      ssl-audio train --workdir runs/usad \\
              --config usad:data=LIBRISPEECH+AUDIOSET,speech=FOLDER,sound=FOLDER
USAD 2.0: ssl-audio train --workdir runs/usad2 --config \\
              usad:speech_data=LIBRISPEECH,sound_data=AUDIOSET,speech=FOLDER,sound=FOLDER,matched=10
Try:      ssl-audio train --config usad:runlocal --workdir runs/try
Laptop:   ssl-audio train --config usad:laptop,data=DIR,speech=FOLDER,sound=FOLDER --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds.
          data= is of no domain, speech_data=, sound_data= and music_data= are of theirs
Options:  speech=FOLDER  sound=FOLDER  music=FOLDER (teachers: runs, exported or converted folders; default:
          an untrained network, to try)  size=small|base|large
          matched=1 (how much more the teacher of a clip's domain counts; 10 in USAD 2.0, arXiv:2606.06444)
Results:  experiments/distill/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import places
from ssl_audio.frontend.fbank import STATS
from ssl_audio.presets import distillation, patch_encoders, runs
from ssl_audio.train.optim import Optim

DOMAINS = ("speech", "sound", "music")  # by their numbers
RATES = {"mini": 1e-3, "small": 8e-4, "base": 1e-3, "large": 1.5e-3}
NORM = dict(kind="norms:LayerNorm", eps=1e-5)


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="small",
        data="",
        speech_data="",
        sound_data="",
        music_data="",
        speech="",
        sound="",
        music="",
        matched=1.0,
        laptop=False,
        runlocal=False,
    )
    small = a.laptop or a.runlocal
    if small:
        a.refuse("size", "laptop and runlocal set it")
    size = "mini" if small else a.size
    if size not in RATES or (size == "mini") != small:
        raise ValueError(f"size '{a.size}': wanted small, base or large.")
    frames = 512 if a.laptop else 64 if a.runlocal else 1000
    given = {name: getattr(a, f"{name}_data") for name in DOMAINS}
    where = "+".join(filter(None, [a.data, *given.values()])) or "synthetic"
    made = objective(a, size, frames)
    if a.laptop:
        a.refuse("runlocal", "laptop is a run of its own")
        config: Any = runs.short(objective=made, places=where, steps=1500)
    else:
        optim = Optim(lr=RATES[size], b2=0.98, warmup=8000, schedule="linear", clip=1.0)
        config = runs.pretrain(places=where, objective=made, batch=80, steps=400_000, optim=optim)
        config.data.entries.audio.crop = "random"
    if a.runlocal:
        config = runs.few_steps(config, runs.crop(made["frontend"], frames))
    if any(given.values()):
        config.data.sources = places.sources(where)  # all, also where `few_steps` made one of them
        config.data.entries.domain = dict(kind="entries:Domain", sources=numbers(a.data, given))
    return config


def numbers(unknown, given) -> dict[str, int]:
    """Return the number of the domain of each source that has one; in the order of all places."""
    order = [None] * len(unknown.split("+")) if unknown else []
    for number, name in enumerate(DOMAINS):
        order += [number] * len(given[name].split("+")) if given[name] else []
    where = "+".join(filter(None, [unknown, *given.values()]))
    found = zip(places.sources(where), order, strict=True)
    return {source: number for source, number in found if number is not None}


def objective(a, size, frames) -> dict[str, Any]:
    """Return the objective."""
    width, depth, heads, _ = patch_encoders.SIZES[size]
    encoder = dict(
        kind="stack",
        width=width,
        depth=depth,
        positions=dict(kind="convolutions:Convolutions", depth=5, size=19, groups=16),
        block=dict(
            kind="blocks:PreNorm", mixer=dict(kind="attention", heads=heads), norm=NORM, mlp=4.0
        ),
        first_norm=None,
        final_norm=NORM,
        drop_path=0.0,
    )
    stats = {name: STATS["audioset"][name] for name in ("mean", "std")}
    channels = (8, 16, 16) if size == "mini" else (64, 64, 64)
    teachers = {name: getattr(a, name) for name in DOMAINS if getattr(a, name)}
    return dict(
        frontend=dict(kind="fbank", bins=128, frames=frames, **stats),
        tokenizer=dict(kind="subsample", width=width, channels=channels),
        encoder=encoder,
    ) | distillation.taught(
        encoder,
        teachers,
        4,
        hidden=width,
        tap=True,
        domains={name: (DOMAINS.index(name),) for name in teachers},
        matched=a.matched,
    )
