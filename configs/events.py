"""Learn onsets and offsets: a linear head on each time column of an encoder, for `ssl-audio events`.

Marked:   ssl-audio train --config events:data=TABLE|FOLDER,pretrained=RUN --workdir runs/events
Clips:    events:clips=FOLDER|ESC10,pretrained=RUN   scenes made of labelled clips, where nobody marked any
Scratch:  without pretrained=RUN a small CNN, or encoder= and size=; without data or clips synthetic sounds
Try:      ssl-audio train --config events:runlocal --workdir runs/try
Results:  docs/events.md
"""

from typing import Any

from ssl_audio.config import build, parse_arg
from ssl_audio.data import entries, places
from ssl_audio.inference.encoder import Encoder
from ssl_audio.presets import runs
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record


def get_config(arg=""):
    a = parse_arg(
        arg, data="", clips="", pretrained="", encoder="", size="", seconds=0.0, batch=16, steps=2000,
        lr=1e-3, column="Annotation", runlocal=False,
    )  # fmt: skip
    if a.data and a.clips:
        raise ValueError("data, clips: wanted one of them: marked recordings, or labelled clips.")
    if not a.data:
        a.refuse("column", "it is of marked recordings, data=PLACE")
    if a.runlocal:
        a.refuse("seconds", "runlocal sets it")
    parts = architecture(a)
    frontend, tokenizer = parts["frontend"], parts["tokenizer"]
    rate = frontend.get("rate", 16_000)
    objective: dict[str, Any] = dict(kind="frame_tagging", **parts, criterion="sigmoid", window=0)
    pretraining = frontend.get("frames")
    built = build(dict(frontend), "frontend")
    if a.seconds or not pretraining:
        frames = round((a.seconds or 10.24) * rate / built.hop) // 8 * 8
        if pretraining and pretraining < frames:
            objective["window"] = pretraining // tokenizer["stride"][1]
        objective["frontend"] = frontend | (dict(frames=frames) if pretraining else {})
        samples = built.window + built.hop * (frames - 1)
    else:
        samples = built.window + built.hop * (pretraining - 1)
    source = events_source(a, rate, samples)
    names = tuple(build(dict(source), "data").info.labels)
    objective["head"] = dict(kind="classify:Frames", classes=len(names), rows="joined")
    audio = entries.audio(samples, gain=6.0) | dict(kind="event_entries:Events")
    audio |= grid(objective, samples) | dict(classes=len(names), names=names)
    data: dict[str, Any] = dict(
        sources=dict(marked=source), batch_size=a.batch, entries=dict(audio=audio)
    )
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
        objective.frontend.frames, objective.tokenizer.width = 64, 8
        objective.encoder.channels = (8, 8, 8)
        config = runs.few_steps(config, 10_480)
    samples = config.data.entries.audio.samples
    config.data.entries.audio.update(grid(config.objective, samples))
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
    if a.encoder:
        return runs.parts(frontend=frames, encoder=a.encoder, size=a.size or "tiny", patch=(16, 8))
    a.refuse("size", "the small CNN has one size; name an encoder too")
    return dict(
        frontend=frames,
        tokenizer=dict(kind="patchify", width=32, patch=(8, 2), stride=(8, 2)),
        encoder=dict(kind="cnn", channels=(32, 64, 128), convolutions=2, dropout=0.1),
    )


def grid(objective, samples: int) -> dict[str, Any]:
    """Return the columns of a clip as the options of an entry: how many, and where they lie."""
    plain = objective.to_dict() if hasattr(objective, "to_dict") else objective
    audio = dict(kind="entries:Audio", samples=samples)
    encoder = Encoder(build(plain, "objectives"), {}, dict(data=dict(entries=dict(audio=audio))))
    frames, hop, centre = encoder.frame_grid
    return dict(frames=frames, hop=hop, centre=float(centre))


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
