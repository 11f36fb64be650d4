"""HTCL (arXiv:2505.23298): music by its words, then by what listeners prefer, without forgetting the words.

Run:      ssl-audio train --config htcl:data=SONGS.csv --workdir runs/semantic
          ssl-audio train --config htcl:stage=preference,model=runs/semantic,data=TRIPLETS.csv \\
              --workdir runs/htcl
Laptop:   as above with laptop, and test=FILE (clips with labels for words, and a column `taste`)
Try:      ssl-audio train --config htcl:runlocal --workdir runs/try
Data:     SONGS.csv: path and the columns of `columns`, or text; TRIPLETS.csv: also user, positive and
          negative (files, several with ";"); default: synthetic sounds
Options:  mu=0.2: weight of the words' loss in the second stage; keep=0: of the distance to the first stage's
          vectors; columns=title|artist|genre: joined to a text; columns=text: its own
Results:  experiments/htcl/README.md
"""

import pathlib
from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import entries
from ssl_audio.data import text as texts
from ssl_audio.data.tables import read
from ssl_audio.presets import audio_text, runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

STAGES = ("semantic", "preference")
CLIP = 16_000  # samples of a laptop run's clips: 1 s
MINUTES = 2 * 60 * 16_000  # samples of a song: its first two minutes


def get_config(arg=""):
    a = parse_arg(
        arg,
        stage="semantic",
        model="",
        data="synthetic",
        columns="text",
        mu=0.2,
        keep=0.0,
        test="",
        laptop=False,
        runlocal=False,
    )
    if a.stage not in STAGES:
        raise ValueError(f"stage '{a.stage}': wanted one of {', '.join(STAGES)}.")
    if a.stage == "semantic":
        a.refuse("mu keep model", "they are for stage=preference")
    if min(a.mu, a.keep) < 0:
        raise ValueError(f"mu={a.mu:g}, keep={a.keep:g}: wanted weights of 0 or more.")
    if a.keep and not a.model:
        raise ValueError("keep: wanted model=RUN too, whose vectors are kept near.")
    if a.runlocal:
        a.refuse("data test columns", "runlocal is on synthetic sounds")
    small = a.laptop or a.runlocal
    if not small:
        a.refuse("test", "it is for laptop")
    config = small_run(a) if small else published(a)
    return runs.shrunk(config) if a.runlocal else config


def published(a):
    audio = tower(
        rate=16_000, window=2048, hop=1536, bins=128, width=768, depth=12, heads=12, channels=512,
        tokens=160, mean=-25.0, std=20.0, out=256,
    )  # fmt: skip
    text = audio_text.text_tower("bert", pooler=False)
    towers: dict[str, Any] = dict(
        audio=audio, text=text | dict(projector=dict(kind="projectors:Laion", out=256))
    )
    captions = audio_text.caption_words(a.data, towers["text"], 64)
    return _run(
        a,
        towers,
        captions,
        samples=MINUTES,
        batch=256 if a.stage == "semantic" else 64,
        optim=Optim(
            lr=1e-4 if a.stage == "semantic" else 2e-5,
            weight_decay=0.01,
            warmup="5%",
            schedule="cosine",
        ),
        steps="10ep",
    )


def small_run(a):
    """Return a run on clips of a second, for one core."""
    known: tuple[str, ...] = ()
    if a.model:
        given = written.read(a.model)
        towers = {name: given["objective"]["towers"][name] for name in ("audio", "text")}
        words = written.entry(given, "text")["words"]
    else:
        if a.data != "synthetic":
            rows = [row.get("text") or "" for row in read(pathlib.Path(a.data).expanduser())]
            said = [[row] if isinstance(row, str) else row for row in rows]
            known = texts.vocabulary([text for some in said for text in some])
        words, text = audio_text.small_text(known)
        audio = tower(
            rate=16_000, window=640, hop=160, bins=64, width=128, depth=2, heads=4, channels=128, tokens=13,
            mean=-35.0, std=20.0, out=64,
        )  # fmt: skip
        audio["spec_augment"] = dict(kind="augment:SpecAugment", freq=8, time=16)
        towers = dict(
            audio=audio, text=text | dict(projector=dict(kind="projectors:OneLayer", out=64))
        )
    captions: dict[str, Any] = dict(kind="text", words=words, length=16)
    captions["captions"] = dict(
        kind="captions:Templates" if a.data == "synthetic" else "captions:Own"
    )
    config = _run(
        a,
        towers,
        captions,
        samples=CLIP,
        batch=64,
        optim=Optim(
            lr=1e-3 if a.stage == "semantic" else 5e-4,
            weight_decay=0.01,
            warmup="10%",
            schedule="cosine",
            clip=1.0,
        ),
        steps="500" if a.stage == "semantic" else "200",
    )
    if a.test:
        source = audio_text.captioned(a.test, 16_000)
        config.evals = dict(
            zero_shot=dict(
                kind="zero_shot",
                source=source,
                samples=CLIP,
                text=dict(kind="text", words=words, length=16),
                templates=("{}",),
            ),
            taste=dict(
                kind="gallery",
                source=source,
                entries=dict(audio=entries.audio(CLIP, crop="first")),
                asked=("audio",),
                key="audio",
                relevant="taste",
            ),
        )
        config.eval_every = "50%"
    return config


