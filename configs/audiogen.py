"""AudioGen (Kreuk et al. 2022, arXiv:2209.15352) as released later: sound from words, code by code.

Run:      ssl-audio train --config audiogen:data=TABLE.csv,codec=RUN,text=FOLDER --workdir runs/audiogen
Try:      ssl-audio train --config audiogen:runlocal --workdir runs/try
Laptop:   ssl-audio train --config audiogen:laptop,data=TABLE.csv,codec=runs/codec --workdir runs/laptop
Data:     tables with a column of captions (path, text), prepared shards; default: synthetic sounds
Options:  size=small|medium|large, codec=RUN (of config codec, or converted), mixed=0.5 (share of clips that
          are two at once), text=words (learned) or the folder of a converted T5 (frozen)
Results:  experiments/audiogen/README.md; published weights: ssl-audio convert --from musicgen
"""

from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data import entries, places
from ssl_audio.presets import codec, runs
from ssl_audio.presets.audio_text import any_words
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

SIZES = {"small": (1024, 24, 16), "medium": (1536, 48, 24), "large": (2048, 48, 32)}
STEPS = 100 * 2000
OPTIM = Optim(
    lr=5e-4, b1=0.9, b2=0.95, weight_decay=0.1, warmup=3000, schedule="cosine", clip=1.0, average=0.999
)  # fmt: skip
QUICK = Optim(lr=2e-3, b2=0.95, weight_decay=0.1, warmup="5%", schedule="cosine", clip=1.0)
SMALL_CODEC = dict(
    rate=8000, strides=(4, 5, 8), channels=16, width=64, books=4, codes=64, recurrent=1, windows=(), bins=1,
    judged=(), filters=1,
)  # fmt: skip
PUBLISHED_CODEC = dict(
    rate=16_000, strides=(2, 4, 5, 8), channels=64, width=128, books=4, codes=2048, recurrent=2, windows=(),
    bins=1, judged=(), filters=1,
)  # fmt: skip


def get_config(arg=""):
    a = parse_arg(
        arg,
        size="medium",
        data="synthetic",
        codec="",
        text="words",
        mixed=0.5,
        laptop=False,
        runlocal=False,
    )
    if a.size not in SIZES:
        raise ValueError(f"size '{a.size}': wanted one of {', '.join(SIZES)}.")
    if a.laptop:
        a.refuse("runlocal", "laptop is a run of its own")
    little = a.laptop or a.runlocal
    if little:
        a.refuse("size", "laptop and runlocal have one of their own")
    made = (
        codec.trained(a.codec)
        if a.codec
        else codec.without_training(codec.objective(**(SMALL_CODEC if little else PUBLISHED_CODEC)))
    )
    rate, books = made["frontend"]["rate"], made["quantizer"]["books"]
    width, depth, heads = (128, 4, 4) if little else SIZES[a.size]
    words, tower = any_words(a.text)
    objective = dict(
        kind="token_lm",
        model=dict(
            kind="codes_lm", books=books, codes=made["quantizer"]["codes"], width=width, depth=depth,
            heads=heads, hidden=4 * width, given=tower["tokenizer"]["width"],
        ),
        pattern=dict(kind="patterns:Delay", books=books),
        drop=0.1,
        codec=made,
        text=tower,
    )  # fmt: skip
    captions = (
        dict(kind="captions:Templates") if a.data == "synthetic" else dict(kind="captions:Own")
    )
    found = places.sources(a.data, rate)
    data = dict(
        sources=found,
        batch_size=32 if little else 128,
        entries=dict(
            audio=entries.audio(round(rate * (0.8 if little else 10)), crop="first"),
            text=dict(kind="text", words=words, length=16 if little else 64, captions=captions),
        ),
        rate=rate,
        compose=dict(kind="compose:Mixed", rate=rate, share=a.mixed) if a.mixed else None,
    )
    config: Any = runs.run(
        objective=objective,
        data=data,
        optim=QUICK if little else OPTIM,
        steps=2000 if little else STEPS,
        checkpoint=Checkpoint(every="10%"),
        record=Record(every=20, figures="0"),
    )
    starts = {}
    if a.codec:
        starts["codec"] = dict(path=a.codec, take=codec.TAKEN, leave="", out_of="", into="codec/")
    if a.text != "words":
        starts["text"] = dict(
            path=a.text, take="^(tokenizer|encoder)/", leave="", out_of="text/", into="text/"
        )
    if starts:
        config.warm_start = starts
    if a.runlocal:
        config.objective.model.update(width=16, depth=1, heads=2, hidden=16)
        return runs.few_steps(config, 1600)
    return config
