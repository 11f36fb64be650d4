"""What the configs of audio-text systems share: towers, a laptop run on ESC-10, its four-step version."""

import pathlib
from typing import Any

from ml_collections import ConfigDict

from ssl_audio.backbones.cnn import CNN14
from ssl_audio.backbones.htsat import SIZES as HTSAT
from ssl_audio.data import entries
from ssl_audio.data import text as texts
from ssl_audio.data.banks import bank
from ssl_audio.data.captions import TEMPLATES
from ssl_audio.data.tables import read
from ssl_audio.frontend.fbank import STATS
from ssl_audio.presets import patch_encoders, runs
from ssl_audio.presets.text import bert, published
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.storage.written import is_run
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

CLIP = 40_000  # samples of a laptop run's clips: 2.5 s at 16 kHz
CLASSES = 10


def htsat(size: str, *, rate: int, hop: int, high: float) -> dict[str, Any]:
    """Return a tower of HTSAT as in CLAP; `rate` and `high` in Hz, `hop` in samples."""
    if size not in HTSAT:
        raise ValueError(f"size '{size}': wanted one of {', '.join(HTSAT)}.")
    width, depths, heads = HTSAT[size]
    return dict(
        tokenizer=dict(kind="folded", width=width),
        encoder=dict(kind="htsat", width=width, depths=depths, heads=heads, drop_path=0.1),
        pool=dict(kind="pools:Mean"),
        **_heard(rate, hop, high),
    )


def cnn14(size: str, *, rate: int, hop: int, high: float) -> dict[str, Any]:
    """Return a tower of PANNs' Cnn14, which has one `size`; `rate` and `high` in Hz, `hop` in samples.

    It has layer norms for batch norms: it begins from nothing, and no batch statistics are taken.
    """
    del size
    return dict(**_cnn14(CNN14), **_heard(rate, hop, high))


PUBLISHED = {"htsat": htsat, "cnn14": cnn14}


def published_sound(encoder: str, size: str, **sound: Any) -> dict[str, Any]:
    """Return an audio tower of PUBLISHED, or that of a run or a converted model, to go on with.

    Raises:
      ValueError: no such encoder or size.
    """
    if is_run(encoder):
        tower = written.trained(encoder).get("towers", {}).get("audio", {})
        kept = {name: value for name, value in tower.items() if name != "projector"}
        parts = written.architecture(encoder)
        return dict(kind="towers:Tower", pool=dict(kind="pools:Mean"), **parts) | kept
    if encoder not in PUBLISHED:
        raise ValueError(
            f"encoder '{encoder}': wanted the folder of a run, or one of {', '.join(PUBLISHED)}."
        )
    return PUBLISHED[encoder](size, **sound)


def _heard(rate: int, hop: int, high: float) -> dict[str, Any]:
    return dict(
        kind="towers:Tower",
        # Near zero mean and unit deviation: no batch statistics are taken.
        frontend=dict(
            kind="mel",
            rate=rate,
            hop=hop,
            window=1024,
            high=high,
            sixteen_bit=True,
            mean=-20.0,
            std=20.0,
        ),
        spec_augment=dict(kind="augment:SpecAugment", freq=9, time=65),
        length="length",
        frozen=False,
    )


def _cnn14(channels: tuple[int, ...]) -> dict[str, Any]:
    """Return tokenizer, encoder and pool."""
    norm = dict(kind="norms:LayerNorm", eps=1e-5)
    return dict(
        tokenizer=dict(kind="bins"),
        encoder=dict(kind="cnn", channels=channels, convolutions=2, norm=norm, dropout=0.2),
        pool=dict(kind="pools:MaxMean", width=channels[-1]),
    )


def text_tower(name: str, *, pooler: bool) -> dict[str, Any]:
    """Return a text tower of a published size; see `backbones.bert`."""
    return words_tower(**published(name, pooler=pooler))


def words_tower(**parts: Any) -> dict[str, Any]:
    """Return a text tower of a tokenizer, an encoder and a pool."""
    return dict(kind="towers:Tower", length="text_length", frozen=False, **parts)


def other_folds(fold: int) -> list[int]:
    """Return the folds of ESC but the one that is left out.

    Raises:
      ValueError: there is no such fold, so that all clips would be trained on.
    """
    if fold not in range(1, 6):
        raise ValueError(f"fold={fold}: wanted one of 1 to 5, which is left out.")
    return [other for other in range(1, 6) if other != fold]


