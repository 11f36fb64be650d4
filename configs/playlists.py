"""Playlists (Papreja et al. 2019, arXiv:1907.01098): a list of items as one vector, by an autoencoder.

Run:      ssl-audio train --config playlists:stage=items,data=LISTS.jsonl --workdir runs/items
Then:     ssl-audio train --config playlists:data=LISTS.jsonl,items=runs/items --workdir runs/playlists
Try:      ssl-audio train --config playlists:runlocal --workdir runs/try
Data:     a table (CSV, TSV, JSON lines) of lists: items, label; or a row for each item: id, item;
          default: synthetic lists. Evaluated on test=LISTS: genre, order, swap, length, content
Options:  stage=lists|items  encoder=both|ahead|plain (in both directions; in one; in one, and a decoder that
          sees the vector only)  items=FOLDER: a run of stage=items, or of `write_items`: vectors of any
          model; size=base|tiny  length=64: items of a list that are taken  least=1: occurrences of an item
          that is kept  vocabulary=FILE: ids, one in a line
Results:  experiments/playlists/README.md
"""

import pathlib
from typing import Any

from ssl_audio.config import parse_arg
from ssl_audio.data.sequences import Chains, Sequences, vocabulary
from ssl_audio.presets import runs
from ssl_audio.storage import written
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

SIZES = {"base": (128, 128), "tiny": (32, 32)}  # width of items, hidden width of each direction
ENCODERS = {"both": (True, True), "ahead": (False, True), "plain": (False, False)}
MOST = 50_000  # ids that may stand in a config


def get_config(arg=""):
    a = parse_arg(
        arg,
        stage="lists",
        data="synthetic",
        test="",
        items="",
        vocabulary="",
        encoder="both",
        size="base",
        least=1,
        length=64,
        runlocal=False,
    )
    for name, known in (("stage", ("lists", "items")), ("size", SIZES), ("encoder", ENCODERS)):
        if (given := getattr(a, name)) not in known:
            raise ValueError(f"{name} '{given}': wanted one of {', '.join(known)}.")
    if a.runlocal:
        a.refuse(
            "data test items vocabulary size least length", "runlocal is tiny, on synthetic lists"
        )
    if a.data == "synthetic":
        a.refuse("test vocabulary least", "synthetic lists have their own")
    if a.stage == "items":
        a.refuse("items encoder", "that stage learns vectors of items, and has no encoder")
    if a.items:
        a.refuse("vocabulary least", "the items are those of the folder")
    if a.vocabulary:
        a.refuse("least", "the items are those of the file")
    width, hidden = SIZES["tiny" if a.runlocal else a.size]
    known = written.read(a.items) if a.items else {}
    entry, count = _entry(a, known)
    if known:
        width = known["objective"]["items"]["width"]
    items = dict(kind="lookup", count=count, width=width)
    if a.stage == "items":
        objective: dict[str, Any] = dict(kind="skip_gram", items=items, window=5, negatives=5)
    else:
        both, attention = ENCODERS[a.encoder]
        objective = dict(
            kind="sequence_autoencoder",
            items=items,
            encoder=dict(kind="recurrent", hidden=hidden, both=both),
            decoder=dict(kind="sequence:SequenceDecoder", hidden=hidden, attention=attention),
            drop=0.5,
            sampled=0 if count < 10_000 else 4096,
        )
    optim = Optim(lr=2e-3, weight_decay=0.0, warmup="5%", schedule="cosine", clip=1.0)
    if known:
        optim.rates.update({"^items/": 0.0})
    config: Any = runs.run(
        objective=objective,
        data=dict(sources=dict(lists=_source(a.data)), batch_size=64, entries=dict(items=entry)),
        optim=optim,
        steps="20ep" if a.data != "synthetic" else "1500",
        checkpoint=Checkpoint(every="10%"),
        record=Record(every=50, figures="0"),
    )
    if a.stage == "items":  # two tables are all there is
        config.sharding.rules = ((".*", "tensor"),)
    if known:
        take = dict(path=a.items, take="^items/", leave="")
        config.warm_start = dict(items=take)
    if a.stage == "lists" and (a.test or a.data == "synthetic"):
        test = _source(a.test) if a.test else dict(kind="sequences:Chains", seed=1)
        config.evals = dict(tasks=dict(kind="sequences:SequenceTasks", source=test, items=entry))
        config.eval_every = "50%"
    return runlocal(config) if a.runlocal else config


def runlocal(config):
    """Shrink a run to four steps on few synthetic lists."""
    config.data.batch_size = 8
    config.data.sources.lists.size = 32
    config.steps = "4"
    config.optim.update(warmup="0%")
    config.record.update(every=1, figures="0", clips=1)
    config.data.entries["items"].length = 20
    config.checkpoint.every = "2"
    if "evals" in config:
        config.evals.tasks.source.size = 60
    return config


def _source(data):
    if data == "synthetic":
        return dict(kind="sequences:Chains", size=600)
    return dict(kind="sequences:Sequences", path=data)


def _entry(a, known):
    """Return the entry of items, and how many there are."""
    entry: dict[str, Any] = dict(kind="sequences:Items", length=a.length, crop="random")
    if known:
        found = written.entry(known, "items")
        names = {name: found[name] for name in ("names", "file") if found.get(name)}
        count = known["objective"]["items"]["count"]
        return entry | names | dict(unknown="refuse"), count
    if a.vocabulary:
        path = pathlib.Path(a.vocabulary).expanduser()
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.is_file() else []
        count = sum(bool(line.strip()) for line in lines)
        return entry | dict(file=str(path), unknown="skip"), max(1, count)
    if a.data == "synthetic":
        names = Chains().names
    elif pathlib.Path(a.data).expanduser().is_file():
        source = Sequences(a.data)
        names = vocabulary([source.meta(i)["items"] for i in range(len(source))], a.least)
    else:
        raise ValueError(f"data '{a.data}': no such file; wanted a table of lists, or 'synthetic'.")
    if not 0 < len(names) <= MOST:
        raise ValueError(
            f"data '{a.data}': {len(names)} items occur {a.least} times or more; wanted 1 to {MOST} in a "
            "config: raise least=, or give their ids as a file, vocabulary=FILE."
        )
    return entry | dict(names=names, unknown="skip" if a.least > 1 else "refuse"), len(names)
