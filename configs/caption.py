"""Captions by a small language model on a frozen encoder (ClipCap, Mokady et al. 2021, arXiv:2111.09734).

Run:      ssl-audio train --config caption:data=TABLE.csv,pretrained=RUN --workdir runs/caption
Laptop:   ssl-audio train --config caption:laptop,data=ESC-10,pretrained=RUN,fold=5 --workdir runs/caption10
Try:      ssl-audio train --config caption:runlocal --workdir runs/try
Data:     a table (path, text), prepared shards, ESC-10 or ESC-50, spoken digits; where clips have labels and
          no text, "a sound of LABEL"; default: synthetic sounds
Options:  prefix=8 (vectors that the words are told of a clip), learn (the encoder learns, too)
Results:  experiments/caption/README.md
"""

import logging
import pathlib
from typing import Any

from ssl_audio.config import build, parse_arg
from ssl_audio.data import entries, places, text
from ssl_audio.data.tables import read
from ssl_audio.eval import captions
from ssl_audio.presets import runs
from ssl_audio.storage import opened
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

TEMPLATE = "a sound of {}"
SIZES = {"laptop": (128, 2, 4), "base": (512, 6, 8)}  # of the language model: width, depth, heads
WORDS = {"laptop": 16, "base": 32}  # numbers of a caption, at most

log = logging.getLogger(__name__)


def get_config(arg=""):
    a = parse_arg(
        arg, data="synthetic", pretrained="", prefix=8, fold=0, learn=False, laptop=False, runlocal=False
    )  # fmt: skip
    if a.runlocal:
        a.refuse(
            "data pretrained fold laptop prefix", "runlocal is a small model on synthetic sounds"
        )
    if not a.pretrained:
        a.refuse("learn", "without pretrained=RUN the encoder learns anyway")
    if a.prefix < 1:
        raise ValueError(f"prefix={a.prefix}: wanted 1 or more.")
    size = "laptop" if a.laptop or a.runlocal else "base"
    parts = architecture(a)
    rate = parts["frontend"].get("rate", 16_000)
    samples = runs.crop(parts["frontend"], parts["frontend"]["frames"])
    train = source(a, rate)
    chosen, known = spoken(train, WORDS[size])
    words = dict(kind="text:Words", words=known, buckets=1)
    width, depth, heads = SIZES[size]
    objective = dict(
        kind="captioning",
        **parts,
        prefix=dict(kind="prefix_queries:Queries", width=width, count=a.prefix, heads=4),
        words=dict(
            kind="token_lm",
            model=dict(
                kind="codes_lm", books=1, codes=2 + len(known) + 1, width=width, depth=depth, heads=heads,
                hidden=4 * width,
            ),
            pattern=dict(kind="patterns:Delay", books=1),
            drop=0.0,
        ),
        frozen=bool(a.pretrained) and not a.learn,
    )  # fmt: skip
    data: dict[str, Any] = dict(
        sources=dict(train=train),
        batch_size=32 if a.laptop else 64,
        entries=dict(
            audio=entries.audio(samples),
            text=dict(kind="text", words=words, length=WORDS[size], captions=chosen),
        ),
    )
    data |= {} if rate == 16_000 else dict(rate=rate)
    config: Any = runs.run(
        objective=objective,
        data=data,
        optim=Optim(lr=1e-3, weight_decay=0.05, warmup="10%", schedule="cosine", clip=1.0),
        steps=600 if a.laptop else "30ep",
        checkpoint=Checkpoint(every="25%", keep=1),
        record=Record(every=20, figures="0"),
    )
    if a.learn:
        config.optim.rates = {"^(tokenizer|encoder)/": 0.1}
    if a.pretrained:
        runs.begin(config, a.pretrained)
    return runlocal(config) if a.runlocal else config


def runlocal(config):
    """Shrink to four steps."""
    config = runs.runlocal(config)
    config.objective.prefix.update(width=16, count=2, heads=2)
    config.objective.words.model.update(width=16, depth=1, heads=2, hidden=16)
    return config


def architecture(a) -> dict[str, Any]:
    """Return frontend, tokenizer and encoder: those of the pretrained run, or EAT's."""
    if not a.pretrained:
        frontend = dict(kind="fbank", bins=128, frames=1024)
        return runs.parts(frontend=frontend, encoder="eat", size="tiny" if a.laptop else "base")
    parts = runs.to_fine_tune(a.pretrained)
    if not parts["frontend"].get("frames"):
        raise ValueError(
            f"pretrained={a.pretrained}: its frontend has no fixed number of frames; wanted one of patches."
        )
    return parts


def source(a, rate: int) -> dict[str, Any]:
    """Return the config of what is learned: all but a fold of ESC, and takes 5 to 49 of spoken digits."""
    given = {} if rate == 16_000 else dict(rate=rate)
    path = pathlib.Path(a.data).expanduser()
    tables = [path / "meta.csv", path / "meta" / "esc50.csv"]
    if table := next((one for one in tables if one.is_file()), None):
        if a.fold not in range(6):
            raise ValueError(f"fold={a.fold}: wanted one of 1 to 5, which is left out, or 0: none.")
        classes = len({row["category"] for row in read(table, need=("category",))})
        kept = tuple(fold for fold in range(1, 6) if fold != a.fold)
        return dict(kind="sets.esc", root=str(path), subset=f"esc{classes}", folds=kept, **given)
    a.refuse("fold", "it is of ESC-10 and ESC-50")
    if path.is_dir() and is_digits(path):
        return dict(kind="sets.spoken_digit", root=str(path), split="train", **given)
    return places.source(a.data, rate)


def is_digits(path: pathlib.Path) -> bool:
    """Tell whether a folder is that of the Free Spoken Digit Dataset."""
    folder = path / "recordings" if (path / "recordings").is_dir() else path
    return any(folder.glob("[0-9]_*_[0-9]*.wav"))


def spoken(source: dict[str, Any], length: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return how a clip's caption is chosen, and all words that captions have.

    `length`: numbers of a caption, at most; the first says that it begins.
    """
    built = build(dict(source), "data")
    metas = [built.meta(i) for i in range(len(built))]
    said = [meta.get("text") or () for meta in metas]
    several = [(some,) if isinstance(some, str) else some for some in said]
    for meta, some in zip(metas, several, strict=True):
        if blank := [one for one in some if not captions.plain(one)]:
            raise ValueError(f"data: clip {meta['id']} has text {blank[0]!r}; wanted words.")
    texts = [one for some in several for one in some]
    if long := [one for one in texts if len(text.split(one)) > length - 1]:
        log.warning(
            "%d of %d captions have more than %d words and signs, and are cut there, as %s",
            len(long), len(texts), length - 1, opened.short(long[0]),
        )  # fmt: skip
    if all(said):
        return dict(kind="captions:Own"), text.vocabulary(texts)
    if any(said) or not built.info.labels:
        raise ValueError(
            f"data: {sum(not some for some in said)} of {len(said)} clips have no `text`; wanted captions or "
            "labels of all."
        )
    names = [name.replace("_", " ") for name in built.info.labels]
    known = text.vocabulary([TEMPLATE.replace("{}", name) for name in names])
    return dict(kind="captions:Templates", templates=(TEMPLATE,)), known
