"""What the configs of music for videos share: towers, entries, a laptop run, its four-step version."""

import dataclasses
import pathlib
from typing import Any

from ssl_audio.data import entries
from ssl_audio.data import text as texts
from ssl_audio.data.tables import read
from ssl_audio.presets import audio_text, runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.storage.written import is_run
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

CLIP = 16_000  # samples of a laptop run's clips: 1 s
SECONDS = 10  # of published clips


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What differs between the published run and the laptop's.

    Attributes:
      audio, text: towers without projectors.
      words: how captions are cut.
      width, depth, heads: of the encoders of video and query.
      out: of the common space.
      samples: of a clip.
      rate: Hz.
      features, frames: width of the video's features, and how many of a clip.
    """

    audio: dict[str, Any]
    text: dict[str, Any]
    words: dict[str, Any]
    width: int
    depth: int
    heads: int
    out: int
    samples: int
    rate: int
    features: int
    frames: int


def sizes(a: Any) -> Sizes:
    """Return the sizes that a config's arguments ask for.

    Raises:
      ValueError: arguments that contradict each other.
    """
    if a.runlocal:
        a.refuse("data test encoder size width frames", "runlocal is on synthetic sounds")
    if not (a.laptop or a.runlocal):
        a.refuse("test", "it is for laptop")
        if is_run(a.encoder):
            a.refuse("size", "the encoder is a run's, and has its size")
        audio: dict[str, Any] = audio_text.published_sound(
            a.encoder, a.size, rate=48_000, hop=480, high=14_000.0
        )
        rate = audio["frontend"].get("rate", 16_000)
        text = audio_text.text_tower("bert", pooler=False)
        words = audio_text.caption_words(a.data, text, 64)
        return Sizes(
            audio | dict(frozen=True), text, words, 256, 2, 4, 256, SECONDS * rate, rate, a.width, a.frames
        )  # fmt: skip
    a.refuse("encoder size", "laptop and runlocal have a small one")
    if a.data == "synthetic":
        a.refuse("width frames", "synthetic videos have theirs")
    known: tuple[str, ...] = ()
    if a.data != "synthetic":
        rows = [row.get("text") or "" for row in read(pathlib.Path(a.data).expanduser())]
        said = [[row] if isinstance(row, str) else row for row in rows]
        known = texts.vocabulary([text for some in said for text in some])
    split, text = audio_text.small_text(known)
    kind = "captions:Templates" if a.data == "synthetic" else "captions:Own"
    words = dict(kind="text", words=split, length=16, captions=dict(kind=kind))
    audio = audio_text.sound_tower("cnn", frames=48, depth=2)
    audio["spec_augment"] = dict(kind="augment:SpecAugment", freq=8, time=8)
    width, frames = (64, 6) if a.data == "synthetic" else (a.width, a.frames)
    return Sizes(audio, text, words, 64, 1, 4, 64, CLIP, 16_000, width, frames)


def transformer(width: int, *, depth: int, heads: int) -> dict[str, Any]:
    """Return an encoder without positions: what order there is, the tokens say."""
    norm = dict(kind="norms:LayerNorm", eps=1e-6)
    return dict(
        kind="stack",
        width=width,
        depth=depth,
        block=dict(
            kind="blocks:PreNorm", mixer=dict(kind="attention", heads=heads), norm=norm, mlp=4.0
        ),
        final_norm=norm,
    )


def video_tower(a: Any, made: Sizes) -> dict[str, Any]:
    """Return a Transformer over the features of frames, without a projector."""
    del a
    encoder = transformer(made.width, depth=made.depth, heads=made.heads)
    positions = dict(kind="positions:Learned", grid=(1, made.frames), start="sincos_time")
    return dict(
        kind="towers:Tower",
        tokenizer=dict(kind="vectors:Projected", width=made.width),
        encoder=encoder | dict(positions=positions),
        pool=dict(kind="pools:Mean"),
        length="video_length",
        frozen=False,
    )


def run(
    a: Any,
    made: Sizes,
    objective: dict[str, Any],
    *,
    asked: tuple[str, ...],
    alphas: tuple[float, ...] = (),
    words: bool = False,
    classes: int = 0,
) -> Any:
    """Return the run of an objective with the towers `audio` and what asks for it.

    Args:
      a: the config's arguments.
      made: sizes.
      objective: options.
      asked: modalities of the queries that a laptop run is tested with.
      alphas: shares of the branch `class` that it is tested with.
      words: the batch has captions.
      classes: the batch has labels of so many.
    """
    small = a.laptop or a.runlocal
    parts: dict[str, Any] = dict(
        audio=entries.audio(made.samples),
        video=dict(kind="features", array="video", width=made.features, frames=made.frames),
    )
    parts |= dict(text=made.words) if words else {}
    parts |= dict(labels=dict(kind="entries:Labels", classes=classes)) if classes else {}
    frozen = [name for name, t in objective["towers"].items() if t.get("frozen")]
    optim = Optim(
        lr=1e-3 if small else 1e-4, weight_decay=0.01, warmup="10%", schedule="cosine", clip=1.0
    )
    optim.rates.update({f"^{name}/(tokenizer|encoder|pool)/": 0.0 for name in frozen})
    config = runs.run(
        objective=objective,
        data=dict(
            sources=dict(clips=_source(a.data, made)),
            batch_size=64 if small else 256,
            entries=parts,
            rate=made.rate,
        ),
        optim=optim,
        steps="400" if small else "50ep",
        checkpoint=Checkpoint(every="50%", keep=1),
        record=Record(every=20, figures="0"),
    )
    if not small and is_run(a.encoder):
        config.warm_start = written.warm_start(a.encoder, into="audio/")
    if a.test:
        tested = dict(parts) | dict(audio=entries.audio(made.samples, crop="first"))
        tested.pop("labels", None)
        config.evals = dict(
            gallery=dict(
                kind="gallery",
                source=_source(a.test, made),
                entries=tested,
                asked=asked,
                key="audio",
                relevant="label",
                alphas=alphas,
            )
        )
        config.eval_every = "50%"
    return runs.shrunk(config) if a.runlocal else config


def _source(data: str, made: Sizes) -> dict[str, Any]:
    if data == "synthetic":
        sounds = dict(kind="synthetic", rate=made.rate)
        return dict(
            kind="features:Drawn",
            source=sounds,
            array="video",
            frames=made.frames,
            width=made.features,
        )
    return audio_text.captioned(data, made.rate)