def laptop(
    *, kind: str, root: str, fold: int, encoder: str, text: str, out: int = 128, **objective: Any
) -> Any:
    """Return a run on ESC-10 for two cores; one fold is kept for the zero-shot evaluation.

    Args:
      kind: of the objective; `objective` holds its other options.
      root: ESC-10's folder; "": synthetic sounds.
      fold: that is not trained on.
      encoder: see `sound_tower`.
      text: "words": a small text tower, learned from nothing; or the folder of a converted text model,
        which is then frozen.
      out: width of the common space.
    """
    folds = other_folds(fold)
    projector = dict(kind="projectors:Laion", out=out)
    names = labels(root)
    words, tower = text_of(text, names)
    data_text: dict[str, Any] = dict(
        kind="text", words=words, length=24, captions=dict(kind="captions:Templates", neutral=False)
    )
    data_text["captions"]["templates"] = TEMPLATES
    run: Any = runs.run(
        objective=dict(
            kind=kind,
            towers=dict(
                audio=sound_tower(encoder, frames=124, depth=4)
                | dict(
                    projector=projector,
                    spec_augment=dict(kind="augment:SpecAugment", freq=8, time=16),
                ),
                text=tower | dict(projector=projector),
            ),
            edges=(("audio", "text", 1.0),),
            **objective,
        ),
        data=dict(
            sources=dict(esc10=esc10(root, folds)),
            batch_size=64,
            entries=dict(audio=entries.audio(CLIP, fill="repeat"), text=data_text),
        ),
        optim=Optim(
            lr=1e-3,
            weight_decay=0.01,
            warmup="10%",
            schedule="cosine",
            clip=1.0,
            rates={"^text/(tokenizer|encoder)/": 0.0 if text != "words" else 1.0},
        ),
        steps="60ep",
        checkpoint=Checkpoint(every="50%", keep=1),
        record=Record(every=20, figures="0"),
    )
    run.evals = dict(
        zero_shot=dict(
            kind="zero_shot",
            source=esc10(root, [fold]),
            samples=CLIP,
            fill="repeat",
            text=dict(kind="text", words=words, length=24),
            # Those of training: one alone lies off the centre of all, which would count as a gap.
            templates=TEMPLATES,
            bank="",
        )
    )
    run.eval_every = "50%"
    starts: dict[str, Any] = {}
    if text != "words":
        starts |= dict(text=dict(path=text, take="^text/(tokenizer|encoder)/", leave=""))
    if is_run(encoder):
        starts |= written.warm_start(encoder, into="audio/")
        run.optim.rates["^audio/(tokenizer|encoder)/"] = 0.1
    if starts:
        run.warm_start = starts
    return run


def runlocal(config: Any) -> Any:
    """Shrink a laptop run to four steps on synthetic sounds."""
    audio = config.objective.towers.audio
    if "channels" in audio.encoder:
        audio.encoder.channels = (16, 16)
        if "width" in audio.tokenizer:
            audio.tokenizer.width = 16
    config.data.sources = ConfigDict(dict(synthetic=dict(kind="synthetic", size=32, seconds=1.0)))
    config.data.batch_size = 8
    config.data.entries.audio.samples = 16_000
    config.steps, config.eval_every = "4", "4"
    config.optim.update(warmup="0%", lr=1e-4)  # larger steps differ from machine to machine
    config.record.update(every=1, figures="0", clips=1)
    config.checkpoint.every = "2"
    for part in config.evals.values():
        part.samples = 16_000
        part.source = ConfigDict(dict(kind="synthetic", size=24, seconds=1.0))
    return config


def esc10(root: str, folds: list[int]) -> dict[str, Any]:
    """Return folds of ESC-10, or synthetic sounds when there is no root."""
    if not root:
        return dict(kind="synthetic", folds=tuple(folds))
    return dict(kind="sets.esc", root=root, subset="esc10", folds=tuple(folds))


