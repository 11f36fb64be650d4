"""What configs share: pretraining data, the pretraining run, its laptop and two-step versions."""

import dataclasses
import json
import pathlib
import re
from typing import Any

from ml_collections import ConfigDict

from ssl_audio.backbones import sizes
from ssl_audio.checkpoint import Checkpoint
from ssl_audio.frontend.fbank import STATS
from ssl_audio.optim import Optim
from ssl_audio.record import Record

# A short run of a Transformer needs them to tell masked patches apart; a scan knows its order without.
LAPTOP_POSITIONS = {"ssast": "sincos"}


def source(where: str) -> dict[str, Any]:
    """Return the config of a source: "synthetic", a folder of prepared shards, or one of audio files.

    An address as gs://bucket/folder is taken for prepared shards.
    """
    if where == "synthetic":
        return dict(kind="synthetic")
    if "://" in where:  # an object store
        return dict(kind="shards", root=where)
    path = pathlib.Path(where).expanduser()
    if not path.is_dir():
        raise ValueError(
            f"data '{where}': wanted 'synthetic', a folder that exists, or an address as gs://…"
        )
    return dict(
        kind="shards" if (path / "index.json").exists() else "source:Folder", root=str(path)
    )


def sources(where: str) -> dict[str, Any]:
    """Return a named source per place in "PLACE+PLACE…"; see `source`."""
    found: dict[str, Any] = {}
    for place in where.split("+"):
        name = re.sub(r"\W", "_", pathlib.Path(place).resolve().name)
        found[f"{name}_{len(found)}" if name in found else name] = source(place)
    return found


def masked_spectrogram(
    *,
    encoder: str,
    size: str,
    patch: tuple[int, ...],
    masked: int | float,
    depth: int | None = None,
    frames: int = STATS["audioset"]["frames"],
    mean: float = STATS["audioset"]["mean"],
    std: float = STATS["audioset"]["std"],
) -> dict[str, Any]:
    """Return the objective of SSAST and SSAMBA; only its `encoder` tells them apart."""
    bins = 128
    grid = (bins // patch[0], frames // patch[1])
    built = sizes.encoder(encoder, size, grid, depth)
    masking = "masking:Random" if patch[0] == bins else "masking:Cluster"
    return dict(
        kind="masked_spectrogram",
        frontend=dict(kind="fbank", bins=bins, frames=frames, mean=mean, std=std),
        tokenizer=dict(kind="patchify", width=built["width"], patch=patch, stride=patch),
        encoder=built,
        masking=dict(kind=masking, count=masked),
        discriminate=1.0,
        reconstruct=10.0,
    )


def architecture(path: str) -> dict[str, Any]:
    """Return the configs of a run's `frontend`, `tokenizer` and `encoder`, to fine-tune them.

    Raises:
      ValueError: `path` is not the workdir of a run of an encoder.
    """
    written = pathlib.Path(path).expanduser() / "config.json"
    if not written.is_file():
        raise ValueError(f"pretrained={path}: no config.json there; wanted the workdir of a run.")
    objective = json.loads(written.read_text())["objective"]
    parts = ("frontend", "tokenizer", "encoder")
    if missing := [part for part in parts if part not in objective]:
        raise ValueError(f"pretrained={path}: its objective has no {', '.join(missing)}.")
    return {part: objective[part] for part in parts}


def run(
    *,
    objective: dict[str, Any],
    data: dict[str, Any],
    optim: Optim,
    steps: int | str,
    checkpoint: Checkpoint,
    record: Record,
    accumulate: int = 1,
) -> ConfigDict:
    """Return a whole run; options with a default are written out, so that each can be overridden."""
    defaults = dict(
        kind="pipeline",
        crop="random",
        fill="zeros",
        mixup=0.0,
        balanced=False,
        classes=0,
        seed=0,
        workers=0,
        threads=8,
        max_bad_share=0.01,
    )
    return ConfigDict(
        dict(
            objective=objective,
            data=defaults | data,
            optim=dataclasses.asdict(optim),
            steps=str(steps),
            seed=0,
            accumulate=accumulate,
            sharding=dict(data=-1, fsdp=1, tensor=1, max_replicated=0.02),
            checkpoint=dataclasses.asdict(checkpoint),
            record=dataclasses.asdict(record),
        )
    )


def pretrain(
    *, places: str, objective: dict[str, Any], batch: int, steps: int | str, optim: Optim
) -> ConfigDict:
    """Return a pretraining run as published: whole clips of 10 s, cut at the end or padded."""
    data = dict(sources=sources(places), batch_size=batch, samples=160_000, crop="first")
    return run(
        objective=objective,
        data=data,
        optim=optim,
        steps=steps,
        checkpoint=Checkpoint(every="2%"),
        record=Record(every=50, figures="5%"),
    )


def laptop(*, encoder: str, places: str) -> ConfigDict:
    """Return a pretraining run for two cores: short crops, four layers, AdamW with a cosine.

    Clips shorter than a crop are joined with others, and every source is heard equally often.
    """
    frames = 128
    objective = masked_spectrogram(
        encoder=encoder, size="tiny", depth=4, patch=(16, 8), masked=0.6, frames=frames
    )
    objective["encoder"]["drop_path"] = 0.0
    objective["encoder"]["positions"]["start"] = LAPTOP_POSITIONS.get(encoder, "normal")
    heard = sources(places)
    return run(
        objective=objective,
        data=dict(
            sources=heard,
            weights=dict.fromkeys(heard, 1.0),
            batch_size=8,
            samples=400 + 160 * (frames - 1),
            fill="join",
        ),
        optim=Optim(lr=1e-3, b2=0.98, weight_decay=0.01, warmup="5%", schedule="cosine", clip=1.0),
        steps=500,
        checkpoint=Checkpoint(every="10%"),
        record=Record(every=20, figures="20%"),
    )


def runlocal(config: Any) -> Any:
    """Shrink any pretraining run to four steps that take seconds, to see that it works at all."""
    frames = 64
    objective = config.objective
    patch = objective.tokenizer.patch
    objective.frontend.frames = frames
    objective.encoder.depth = 2
    objective.encoder.width = objective.tokenizer.width = 48
    rows, columns = 128 // patch[0], frames // patch[1]
    objective.encoder.positions.grid = (rows, columns)
    if "masking" in objective:
        objective.masking.count = rows * columns // 2
    config.data.sources = ConfigDict(dict(synthetic=dict(kind="synthetic", size=32, seconds=1.0)))
    config.data.update(batch_size=8, samples=16_000)
    config.steps = "4"
    config.optim.update(warmup=0, plateau=0)
    config.record.update(every=1, figures="0")
    config.checkpoint.every = "2"
    return config
