"""VIP-ANT (Zhao et al. 2022, arXiv:2112.08995): sound meets words by way of pictures, without one pair.

Run:      ssl-audio train --config vipant:data=CLIPS.jsonl,pivot=CLIP --workdir runs/vipant
Then:     ssl-audio train --config vipant:stage=text,data=MINED.jsonl,pivot=runs/vipant --workdir runs/at
Laptop:   ssl-audio train --config vipant:laptop,stage=pivot,data=pictures.csv --workdir runs/pivot
          ssl-audio train --config vipant:laptop,data=sounds.csv,pivot=runs/pivot --workdir runs/va
Try:      ssl-audio train --config vipant:runlocal --workdir runs/try
Data:     pretraining: a manifest with columns path, image (files, separated by ";"); text: path, text;
          pivot: path (of a picture), text; default: synthetic sounds and pictures
Options:  stage=pretrain|text|pivot  pivot=FOLDER: of `ssl-audio convert --from clip --option sound=true`,
          or a run; laptop: test=FILE (clips with labels, tested with the words of their labels)
Results:  experiments/vipant/README.md
"""

import pathlib
from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import entries
from ssl_audio.data import text as texts
from ssl_audio.data.tables import read
from ssl_audio.presets import audio_text, clip, runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

STAGES = {  # what is compared, and the towers that learn
    "pretrain": (("audio", "image"), "audio"),
    "text": (("audio", "text"), "audio"),
    "pivot": (("image", "text"), "image|text"),
}
# What is said of a label when a laptop run is tested: the captions of experiments/vipant/digits.py.
TEMPLATES = (
    "{}", "the digit {}", "a {}", "the number {}", "a picture of {}", "{} written by hand",
)  # fmt: skip
CLIP = 16_000  # samples of a laptop run's clips: 1 s


def get_config(arg=""):
    a = parse_arg(
        arg, stage="pretrain", data="synthetic", pivot="", test="", laptop=False, runlocal=False
    )
    if a.stage not in STAGES:
        raise ValueError(f"stage '{a.stage}': wanted one of {', '.join(STAGES)}.")
    if a.runlocal:
        a.refuse("data pivot test", "runlocal is on synthetic sounds and pictures")
    if a.stage == "pivot":
        a.refuse("test", "there is no sound in that stage")
    if a.runlocal or a.laptop:
        config = laptop(a)
        return runs.shrunk(config) if a.runlocal else config
    a.refuse("test", "it is for laptop")
    return published(a)


def published(a):
    image = clip.vit(**clip.VIT_B32)
    towers = dict(
        audio=clip.sound(image, clip.SOUND, (32, 32), (24, 16)),
        image=image,
        text=clip.text(**clip.TEXT_B32),
    )
    words: dict[str, Any] = dict(kind="text:Words", words=(), buckets=49_406)
    picture = dict(kind="pictures:Image", size=224, mean=clip.MEAN, std=clip.STD)
    if a.pivot:
        known = written.read(a.pivot)
        towers |= {n: t | dict(frozen=False) for n, t in known["objective"]["towers"].items()}
        words = written.entry(known, "text").get("words", words)
        picture = written.entry(known, "image") or picture
    samples = 400 + 999 * 160
    parts = dict(
        audio=entries.audio(samples, crop="first"),
        image=picture,
        text=_captions(a, words, length=77),
    )
    return _run(
        a,
        towers,
        parts,
        batch=64 if a.stage == "text" else 432,
        optim=Optim(lr=5e-4 if a.stage != "text" else 1e-4, warmup="5%", schedule="cosine"),
        steps="25ep",
        record=Record(every=50, figures="0"),
    )