def labels(root: str) -> tuple[str, ...]:
    """Return the class names of ESC-10 as its table has them; without a root, of the synthetic sounds."""
    if not root:
        from ssl_audio.data.synthetic import SOUNDS

        return tuple(SOUNDS)
    places = [pathlib.Path(root).expanduser() / name for name in ("meta/esc50.csv", "meta.csv")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ValueError(f"root={root}: neither meta/esc50.csv nor meta.csv there.")
    rows = [r for r in read(found) if r.get("esc10", "True") == "True"]
    return tuple(sorted({row["category"] for row in rows}))


def captioned(data: str, rate: int) -> dict[str, Any]:
    """Return the source of a manifest with captions, of its shards, or "synthetic" sounds; `rate` in Hz."""
    if pathlib.Path(data).expanduser().is_dir():
        return dict(kind="shards", root=data)
    if data == "synthetic":
        return dict(kind="synthetic", rate=rate)
    return dict(kind="source:Manifest", path=data, rate=rate)


def caption_words(data: str, tower: dict[str, Any], length: int) -> dict[str, Any]:
    """Return how captions are cut for a text tower that begins from nothing.

    To begin from published weights, set `words` to the tokenizer's file (`data/text.py`) and
    `warm_start`.
    """
    captions = dict(kind="captions:Templates" if data == "synthetic" else "captions:Own")
    words = dict(kind="text:Words", words=(), buckets=tower["tokenizer"]["vocab"] - 2)
    return dict(kind="text", words=words, length=length, captions=captions)


def sound_tower(encoder: str, *, frames: int, depth: int) -> dict[str, Any]:
    """Return a small audio tower at 16 kHz.

    Args:
      encoder: "cnn"; "cnn14", an eighth as wide as published; a name of `sizes.encoder`; or the workdir
        of a run that has pretrained one, to go on with.
      frames: of a clip, 20 ms apart.
      depth: of a Transformer or Mamba.

    Raises:
      ValueError: the run's encoder takes no patches, or sound at another rate.
    """
    tower = dict(kind="towers:Tower", spec_augment=None, length="length", frozen=False)
    if is_run(encoder):
        parts = written.architecture(encoder)
        front, patch = parts["frontend"], parts["tokenizer"].get("patch")
        if patch is None or front.get("rate", 16_000) != 16_000:
            raise ValueError(
                f"encoder={encoder}: its tokenizer is '{parts['tokenizer']['kind']}' and its rate "
                f"{front.get('rate', 16_000)} Hz; this laptop run wants patches of sound at 16000 Hz."
            )
        kept = 320 * frames // front.get("hop", 160)
        front["frames"] = kept // patch[1] * patch[1]
        return tower | parts | dict(pool=dict(kind="pools:Mean"))
    bins = 64
    make = ENCODERS.get(encoder, _patches)
    built = make(encoder, bins, frames, depth)
    stats = STATS["esc50"]
    return tower | dict(
        frontend=dict(
            kind="fbank", bins=bins, hop=320, window=640, mean=stats["mean"], std=stats["std"]
        ),
        **built,
    )


def _cnn(_encoder, _bins, _frames, _depth):
    return dict(
        tokenizer=dict(kind="patchify", width=64, patch=(4, 4), stride=(4, 4)),
        encoder=dict(kind="cnn", channels=(64, 128, 128), convolutions=1),
        pool=dict(kind="pools:Columns"),
    )


def _small_cnn14(_encoder, _bins, _frames, _depth):
    return _cnn14(tuple(width // 8 for width in CNN14))


def _patches(encoder, bins, frames, depth):
    patch = (16, 4)
    built = patch_encoders.encoder(
        encoder, "tiny", (bins // patch[0], frames // patch[1]), depth=depth
    )
    # A short run of a Transformer needs them to tell patches apart.
    built["positions"]["start"] = "sincos"
    return dict(
        tokenizer=dict(kind="patchify", width=built["width"], patch=patch, stride=patch),
        encoder=built,
        pool=dict(kind="pools:Mean"),
    )


ENCODERS = {"cnn": _cnn, "cnn14": _small_cnn14}


def small_text(known: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a tokenizer that knows some words, and a small text tower to learn from nothing."""
    buckets = 64
    words = dict(kind="text:Words", words=known, buckets=buckets)
    vocab = 2 + len(known) + buckets
    parts = bert(vocab=vocab, width=64, depth=1, heads=4, hidden=128, places=32, eps=1e-6)
    parts["encoder"]["remat"] = "none"
    return words, words_tower(**parts)


def any_words(where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tokenizer and the tower of "words", any of them, or of the folder of a converted text model.

    That of words learns, and hears their order; a converted one is frozen.
    """
    if where != "words":
        return text_of(where, ())
    words = dict(kind="text:Words", buckets=4096)
    parts = bert(vocab=2 + 4096, width=64, depth=1, heads=4, hidden=128, places=64, eps=1e-6)
    parts["encoder"]["remat"] = "none"
    return words, words_tower(**parts)


def text_of(where: str, names: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tokenizer and the tower of "words", or of the folder of a converted text model."""
    if where == "words":
        plain = [name.replace("_", " ") for name in names]
        return small_text(texts.vocabulary([*TEMPLATES, *plain, *bank("esc").sentences()]))
    config = written.read(where)
    try:
        tower = config["objective"]["towers"]["text"]
        words = config["data"]["entries"]["text"]["words"]
    except KeyError as error:
        raise ValueError(f"text={where}: its config has no {error}; is it a text model?") from None
    return words, tower | dict(frozen=True)
