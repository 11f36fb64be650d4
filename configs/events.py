"""Learn onsets and offsets: a head on each time column of an encoder, for `ssl-audio events`.

Marked:   ssl-audio train --config events:data=TABLE|FOLDER,pretrained=RUN --workdir runs/events
Clips:    events:clips=FOLDER|ESC10,pretrained=RUN   scenes made of labelled clips, where nobody marked any
Weak:     events:weak=PLACE   clips whose labels say what is somewhere in them, alone or beside data or clips
Heads:    head=linear|attention|crnn   attention: for labels of clips; crnn: that behind a recurrent layer
Scratch:  without pretrained=RUN a small CNN, or encoder=cnn14|… and size=; without data synthetic sounds
Try:      ssl-audio train --config events:runlocal --workdir runs/try
Results:  docs/events.md
"""

from typing import Any

from ssl_audio.backbones.cnn import CNN14
from ssl_audio.config import build, parse_arg
from ssl_audio.data import entries, event_tables, places
from ssl_audio.data import names as spelling
from ssl_audio.inference.encoder import Encoder
from ssl_audio.presets import runs
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

# Size of a Cnn14 → the part of the published channels that each block has.
CNN14_SHARES = {"base": 1, "small": 4, "tiny": 8}
HEADS: dict[str, dict[str, Any]] = {
    "linear": {}, "attention": dict(pool="attention"), "crnn": dict(pool="attention", recurrent=128),
}  # fmt: skip


def get_config(arg=""):
    a = parse_arg(
        arg, data="", clips="", pretrained="", encoder="", size="", seconds=0.0, batch=16, steps=2000,
        lr=1e-3, column="Annotation", weak="", head="", runlocal=False,
    )  # fmt: skip
    if a.data and a.clips:
        raise ValueError("data, clips: wanted one of them: marked recordings, or labelled clips.")
    if not a.data:
        a.refuse("column", "it is of marked recordings, data=PLACE")
    if a.head not in ("", *HEADS):
        raise ValueError(f"head '{a.head}': wanted one of {', '.join(HEADS)}.")
    if a.runlocal:
        a.refuse("seconds", "runlocal sets it")
    parts = architecture(a)
    frontend, tokenizer = parts["frontend"], parts["tokenizer"]
    rate = frontend.get("rate", 16_000)
    objective: dict[str, Any] = dict(kind="frame_tagging", **parts, criterion="sigmoid", window=0)
    pretraining = frontend.get("frames")
    built = build(dict(frontend), "frontend")
    if a.seconds or not pretraining:
        step = 32 if a.encoder == "cnn14" else 8  # frames of a column, or of some
        frames = round((a.seconds or 10.24) * rate / built.hop) // step * step
        if pretraining and pretraining < frames:
            objective["window"] = pretraining // tokenizer["stride"][1]
        objective["frontend"] = frontend | (dict(frames=frames) if pretraining else {})
        samples = built.window + built.hop * (frames - 1)
    else:
        samples = built.window + built.hop * (pretraining - 1)
    sources, names = events_sources(a, rate, samples)
    objective["head"] = head(a, parts["encoder"], len(names))
    audio = entries.audio(samples, gain=6.0) | dict(kind="event_entries:Events")
    audio |= grid(objective, samples) | dict(classes=len(names), names=names)
    data: dict[str, Any] = dict(sources=sources, batch_size=a.batch, entries=dict(audio=audio))
    if a.weak:
        audio["weak"], objective["clips"] = True, 1.0
        data["weights"] = dict.fromkeys(sources, 1.0)
    data |= {} if rate == 16_000 else dict(rate=rate)
    decay, faster = (runs.layer_decay(parts["encoder"]), 3.0) if a.pretrained else (1.0, 1.0)
    config = runs.run(
        objective=objective,
        data=data,
        optim=Optim(
            lr=a.lr, weight_decay=0.05, warmup="10%", schedule="cosine", clip=1.0,
            layer_decay=decay, rates={"^head/": faster},
        ),
        steps=a.steps,
        checkpoint=Checkpoint(every="10%", keep=1),
        record=Record(every=50, figures="20%"),
    )  # fmt: skip
    if a.pretrained:
        runs.begin(config, a.pretrained)
    return runlocal(config) if a.runlocal else config