def laptop(a):
    """Return a run on small pictures and sounds of a second, for one core."""
    known = written.read(a.pivot) if a.pivot else None
    towers: dict[str, Any]
    if known:
        towers = dict(known["objective"]["towers"])
        words = written.entry(known, "text")["words"]
        picture = written.entry(known, "image")
    else:
        words, towers = _small_words(a)
        image = clip.vit(width=64, depth=2, heads=4, patch=2, grid=(4, 4), out=64)
        image["encoder"]["positions"]["start"] = "sincos"
        image["encoder"]["remat"] = "none"
        picture = dict(
            kind="pictures:Image", size=8, channels=1, mean=(0.5,), std=(0.5,), pick="random"
        )
        towers["image"] = image
    if "audio" not in towers:
        sound = audio_text.sound_tower("cnn", frames=48, depth=2)
        sound["spec_augment"] = dict(kind="augment:SpecAugment", freq=8, time=8)
        towers["audio"] = sound | dict(projector=dict(kind="projectors:Laion", out=64))
    parts = dict(
        audio=entries.audio(CLIP, fill="zeros"),
        image=picture,
        text=_captions(a, words, length=16),
    )
    config = _run(
        a,
        towers,
        parts,
        batch=64,
        optim=Optim(lr=1e-3, weight_decay=0.01, warmup="10%", schedule="cosine", clip=1.0),
        steps="400",
        record=Record(every=20, figures="0"),
    )
    if a.test and a.stage != "pivot":
        config.evals = dict(
            zero_shot=dict(
                kind="zero_shot",
                source=_source(a.test, "pretrain"),
                samples=CLIP,
                text=dict(kind="text", words=words, length=16),
                templates=TEMPLATES,
            )
        )
        config.eval_every = "50%"
    return config


def _run(a, towers, parts, *, batch, optim, steps, record):
    (first, second), learning = STAGES[a.stage]
    small = a.laptop or a.runlocal
    if a.stage == "pivot":
        towers = {name: towers[name] for name in ("image", "text")}
        parts = {name: parts[name] for name in ("image", "text")}
    elif a.stage == "text":
        towers = {name: towers[name] for name in ("audio", "text")}
        parts = {name: parts[name] for name in ("audio", "text")}
    towers = {
        name: tower | dict(frozen=name not in learning.split("|")) for name, tower in towers.items()
    }
    frozen = [name for name in towers if name not in learning.split("|")]
    optim.rates.update({f"^{name}/": 0.0 for name in sorted(frozen)})
    config = runs.run(
        objective=dict(
            kind="contrastive",
            towers=towers,
            edges=((first, second, 1.0),),
            temperature=0.07,
            max_scale=1e4,  # published without a bound
            per_direction=False,
            # The few captions of a small set return in each batch.
            positives="texts" if small and a.stage != "pretrain" else "pairs",
        ),
        data=dict(
            sources=dict(clips=_source(a.data, a.stage)),
            batch_size=batch,
            entries=parts,
        ),
        optim=optim,
        steps=steps,
        checkpoint=Checkpoint(every="50%" if small else "2%", keep=1),
        record=record,
    )
    if a.pivot:
        there = sorted(written.trained(a.pivot, "towers"))
        take = "|".join(name for name in there if name in towers)
        config.warm_start = dict(pivot=dict(path=a.pivot, take=f"^({take})/", leave=""))
    return config


def _source(data, stage):
    if data == "synthetic":
        return dict(kind="pictures:Drawn", source=dict(kind="synthetic"), size=16)
    if stage == "pivot":
        return dict(kind="pictures:Pictures", path=data)
    return audio_text.captioned(data, 16_000)


def _captions(a, words, length):
    """Return the entry of words; while sound learns from pictures nothing is said."""
    kind = "captions:Templates" if a.data == "synthetic" else "captions:Own"
    kind = "captions:Nothing" if a.stage == "pretrain" else kind
    return dict(kind="text", words=words, length=length, captions=dict(kind=kind))


def _small_words(a):
    """Return a tokenizer that knows the words of the captions, and its small tower."""
    known: tuple[str, ...] = ()
    if a.stage == "pivot" and a.data != "synthetic":
        rows = [row.get("text") or "" for row in read(pathlib.Path(a.data).expanduser())]
        said = [[row] if isinstance(row, str) else row for row in rows]
        known = texts.vocabulary([text for some in said for text in some])
    words, tower = audio_text.small_text(known)
    return words, dict(text=tower | dict(projector=dict(kind="projectors:OneLayer", out=64)))