def tower(
    *,
    rate: int,
    window: int,
    hop: int,
    bins: int,
    width: int,
    depth: int,
    heads: int,
    channels: int,
    tokens: int,
    mean: float,
    std: float,
    out: int,
) -> dict[str, Any]:
    """Return three convolutions over time and a Transformer; `tokens`: of the table of positions."""
    norm = dict(kind="norms:LayerNorm", eps=1e-6)
    return dict(
        kind="towers:Tower",
        frontend=dict(
            kind="mel",
            rate=rate,
            window=window,
            hop=hop,
            bins=bins,
            low=0.0,
            high=0.0,
            mean=mean,
            std=std,
        ),
        tokenizer=dict(
            kind="conv_stem:Strided",
            width=width,
            channels=channels,
            kernels=(5, 3, 3),
            strides=(2, 2, 2),
        ),
        encoder=dict(
            kind="stack",
            width=width,
            depth=depth,
            positions=dict(kind="positions:Learned", grid=(1, tokens), start="sincos_time"),
            block=dict(
                kind="blocks:PreNorm", mixer=dict(kind="attention", heads=heads), norm=norm, mlp=4.0
            ),
            final_norm=norm,
        ),
        pool=dict(kind="pools:Mean"),
        projector=dict(kind="projectors:Laion", out=out),
        spec_augment=None,
        length="length",
        frozen=False,
    )


def _run(a, towers, captions, *, samples, batch, optim, steps):
    audio = entries.audio(samples, crop="first")
    parts: dict[str, Any] = dict(audio=audio, text=captions)
    if a.columns != "text":
        columns = tuple(filter(None, a.columns.split("|")))
        captions["captions"] = dict(kind="captions:Metadata", columns=columns)
    edges: tuple[tuple[str, str, float], ...] = (("audio", "text", 1.0),)
    more: dict[str, Any] = {}
    if a.stage == "preference":
        edges = (("audio", "audio_positive", 1.0),)
        edges += (("audio", "text", a.mu),) if a.mu else ()
        more["audio-audio_positive"] = dict(
            kind="pair_losses:InfoNce", positives="pairs", group="user"
        )
        by = "labels" if a.data == "synthetic" else "columns"
        parts["user"] = dict(kind="entries:Group", column="user")
        parts["triplet"] = dict(kind="triplet", audio=audio, by=by, negatives=1)
    warm: dict[str, Any] = {}
    if a.model:
        warm["semantic"] = dict(path=a.model, take="^(audio|text)/", leave="")
    if a.keep:
        edges += (("audio", "before", a.keep),)
        more["audio-before"] = dict(kind="pair_losses:Near")
        towers = towers | dict(
            before=towers["audio"] | dict(entry="audio", frozen=True, spec_augment=None)
        )
        optim.rates.update({"^before/": 0.0})
        warm["before"] = dict(
            path=a.model,
            take="^(tokenizer|encoder|pool|projector)/",
            leave="",
            out_of="audio/",
            into="before/",
        )
    config = runs.run(
        objective=dict(
            kind="contrastive",
            towers=towers,
            edges=edges,
            temperature=0.07,
            max_scale=100.0,
            per_direction=False,
            positives="texts",  # songs of the same words are not each other's negatives
            compare=more,
        ),
        data=dict(
            sources=dict(clips=audio_text.captioned(a.data, 16_000)),
            batch_size=batch,
            entries=parts,
        ),
        optim=optim,
        steps=steps,
        checkpoint=Checkpoint(every="50%", keep=1),
        record=Record(every=20, figures="0"),
    )
    if warm:
        config.warm_start = warm
    return config
