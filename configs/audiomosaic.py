"""AudioMosaic (2026, arXiv:2605.14231): tell clips apart by what is left without columns or without rows.

Run:      ssl-audio train --config audiomosaic:data=AUDIOSET --workdir runs/audiomosaic
Try:      ssl-audio train --config audiomosaic:runlocal --workdir runs/try
Laptop:   ssl-audio train --config audiomosaic:laptop,data=DIR --workdir runs/laptop
Data:     folders of audio files or of prepared shards; several with "+"; default: synthetic sounds
Options:  size=small|base|large  encoder=vit|ssamba|ssamba_rms  layout=grid|released|random
          waves=published|none  batch=512
Results:  experiments/audiomosaic/README.md
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.frontend.fbank import STATS
from ssl_audio.presets import runs
from ssl_audio.train.optim import Optim

NORM = dict(kind="norms:LayerNorm", eps=1e-6)
HIDDEN = dict(time=0.6), dict(freq=0.4)  # of the first view, of the second
# Changes of speed and pitch, which are made on the host; the others follow on the device.
ALTERED: tuple[dict[str, Any], ...] = (
    dict(kind="altered:Stretch", low=0.7, high=1.3, chance=0.7),
    dict(kind="altered:Pitch", low=-4.0, high=4.0, chance=0.6),
)
WAVES: tuple[dict[str, Any], ...] = (
    dict(kind="waves:RollGain", beta=10.0),
    dict(kind="waves:Polarity", chance=0.5),
    dict(kind="waves:Noise", low=5.0, high=40.0, chance=0.5),
    dict(kind="waves:Gain", low=-12.0, high=12.0, chance=0.3),
    dict(
        kind="waves:Filters",
        members=(
            dict(kind="waves:HighPass", low=20.0, high=2400.0, slope=(12, 24), chance=0.3),
            dict(kind="waves:BandStop", low=200.0, high=4000.0, slope=(12, 24), chance=0.5),
        ),
    ),
)


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="base",
        encoder="vit",
        layout="grid",
        waves="published",
        batch=512,
        data="synthetic",
        laptop=False,
        runlocal=False,
        pretrained="",
    )
    return runs.from_pretrained(fresh(a), a)


def fresh(a):
    """Return the run with an architecture of its own, whose parameters are fresh."""
    frontend: dict[str, Any] = dict(kind="fbank", bins=128, **STATS["audioset"])
    if a.waves not in ("published", "none"):
        raise ValueError(f"waves '{a.waves}': wanted published or none.")
    if a.laptop:
        a.refuse("size batch runlocal", "laptop sets it")
        made = objective(a, "mini", frontend | dict(bins=64, frames=496))
        made["encoder"]["drop_path"] = 0.0
        return runs.short(
            objective=made,
            places=a.data,
            batch=64,
            steps=1000,
            optim=optimizer(lr=1e-3, warmup="10%"),
        )
    config: Any = runs.pretrain(
        places=a.data,
        objective=objective(a, a.size, frontend),
        batch=a.batch,
        steps="400ep",
        optim=optimizer(lr=6e-4, warmup="1ep"),
    )
    if a.waves == "published":
        config.data.entries.audio.update(kind="altered:Altered", changes=ALTERED, views=2)
    if not a.runlocal:
        return config
    a.refuse("size batch", "runlocal sets it")
    config = runs.runlocal(config)
    config.objective.projector.update(hidden=32, out=16)
    return config


def objective(a, size, frontend) -> dict[str, Any]:
    parts = runs.parts(frontend=frontend, encoder=a.encoder, size=size)
    parts["tokenizer"]["norm"] = NORM
    parts["encoder"].update(first_norm=NORM, final_norm=None, drop_path=0.1)
    parts["encoder"]["positions"]["start"] = "sincos"
    return parts | dict(
        kind="masked_contrast",
        pool=dict(kind="pools:MeanOfAll"),
        projector=dict(kind="projectors:AudioMosaic", hidden=512, out=128),
        maskings=maskings(a.layout),
        augment=WAVES if a.waves == "published" else (),
        temperature=0.1,
    )


def maskings(layout) -> tuple[dict[str, Any], ...]:
    """Return what is hidden of both views: as meant, as the released code does it, or single patches."""
    meant = tuple(dict(kind="masking:TimeFrequency", **share) for share in HIDDEN)
    if layout == "released":
        return tuple(dict(kind="misread", masking=one) for one in meant)
    if layout == "random":
        return tuple(dict(kind="masking:Random", count=max(one.values())) for one in HIDDEN)
    if layout != "grid":
        raise ValueError(f"layout '{layout}': wanted grid, released or random.")
    return meant


def optimizer(lr, warmup) -> Optim:
    return Optim(lr=lr, weight_decay=0.05, warmup=warmup, schedule="cosine")
