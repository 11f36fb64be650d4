"""FineLAP (arXiv:2604.01155): say when a phrase is heard, learned beside which caption belongs to which clip.

Run:      ssl-audio train --config finelap:data=TABLE --workdir runs/finelap   (events: docs/events.md)
Laptop:   ssl-audio train --config finelap:laptop,root=ESC-10,fold=5 --workdir runs/finelap10
Try:      ssl-audio train --config finelap:runlocal --workdir runs/try
Options:  encoder=RUN to begin from; laptop: encoder=cnn|RUN  text=words|FOLDER (a text model, frozen)
Results:  experiments/finelap/README.md
"""

from typing import Any

from ssl_audio.config import build, parse_arg
from ssl_audio.data import entries
from ssl_audio.data.captions import TEMPLATES
from ssl_audio.inference.encoder import Encoder
from ssl_audio.presets import audio_text, runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

PHRASES = 20  # of a clip


def get_config(arg=""):
    a = parse_arg(
        arg, data="", root="", fold=5, encoder="", text="words", laptop=False, runlocal=False
    )
    if not (a.laptop or a.runlocal):
        a.refuse("root fold text", "it is for laptop and runlocal")
        return published(a)
    a.refuse("data", "laptop and runlocal make scenes of ESC-10")
    if a.runlocal:
        a.refuse("root fold", "runlocal is on synthetic sounds")
    source = scenes(a, audio_text.other_folds(a.fold))
    names = tuple(build(dict(source), "data").info.labels)
    audio = audio_text.sound_tower(a.encoder or "cnn", frames=252, depth=4)
    if not a.encoder or a.encoder == "cnn":
        audio["encoder"]["channels"] = (64, 128)  # columns of 160 ms
    words, text = audio_text.text_of(a.text, names)
    projector = dict(kind="projectors:Laion", out=128)
    config = config_of(
        audio=audio | dict(pool=dict(kind="pools:Mean"), projector=projector),
        text=text | dict(projector=projector),
        words=dict(kind="text", words=words, length=16),
        source=source,
        names=names,
        along=dict(kind="projectors:OneLayer", out=128),
        context=None,
        positives="texts",
        samples=80_960,
        batch=16,
        optim=Optim(lr=1e-3, weight_decay=0.01, warmup="10%", schedule="cosine", clip=1.0),
        steps=600,
    )
    if written.is_run(a.encoder):
        config.warm_start = written.warm_start(a.encoder, into="audio/")
        config.optim.rates = {"^audio/(tokenizer|encoder)/": 0.1}
    if a.text != "words":
        start = dict(path=a.text, take="^text/(tokenizer|encoder)/", leave="")
        config.warm_start = dict(config.get("warm_start", {}), text=start)
    return runlocal(config) if a.runlocal else config


def published(a):
    """Return the published size: EAT-base, RoBERTa-base, two layers over the columns, 20 phrases."""
    frontend = dict(kind="fbank", bins=128, frames=1024)
    parts: dict[str, Any] = runs.parts(frontend=frontend, encoder="eat", size="base")
    if a.encoder:
        parts = runs.to_fine_tune(a.encoder)
    tower = dict(
        kind="towers:Tower", pool=dict(kind="pools:Special"), length="length", frozen=False
    )
    hidden = dict(kind="projectors:Laion", out=1024)
    text = audio_text.text_tower("roberta", pooler=False) | dict(pool=dict(kind="pools:ClsToken"))
    layer = dict(
        kind="post_norm", mixer=dict(kind="attention", heads=8), norm=dict(kind="norms:LayerNorm"), mlp=4.0
    )  # fmt: skip
    source: dict[str, Any] = dict(kind="scenes", seconds=10.24, gaps=(0.1, 2.0))
    if a.data:
        source = dict(kind="annotated:Recordings", path=a.data)
    names = tuple(build(dict(source), "data").info.labels)
    spec_augment = dict(kind="augment:SpecAugment", freq=8, time=64)
    config = config_of(
        audio=tower | parts | dict(projector=hidden, spec_augment=spec_augment),
        text=text | dict(projector=hidden),
        words=audio_text.caption_words("synthetic", text, 30),
        source=source,
        names=names,
        along=dict(kind="projectors:OneLayer", out=1024),
        context=dict(kind="stack", width=1024, depth=2, block=layer, final_norm=None),
        positives="pairs",
        samples=runs.crop(frontend, 1024),
        batch=512,
        optim=Optim(lr=5e-5, weight_decay=0.0, warmup=1000, schedule="cosine"),
        steps="10ep",
    )  # fmt: skip
    if a.encoder:
        config.warm_start = written.warm_start(a.encoder, into="audio/")
    return config


def config_of(
    *, audio, text, words, source, names, samples, batch, optim, steps, **objective
) -> Any:
    """Return the run of two towers, with phrases and captions made of the classes' names."""
    frames, hop, centre = columns(audio, samples)
    captions = dict(kind="captions:Templates", templates=TEMPLATES, neutral=False)
    return runs.run(
        objective=dict(kind="grounded", towers=dict(audio=audio, text=text), **objective),
        data=dict(
            sources=dict(marked=source),
            batch_size=batch,
            entries=dict(
                audio=entries.audio(samples, crop="first") | dict(
                    kind="phrases", frames=frames, hop=hop, centre=centre, classes=len(names), names=names,
                    phrases=min(PHRASES, len(names)), text=words,
                ),
                text=words | dict(captions=captions),
            ),
        ),
        optim=optim,
        steps=steps,
        checkpoint=Checkpoint(every="10%", keep=1),
        record=Record(every=50, figures="0"),
    )  # fmt: skip


def columns(tower, samples: int) -> tuple[int, int, float]:
    """Return how many columns a clip has, samples from one to the next, and at the first's centre."""
    parts = {name: dict(tower[name]) for name in ("frontend", "tokenizer", "encoder")}
    audio = dict(kind="entries:Audio", samples=samples)
    built = build(dict(kind="features", **parts), "objectives")
    frames, hop, centre = Encoder(built, {}, dict(data=dict(entries=dict(audio=audio)))).frame_grid
    return frames, hop, float(centre)


def scenes(a, folds: list[int]) -> dict[str, Any]:
    """Return scenes of 5.06 s made of ESC-10, or of synthetic sounds."""
    source = audio_text.esc10(a.root, folds)
    if a.runlocal:
        source = dict(kind="synthetic", size=24, seconds=0.5)
    return dict(
        kind="scenes", source=source, size=9600, seconds=5.06, gaps=(0.1, 1.0), longest=2.0, snr=(12.0, 20.0)
    )  # fmt: skip


def runlocal(config):
    """Shrink a laptop run to four steps on synthetic sounds."""
    audio = config.objective.towers.audio
    if "channels" in audio.encoder:
        audio.encoder.channels, audio.tokenizer.width = (16, 16), 16
    config = runs.few_steps(config, config.data.entries.audio.samples)
    config.data.entries.audio.phrases = 6
    config.optim.lr = 1e-4  # larger steps differ from machine to machine
    return config
