"""VATT (Akbari et al. 2021, arXiv:2104.11178): sound, video and words of the same moment, from raw signals.

Run:      ssl-audio train --config vatt:data=VIDEOS.csv --workdir runs/vatt
Shared:   ssl-audio train --config vatt:data=VIDEOS.csv,shared --workdir runs/vatt-shared
Laptop:   ssl-audio train --config vatt:laptop,data=sounds.jsonl --workdir runs/vatt-digits
Try:      ssl-audio train --config vatt:runlocal --workdir runs/try
Data:     a manifest: path (of videos with sound), text (what is said around that moment, one or several; may
          be empty), start, end; a folder of VATT's TFRecords; default: synthetic sounds and pictures;
          laptop: path of sounds, video (pictures or a folder of them), text: experiments/vatt/digits.py
Options:  audio=, video=small|base|medium|large (VATT-MBS: audio=base,video=medium); shared: one
          Transformer (medium) for all; drop=0.5: share of tokens that DropToken leaves out
Results:  experiments/vatt/README.md
"""

import pathlib
from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import text as texts
from ssl_audio.data.tables import read
from ssl_audio.presets import audio_text, runs, vatt
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

RATE, CLIP = 48_000, 153_600  # Hz, samples: 3.2 s
SMALL_RATE, SMALL_CLIP = 8_000, 5_120  # of a laptop run: 0.64 s


def get_config(arg=""):
    a = parse_arg(
        arg, data="synthetic", audio="base", video="base", shared=False, drop=0.5, laptop=False,
        runlocal=False,
    )  # fmt: skip
    for name in (a.audio, a.video):
        if name not in vatt.SIZES:
            raise ValueError(f"size '{name}': wanted one of {', '.join(vatt.SIZES)}.")
    if a.shared:
        a.refuse("audio video", "the shared Transformer has one size, medium")
    if a.runlocal:
        a.refuse("data", "runlocal is on synthetic sounds and pictures")
    if a.runlocal or a.laptop:
        a.refuse("audio video", "a laptop run has one size")
        config = laptop(a)
        return runs.shrunk(config) if a.runlocal else config
    return published(a)


def published(a):
    post = 1024 if a.shared else 0
    one = vatt.SIZES["medium"]
    heard, seen = (one, one) if a.shared else (vatt.SIZES[a.audio], vatt.SIZES[a.video])
    spaces = dict(fine=512, coarse=256)
    towers = dict(
        audio=vatt.sound(
            heard, rate=RATE, patch=128, places=1200, drop=a.drop, fine=512, post=post
        ),
        video=vatt.video(
            seen, patch=(4, 16, 16), places=(14, 14, 8), drop=a.drop, post=post, **spaces
        ),
        text=vatt.words(
            one if a.shared else vatt.SIZES["small"],
            vocab=2**16, inner=300, coarse=256, places=16 if a.shared else 0, post=post,
        ),
    )  # fmt: skip
    words = dict(kind="text:Words", words=(), buckets=2**16 - 2)
    picture = dict(kind="pictures:Image", size=224, crop="random", mean=(0.0,) * 3, std=(1.0,) * 3)
    return _run(
        a,
        towers,
        dict(
            audio=_seen(a, CLIP, crop="random", frames=32, fps=10.0, picture=picture),
            text=_candidates(a, words, length=16, count=4),
        ),
        rate=RATE,
        batch=2048,
        optim=Optim(
            lr=1e-4,
            warmup="1%",
            schedule="cosine",
            rates={"^logit_scale$": 0.0, "^text/tokenizer/word$": 0.0},
        ),
        steps="500000",
    )


def laptop(a):
    """Return a run on spoken digits beside small pictures, for one core."""
    size, small = (4, 96, 384, 4), (2, 64, 256, 4)
    if a.shared:
        small = size
    post = size[1] if a.shared else 0
    known: tuple[str, ...] = ()
    if a.data != "synthetic":
        rows = [row.get("text") or "" for row in read(pathlib.Path(a.data).expanduser())]
        said = [[row] if isinstance(row, str) else row for row in rows]
        known = texts.vocabulary([text for some in said for text in some])
    words = dict(kind="text:Words", words=known, buckets=16)
    spaces = dict(fine=64, coarse=32)
    towers = dict(
        audio=vatt.sound(
            size, rate=SMALL_RATE, patch=64, places=80, drop=a.drop, fine=64, post=post,
            standardise=True,
        ),
        video=vatt.video(
            small, patch=(2, 2, 2), places=(4, 4, 2), drop=a.drop, post=post, **spaces
        ),
        text=vatt.words(
            small, vocab=18 + len(known), inner=32, coarse=32, places=8 if a.shared else 0,
            post=post,
        ),
    )  # fmt: skip
    for tower in towers.values():
        tower["encoder"]["remat"] = "none"
    picture = dict(kind="pictures:Image", size=8, channels=1, mean=(0.5,), std=(0.5,))
    seen = _seen(
        a, SMALL_CLIP, crop="first", speed=0.1, gain=6.0, frames=4, fps=6.25, picture=picture
    )
    return _run(
        a,
        towers,
        dict(
            audio=seen,
            text=_candidates(a, words, length=8, count=2),
        ),
        rate=SMALL_RATE,
        batch=64,
        optim=Optim(
            lr=1e-3,
            weight_decay=0.01,
            warmup="5%",
            schedule="cosine",
            clip=1.0,
            rates={"^logit_scale$": 0.0},
        ),
        steps="2400",
    )


def _run(a, towers, parts, *, rate, batch, optim, steps):
    small = a.laptop or a.runlocal
    return runs.run(
        objective=dict(
            kind="contrastive",
            towers=towers,
            edges=vatt.EDGES,
            compare=vatt.COMPARE,
            temperature=0.07,  # as it stays: its rate is 0
            shared=vatt.SHARED if a.shared else "",
        ),
        data=dict(
            sources=dict(clips=_source(a.data, rate)),
            rate=rate,
            batch_size=batch,
            entries=parts,
        ),
        optim=optim,
        steps=steps,
        checkpoint=Checkpoint(every="10%" if small else "2%", keep=1),
        record=Record(every=50, figures="0"),
    )


def _source(data: str, rate: int) -> dict[str, Any]:
    if data == "synthetic":
        return dict(kind="pictures:Drawn", source=dict(kind="synthetic", rate=rate), size=16)
    if pathlib.Path(data).expanduser().is_dir():
        return dict(kind="sequence_examples:SequenceExamples", root=data, rate=rate)
    return audio_text.captioned(data, rate)


def _seen(a, samples: int, **more: Any) -> dict[str, Any]:
    column: dict[str, Any] = {}
    if a.data == "synthetic":
        column = dict(column="image", listed=1.0)
    elif a.laptop:
        column = dict(column="video", listed=more["fps"])
    elif pathlib.Path(a.data).expanduser().is_dir():
        column = dict(column="video", listed=10.0)
    return dict(kind="video:AudioVideo", samples=samples, fill="zeros", **more, **column)


def _candidates(a, words: dict[str, Any], **more: Any) -> dict[str, Any]:
    kind = "captions:Templates" if a.data == "synthetic" else "captions:Own"
    return dict(kind="text:Candidates", words=words, captions=dict(kind=kind), **more)
