"""What configs share: pretraining data, the pretraining run, its laptop and two-step versions."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ssl_audio.config import build, plain
from ssl_audio.frontend.fbank import STATS
from ssl_audio.presets import patch_encoders
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.tokens.patchify import grid
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

# Readers of sound files and ml_collections are imported in functions only: a machine without them can
# still build an objective and run its training step.
if TYPE_CHECKING:
    from ml_collections import ConfigDict

CHECKPOINT = ("every", "keep", "keep_every", "best")  # its usual options
# A short run of a Transformer needs them to tell masked patches apart; a scan knows its order without.
LAPTOP_POSITIONS = {"ssast": "sincos"}
LAPTOP_OPTIM = Optim(lr=1e-3, b2=0.98, weight_decay=0.01, warmup="5%", schedule="cosine", clip=1.0)
LAPTOP_SPEECH: dict[str, Any] = dict(
    samples=20_720, steps=2000, optim=dataclasses.replace(LAPTOP_OPTIM, lr=4e-4)
)


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
    """Return the objective of SSAST and SSAMBA; they differ in `encoder` only."""
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
    built = patch_encoders.encoder(encoder, size, grid, depth)
    tokenizer = dict(kind="patchify", width=built["width"], patch=patch, stride=patch)
    return dict(frontend=frontend, tokenizer=tokenizer, encoder=built)


def run(
    *,
    objective: dict[str, Any],
    data: dict[str, Any],
    optim: Optim,
    steps: int | str,
    checkpoint: Checkpoint,
    record: Record,
    accumulate: int = 1,
) -> "ConfigDict":
    """Return a whole run; its usual options are written out, for the reader."""
    from ml_collections import ConfigDict

    defaults = dict(
        kind="pipeline",
        mixup=0.0,
        balanced=False,
        seed=0,
        workers=0,
        threads=8,
        max_bad_share=0.01,
    )
    return ConfigDict(
        dict(
            objective=objective,
            data=defaults | data,
            optim=_kind(optim) | dataclasses.asdict(optim),
            steps=str(steps),
            seed=0,
            accumulate=accumulate,
            sharding=dict(data=-1, fsdp=1, tensor=1, max_replicated=0.02),
            checkpoint={key: getattr(checkpoint, key) for key in CHECKPOINT},
            record=dataclasses.asdict(record),
        )
    )


def _kind(optim: Optim) -> dict[str, str]:
    """Return what names an optimizer in a config; Adam needs no name."""
    file = type(optim).__module__.rpartition(".")[2]
    return {} if type(optim) is Optim else {"kind": f"{file}:{type(optim).__name__}"}


def few_steps(config: Any, samples: int) -> Any:
    """Return a run of four steps on eight clips each: a check that it runs.

    Synthetic sounds become few and short; other data stays.
    """
    from ml_collections import ConfigDict

    rate = config.data.get("rate", 16_000)
    sound = dict(kind="synthetic", size=32, seconds=1.0) | (
        {} if rate == 16_000 else dict(rate=rate)
    )
    for data in (config.data, *config.data.get("beside", {}).values()):
        if all(source.kind == "synthetic" for source in data.sources.values()):
            data.sources = ConfigDict(dict(synthetic=sound))
            if "weights" in data:
                del data["weights"]
        data.batch_size = 8
        data.entries.audio.samples = samples
    config.steps = "4"
    for name in ("warmup", "plateau"):  # a number or a text, as it is
        config.optim[name] = type(config.optim[name])(0)
    config.record.update(every=1, figures="0", clips=1)
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
) -> "ConfigDict":
    """Return a run for two cores: short crops, AdamW with a cosine.

    Clips shorter than a crop are lengthened by others, and every source is drawn equally often. Crops
    are as long as the frontend's frames unless `samples` says otherwise.
    """
    from ssl_audio.data.entries import audio
    from ssl_audio.data.places import sources

    frontend = objective["frontend"]
    rate = frontend.get("rate", 16_000)
    found = sources(places, rate)
    data: dict[str, Any] = dict(
        sources=found,
        weights=dict.fromkeys(found, 1.0),
        batch_size=batch,
        entries=dict(audio=audio(samples or crop(frontend, frontend["frames"]), fill="join")),
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


def layer_decay(encoder: Mapping[str, Any], share: float = 0.75) -> float:
    """Return `Optim.layer_decay` to fine-tune an encoder: `share`, or 1 without one stack of layers."""
    return share if "depth" in encoder else 1.0


def to_fine_tune(path: str) -> dict[str, Any]:
    """Return `written.architecture` of a run whose encoder can become a classifier.

    Raises:
      ValueError: it is no run of an encoder, or its tokens do not lie along time, as `Classifier` needs.
    """
    from ssl_audio.storage import written

    parts = written.architecture(path)
    kind = parts["tokenizer"]["kind"]
    if not hasattr(build(dict(parts["tokenizer"]), "tokens"), "grid"):
        raise ValueError(
            f"pretrained={path}: its encoder makes one image of a clip (tokenizer {kind!r}), without columns "
            "along time, and cannot be fine-tuned. Classify by its features instead: ssl-audio evaluate "
            f"--checkpoint {path} --set folder --root SOUNDS --save PROBE."
        )
    return parts


def begin(config: Any, path: str) -> None:
    """Let a run begin from the encoder of another, and its model end clips as that one does."""
    from ssl_audio.storage import written

    with config.unlocked():
        config.warm_start = written.warm_start(path)
        pad = written.read(path).get("inference", {}).get("pad")
        if pad:
            config.inference = dict(config.get("inference", {}), pad=pad)


def crop(frontend: Mapping[str, Any], frames: int) -> int:
    """Return the number of samples that give this number of frames."""
    built = build(dict(frontend), "frontend")
    return built.window + built.hop * (frames - 1)


def pretrain(
    *,
    places: str,
    objective: dict[str, Any],
    batch: int,
    steps: int | str,
    optim: Optim,
    seconds: float = 10.0,
) -> "ConfigDict":
    """Return a pretraining run as published: whole clips, cut at the end or padded."""
    from ssl_audio.data.entries import audio
    from ssl_audio.data.places import sources

    rate = objective.get("frontend", {}).get(
        "rate", 16_000
    )  # codes are learned from a teacher's features
    data: dict[str, Any] = dict(
        sources=sources(places, rate),
        batch_size=batch,
        entries=dict(audio=audio(round(seconds * rate), crop="first")),
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


def laptop(*, encoder: str, places: str) -> "ConfigDict":
    """Return a pretraining run for two cores: see `short`; four layers."""
    frames = 128
    objective = masked_spectrogram(
        encoder=encoder, size="tiny", depth=4, patch=(16, 8), masked=0.6, frames=frames
    )
    objective["encoder"]["drop_path"] = 0.0
    objective["encoder"]["positions"]["start"] = LAPTOP_POSITIONS.get(encoder, "normal")
    return short(objective=objective, places=places)


def runlocal(config: Any) -> Any:
    """Shrink any run on patches to four steps that take seconds: a check that it runs."""
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
    return few_steps(config, crop(objective.frontend, frames))


def from_pretrained(config: Any, a: Any) -> Any:
    """Return a pretraining run, begun from the encoder of another run if `a.pretrained` names one.

    Frontend, tokenizer and encoder are those of that run. What follows from them follows: grids of
    positions, lengths and rates of clips, the widths of what reads the encoder, how many patches are hidden.

    Args:
      config: the run, with an architecture of its own.
      a: the arguments of its config.

    Raises:
      ValueError: arguments that name an architecture; a run whose encoder reads other tokens.
    """
    if not a.pretrained:
        return config
    from ssl_audio.storage import written

    a.refuse("size encoder patch runlocal", "the architecture is that of pretrained=RUN")
    old = {part: plain(config.objective[part]) for part in ("frontend", "tokenizer", "encoder")}
    new = plain(written.architecture(a.pretrained))
    kinds = [parts["tokenizer"]["kind"] for parts in (old, new)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"pretrained={a.pretrained}: its encoder reads tokens of {kinds[1]!r}, this config makes those "
            f"of {kinds[0]!r}: name the config of its own method, or of one like it."
        )
    backbones = [parts["encoder"]["kind"] for parts in (old, new)]
    if backbones[0] != backbones[1]:
        raise ValueError(
            f"pretrained={a.pretrained}: its encoder is a {backbones[1]!r}, this method trains a "
            f"{backbones[0]!r}: name the config of its own method, or of one like it."
        )
    objective = _adapted(plain(config.objective), old, new) | new
    drop_path = old["encoder"].get("drop_path")
    if drop_path is not None:
        objective["encoder"] = objective["encoder"] | dict(drop_path=drop_path)
    tokens = [_tokens(parts) for parts in (old, new)]
    count = objective.get("masking", {}).get("count")
    if isinstance(count, int) and all(tokens):
        objective["masking"]["count"] = max(1, round(count * tokens[1] / tokens[0]))
    lengths = [_crop(parts["frontend"]) for parts in (old, new)]
    rates = [parts["frontend"].get("rate", 16_000) for parts in (old, new)]
    factor = lengths[1] / lengths[0] if all(lengths) else rates[1] / rates[0]
    if "crop" in objective:
        objective["crop"] = round(objective["crop"] * factor)
    with config.unlocked():
        config.objective = objective
        config.data.entries.audio.samples = round(config.data.entries.audio.samples * factor)
        if rates[0] != rates[1]:
            config.data.rate = rates[1]
            for source in config.data.sources.values():
                if source.kind != "shards":
                    source.rate = rates[1]
    begin(config, a.pretrained)
    return config


def _adapted(value: Any, old: dict[str, Any], new: dict[str, Any]) -> Any:
    """Return options with the new frontend, grid, width and special tokens where they had the old ones."""
    if value == old["frontend"]:
        return new["frontend"]
    if isinstance(value, tuple):
        return tuple(_adapted(part, old, new) for part in value)
    if not isinstance(value, dict):
        return value
    encoders, grids = (
        (old["encoder"], new["encoder"]),
        [parts["encoder"].get("positions", {}).get("grid") for parts in (old, new)],
    )
    found = {}
    for key, part in value.items():
        if key == "grid" and part == grids[0] and grids[1]:
            part = grids[1]
        elif key == "rows" and grids[0] and part == grids[0][0] and grids[1]:
            part = grids[1][0]
        elif key in ("width", "hidden", "special") and type(part) is int:
            sizes = [
                encoder.get("special" if key == "special" else "width") for encoder in encoders
            ]
            part = sizes[1] if part == sizes[0] and sizes[1] is not None else part
        found[key] = _adapted(part, old, new)
    return found


def _tokens(parts: Mapping[str, Any]) -> int:
    """Return the number of patches of a clip; 0: it has no fixed one."""
    frontend, tokenizer = parts["frontend"], parts["tokenizer"]
    if tokenizer["kind"] != "patchify" or not frontend.get("frames"):
        return 0
    shape = tokenizer["patch"], tokenizer["stride"]
    rows, columns = grid(frontend["frames"], frontend.get("bins", 128), *shape)
    return rows * columns


def _crop(frontend: Mapping[str, Any]) -> int:
    """Return the samples that a frontend's frames are made of; 0: it has no fixed number."""
    return crop(frontend, frontend["frames"]) if frontend.get("frames") else 0


def shrunk(config: Any) -> Any:
    """Shrink a laptop run whose clips are synthetic to four steps on 32 of them of a second."""
    config.data.batch_size = 8
    config.steps = "4"
    config.optim.update(warmup="0%", lr=1e-4)  # larger steps differ from machine to machine
    config.record.update(every=1, figures="0", clips=1)
    config.checkpoint.every = "2"
    for source in config.data.sources.values():
        while "source" in source:
            source = source.source
        source.update(size=32, seconds=1.0)
    return config