def runlocal(config):
    """Shrink to four steps on clips of 0.65 s."""
    objective = config.objective
    if "positions" in objective.encoder:
        config = runs.runlocal(config)
    else:
        objective.frontend.frames = 64
        if "width" in objective.tokenizer:
            objective.tokenizer.width = 8
        objective.encoder.channels = (8, 8, 8)
        config = runs.few_steps(config, 10_480)
    samples = config.data.entries.audio.samples
    config.data.entries.audio.update(grid(config.objective, samples))
    if "marked" in config.data.sources:
        config.data.sources.marked.seconds = 2.0
    return config


def architecture(a) -> dict[str, Any]:
    """Return frontend, tokenizer and encoder: those of the pretrained run, or the ones asked for."""
    if a.pretrained:
        given = [name for name in ("encoder", "size") if getattr(a, name)]
        if given:
            raise ValueError(
                f"{', '.join(given)}: these come from the pretrained run; leave them out."
            )
        return runs.to_fine_tune(a.pretrained)
    frames = dict(kind="fbank", bins=128, frames=1024)
    if a.encoder == "cnn14":
        if (size := a.size or "base") not in CNN14_SHARES:
            raise ValueError(f"size '{size}': wanted one of {', '.join(CNN14_SHARES)}.")
        channels = tuple(width // CNN14_SHARES[size] for width in CNN14)
        return dict(
            frontend=frames | dict(bins=64),
            tokenizer=dict(kind="bins"),
            encoder=dict(kind="cnn", channels=channels, convolutions=2, dropout=0.2),
        )
    if a.encoder:
        return runs.parts(frontend=frames, encoder=a.encoder, size=a.size or "tiny", patch=(16, 8))
    a.refuse("size", "the small CNN has one size; name an encoder too")
    return dict(
        frontend=frames,
        tokenizer=dict(kind="patchify", width=32, patch=(8, 2), stride=(8, 2)),
        encoder=dict(kind="cnn", channels=(32, 64, 128), convolutions=2, dropout=0.1),
    )


def head(a, encoder, classes: int) -> dict[str, Any]:
    """Return the config of the head: Cnn14's own, or a linear layer on each column."""
    if a.encoder == "cnn14" and not a.head:
        return dict(kind="classify:Segments", classes=classes, width=encoder["channels"][-1])
    return dict(kind="classify:Frames", classes=classes, rows="joined") | HEADS[a.head or "linear"]


def grid(objective, samples: int) -> dict[str, Any]:
    """Return the columns of a clip as the options of an entry: how many, and where they lie."""
    plain = objective.to_dict() if hasattr(objective, "to_dict") else objective
    audio = dict(kind="entries:Audio", samples=samples)
    encoder = Encoder(build(plain, "objectives"), {}, dict(data=dict(entries=dict(audio=audio))))
    frames, hop, centre = encoder.frame_grid
    return dict(frames=frames, hop=hop, centre=float(centre))


def events_sources(a, rate: int, samples: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the configs of the sources by name, and the names of all of their classes."""
    found: dict[str, Any] = {}
    if a.data or a.clips or not a.weak:
        found["marked"] = events_source(a, rate, samples)
    if a.weak:
        found["weak"] = event_tables.weak(a.weak, rate)
    labels = {name: build(dict(source), "data").info.labels for name, source in found.items()}
    if not a.weak:
        return found, tuple(labels["marked"])
    names = tuple(sorted({n for some in labels.values() for n in some}, key=spelling.natural))
    if not names:
        raise ValueError(f"weak={a.weak}: no clip has a label.")
    found["weak"] = dict(kind="source:Renumbered", source=found["weak"], labels=names)
    if a.data:
        found["marked"]["labels"] = names
    elif "marked" in found:
        clips = found["marked"]["source"]
        found["marked"]["source"] = dict(kind="source:Renumbered", source=clips, labels=names)
    return found, names


def events_source(a, rate: int, samples: int) -> dict[str, Any]:
    """Return the config of the recordings, or of scenes made of clips."""
    given = {} if rate == 16_000 else dict(rate=rate)
    length = samples / rate
    if a.data:
        stretch = 2 * length if length < 30 else 0.0
        return dict(
            kind="annotated:Recordings", path=a.data, seconds=stretch, column=a.column, **given
        )
    place = places.source(a.clips or "synthetic", rate)
    if a.runlocal and not a.clips:
        place |= dict(size=24, seconds=0.5)
    return dict(kind="scenes", source=place, seconds=2 * length, size=a.batch * a.steps)
