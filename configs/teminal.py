"""TeminAL (arXiv:2408.09269): post-train a contrastive model to tell before from after, in two stages.

Run:      ssl-audio train --config teminal:stage=A,model=RUN,root=DIR --workdir runs/A
          ssl-audio train --config teminal:stage=B,model=runs/A,root=DIR --workdir runs/B
Laptop:   as above with laptop,root=FSDD: stage=base first (single digits), then A and B
Try:      ssl-audio train --config teminal:runlocal --workdir runs/try
Data:     DIR is that of ESC-50
Options:  same=1 cross=1 beta=1: weights of reversed clips (arXiv:2301.02074); the paper's own are not known
Results:  experiments/teminal/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import entries
from ssl_audio.data import text as texts
from ssl_audio.presets import audio_text, runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

STAGES = ("base", "A", "B")


def get_config(arg=""):
    a = parse_arg(
        arg,
        stage="B",
        model="",
        root="",
        same=1.0,
        cross=1.0,
        beta=1.0,
        laptop=False,
        runlocal=False,
    )
    if a.stage not in STAGES:
        raise ValueError(f"stage '{a.stage}': wanted one of {', '.join(STAGES)}.")
    if a.laptop or a.runlocal or not a.model:
        objective, data = small(a)
    else:
        objective, data = pretrained(a)
    if a.stage != "B":
        a.refuse("same cross beta", "they are for stage=B")
    reversal = dict(same=a.same, cross=a.cross, beta=a.beta) if a.stage == "B" else None
    compose: dict[str, dict[str, Any] | None] = {
        "base": None,
        "A": dict(kind="compose:Several", rate=data["rate"], single=0.5, overlay=0.5, gap=0.1),
        "B": dict(
            kind="compose:Ordered", rate=data["rate"], relations=("before", "after"), gap=0.1
        ),
    }
    config: Any = runs.run(
        objective=objective | dict(reversal=reversal),
        data=data | dict(compose=compose[a.stage]),
        optim=optimizer(a),
        steps=400 if a.stage != "B" else 800,
        checkpoint=Checkpoint(every="50%", keep=1),
        record=Record(every=20, figures="0"),
    )
    if a.model:
        config.warm_start = dict(model=dict(path=a.model, take=".*", leave=""))
    if a.runlocal:
        a.refuse("root", "runlocal is on synthetic sounds")
        small_sounds = dict(kind="synthetic", size=32, seconds=0.4)
        config.data.sources = dict(synthetic=small_sounds)
        config.data.update(batch_size=8)
        config.objective.towers.audio.encoder.channels = (8, 8)
        config.steps = "4"
        config.record.update(every=1, clips=1)
        config.checkpoint.every = "2"
    return config


def optimizer(a) -> Optim:
    if a.laptop or a.runlocal or not a.model:
        return Optim(lr=1e-3, weight_decay=0.01, warmup="10%", schedule="cosine", clip=1.0)
    return Optim(lr=1e-5, weight_decay=0.01, warmup="5%", schedule="cosine", clip=1.0)


def pretrained(a) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return objective and data of a trained model, on the clips of `root`."""
    written.trained(a.model, "towers")  # refuses what is no audio-text model
    known = written.read(a.model)
    objective = {k: v for k, v in known["objective"].items() if k != "reversal"}
    sound, text = (known["data"]["entries"][name] for name in ("audio", "text"))
    data: dict[str, Any] = dict(
        sources=dict(esc50=dict(kind="sets.esc", root=a.root)),
        batch_size=32,
        entries=dict(
            audio=entries.audio(sound["samples"], fill=sound.get("fill", "zeros")),
            text=text | dict(captions=dict(kind="captions:Own")),
        ),
        rate=known["data"].get("rate", 16_000),
    )
    return objective, data


def small(a) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return towers that know positions, for pairs of spoken digits."""
    names = tuple(map(str, range(10))) if a.root else audio_text.labels("")
    source: dict[str, Any] = dict(kind="synthetic")
    if a.root:
        source = dict(kind="sets.spoken_digit", root=a.root, split="train")
    known = texts.vocabulary([*names, "before after while and"])
    projector = dict(kind="projectors:Laion", out=128)
    # Pooled by a mean, small towers stay at chance: nothing tells them which event came first.
    flat = dict(pool=dict(kind="pools:Flat"), projector=projector)
    audio = audio_text.sound_tower("cnn", frames=60, depth=2)
    audio["encoder"]["channels"] = (64, 128)
    words, text = audio_text.small_text(known)
    own = dict(kind="captions:Own")
    if a.stage == "base":
        own = dict(kind="captions:Templates", templates=("{}",), neutral=False)
    objective = dict(
        kind="contrastive",
        towers=dict(audio=audio | flat, text=text | flat),
        edges=(("audio", "text", 1.0),),
        temperature=0.07,
        max_scale=100.0,
        per_direction=False,
        positives="pairs" if a.stage == "B" else "texts",
    )
    data = dict(
        sources=dict(sounds=source),
        batch_size=32 if a.stage == "B" else 64,
        entries=dict(
            audio=entries.audio(19_520),
            text=dict(kind="text", words=words, length=8, captions=own),
        ),
        rate=16_000,
    )
    return objective, data
