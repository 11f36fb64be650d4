"""What configs share: pretraining data, the pretraining run, its laptop and two-step versions."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ssl_audio.backbones import sizes
from ssl_audio.checkpoint import Checkpoint
from ssl_audio.frontend.fbank import STATS
from ssl_audio.optim import Optim
from ssl_audio.record import Record
from ssl_audio.tokens.patchify import grid

# A short run of a Transformer needs them to tell masked patches apart; a scan knows its order without.
LAPTOP_POSITIONS = {"ssast": "sincos"}
LAPTOP_OPTIM = Optim(lr=1e-3, b2=0.98, weight_decay=0.01, warmup="5%", schedule="cosine", clip=1.0)
LAPTOP_SPEECH: dict[str, Any] = dict(
    samples=20_720, steps=2000, optim=dataclasses.replace(LAPTOP_OPTIM, lr=4e-4)
)


def source(where: str, rate: int = 16_000) -> dict[str, Any]:
    """Return the config of a source: "synthetic", a folder of prepared shards, or one of audio files.

    An address as gs://bucket/folder is taken for prepared shards.
    """
    given = {} if rate == 16_000 else dict(rate=rate)
    if where == "synthetic":
        return dict(kind="synthetic", **given)
    if "://" in where:  # an object store
        return dict(kind="shards", root=where)
    path = pathlib.Path(where).expanduser()
    if not path.is_dir():
        raise ValueError(
            f"data '{where}': wanted 'synthetic', a folder that exists, or an address as gs://…"
        )
    if (path / "index.json").exists():
        return dict(kind="shards", root=str(path))
    return dict(kind="source:Folder", root=str(path), **given)


def sources(where: str, rate: int = 16_000) -> dict[str, Any]:
    """Return a named source per place in "PLACE+PLACE…"; see `source`."""
    found: dict[str, Any] = {}
    for place in where.split("+"):
        name = re.sub(r"\W", "_", pathlib.Path(place).resolve().name)
        found[f"{name}_{len(found)}" if name in found else name] = source(place, rate)
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
    masking = "masking:Random" if patch[0] == bins else "masking:Cluster"
    frontend = dict(kind="fbank", bins=bins, frames=frames, mean=mean, std=std)
    return dict(
        kind="masked_spectrogram",
        **parts(frontend=frontend, encoder=encoder, size=size, patch=patch, depth=depth),
        masking=dict(kind=masking, count=masked),
        discriminate=1.0,
        reconstruct=10.0,
    )


def parts(
    *,
    frontend: dict[str, Any],
    encoder: str,
    size: str,
    patch: tuple[int, ...] = (16, 16),
    depth: int | None = None,
) -> dict[str, Any]:
    """Return frontend, tokenizer and encoder of patches that do not overlap."""
    grid = (frontend["bins"] // patch[0], frontend["frames"] // patch[1])
    built = sizes.encoder(encoder, size, grid, depth)
    tokenizer = dict(kind="patchify", width=built["width"], patch=patch, stride=patch)
    return dict(frontend=frontend, tokenizer=tokenizer, encoder=built)


def architecture(path: str) -> dict[str, Any]:
    """Return the configs of a run's `frontend`, `tokenizer` and `encoder`, to fine-tune them.

    Of an audio-text model, those of its audio tower.

    Raises:
      ValueError: `path` is not the workdir of a run of an encoder.
    """
    objective = trained(path)
    objective = objective.get("towers", {}).get("audio", objective)
    parts = ("frontend", "tokenizer", "encoder")
    if missing := [part for part in parts if part not in objective]:
        raise ValueError(f"pretrained={path}: its objective has no {', '.join(missing)}.")
    return {part: objective[part] for part in parts}


def warm_start(path: str, into: str = "") -> dict[str, Any]:
    """Return the options of `config.warm_start` that take the encoder out of a run; see `architecture`."""
    out_of = "" if "encoder" in trained(path) else "audio/"
    take = "^(tokenizer|encoder)/"
    return dict(encoder=dict(path=path, take=take, leave="", out_of=out_of, into=into))


def written(path: str) -> dict[str, Any]:
    """Return the config of a run or of an exported folder.

    Raises:
      ValueError: there is none.
    """
    file = pathlib.Path(path).expanduser() / "config.json"
    if not file.is_file():
        raise ValueError(f"{path}: no config.json there; wanted the workdir of a run.")
    return json.loads(file.read_text())


def trained(path: str, *keys: str) -> Any:
    """Return the objective of a run or of an exported folder, or an option in it.

    Raises:
      ValueError: there is no run, or its objective has no such option.
    """
    found = written(path)["objective"]
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise ValueError(f"{path}: its objective has no {'.'.join(keys)}.")
        found = found[key]
    return found


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
    """Return a whole run; its usual options are written out, for the reader."""
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


def few_steps(config: Any, samples: int) -> Any:
    """Return a run of four steps on eight made-up clips each: to see that it works at all."""
    rate = config.data.get("rate", 16_000)
    sound = dict(kind="synthetic", size=32, seconds=1.0) | (
        {} if rate == 16_000 else dict(rate=rate)
    )
    config.data.sources = ConfigDict(dict(synthetic=sound))
    config.data.update(batch_size=8, samples=samples)
    if "weights" in config.data:
        del config.data["weights"]
    config.steps = "4"
    for name in ("warmup", "plateau"):  # a number or a text, as it is
        config.optim[name] = type(config.optim[name])(0)
    config.record.update(every=1, figures="0")
    config.checkpoint.every = "2"
    return config


def short(
    *,
    objective: dict[str, Any],
    places: str,
    samples: int | None = None,
    batch: int = 8,
    steps: int = 500,
    optim: Optim = LAPTOP_OPTIM,
) -> ConfigDict:
    """Return a run for two cores: short crops, AdamW with a cosine.

    Clips shorter than a crop are joined with others, and every source is heard equally often. Crops
    are as long as the frontend's frames unless `samples` says otherwise.
    """
    frontend = objective["frontend"]
    rate = frontend.get("rate", 16_000)
    heard = sources(places, rate)
    data: dict[str, Any] = dict(
        sources=heard,
        weights=dict.fromkeys(heard, 1.0),
        batch_size=batch,
        samples=samples or crop(frontend, frontend["frames"]),
        fill="join",
    )
    data |= {} if rate == 16_000 else dict(rate=rate)
    return run(
        objective=objective,
        data=data,
        optim=optim,
        steps=steps,
        checkpoint=Checkpoint(every="10%"),
        record=Record(every=20, figures="20%"),
    )


def crop(frontend: Mapping[str, Any], frames: int) -> int:
    """Return the samples that give so many frames."""
    return frontend.get("window", 400) + frontend.get("hop", 160) * (frames - 1)


def pretrain(
    *,
    places: str,
    objective: dict[str, Any],
    batch: int,
    steps: int | str,
    optim: Optim,
    seconds: float = 10.0,
) -> ConfigDict:
    """Return a pretraining run as published: whole clips, cut at the end or padded."""
    rate = objective["frontend"].get("rate", 16_000)
    data: dict[str, Any] = dict(
        sources=sources(places, rate),
        batch_size=batch,
        samples=round(seconds * rate),
        crop="first",
    )
    data |= {} if rate == 16_000 else dict(rate=rate)
    return run(
        objective=objective,
        data=data,
        optim=optim,
        steps=steps,
        checkpoint=Checkpoint(every="2%"),
        record=Record(every=50, figures="5%"),
    )


def laptop(*, encoder: str, places: str) -> ConfigDict:
    """Return a pretraining run for two cores: see `short`; four layers."""
    frames = 128
    objective = masked_spectrogram(
        encoder=encoder, size="tiny", depth=4, patch=(16, 8), masked=0.6, frames=frames
    )
    objective["encoder"]["drop_path"] = 0.0
    objective["encoder"]["positions"]["start"] = LAPTOP_POSITIONS.get(encoder, "normal")
    return short(objective=objective, places=places)


def runlocal(config: Any) -> Any:
    """Shrink any run on patches to four steps that take seconds, to see that it works at all."""
    frames = 64
    objective = config.objective
    patch, stride = objective.tokenizer.patch, objective.tokenizer.stride
    objective.frontend.frames = frames
    objective.encoder.depth = 2
    objective.encoder.width = objective.tokenizer.width = 48
    rows, columns = grid(frames, objective.frontend.bins, patch, stride)
    objective.encoder.positions.grid = (rows, columns)
    if isinstance(objective.get("masking", {}).get("count"), int):  # a share may stay
        objective.masking.count = rows * columns // 2
    if "trunk" in objective.get("decoder", {}):
        objective.decoder.trunk.update(depth=2, width=32)
        objective.decoder.positions.grid = (rows, columns)
    return few_steps(config, config.data.get("rate", 16_000))
