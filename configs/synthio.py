"""Synthio (Ghosh et al. 2025, arXiv:2410.02056): synthetic clips for a small labelled set.

Run:      ssl-audio stages --workdir runs/synthio --config synthio:data=FEW.csv,model=RUN,filter=CLAP
          writes pairs.csv, preferred (the model after Diffusion-DPO), captions.csv, sounds.csv and their
          sounds, and together.csv: the real and the accepted clips, with labels, for `ssl-audio finetune`.
          The same command goes on after an interruption.
Laptop:   add `laptop`
Try:      ssl-audio train --config synthio:runlocal --workdir runs/try
Data:     a table with columns path, label and, if there are captions, text
Options:  model=RUN of `diffusion`, that never heard the clips  filter=RUN: of audio and text, or a classifier
          threshold=0.85  template="Sound of a {}"  each=2 (captions of a clip)  rejected=2  seed=0
          rounds=3 (self-reflection)  generic=true (elements that no caption has)
          Ablations: align=false  mixcap=false  rounds=0  threshold=0
          stage=preferred, with previous=PAIRS.csv, for `ssl-audio train`
Results:  experiments/synthio/README.md
"""

import functools
import logging
import math
import pathlib
from collections.abc import Callable
from typing import Any

from ssl_audio.config import escaped, parse_arg
from ssl_audio.presets import diffusion, runs

log = logging.getLogger("ssl_audio")


def stages(arg: str) -> dict[str, str | Callable[[str, pathlib.Path], None]]:
    """Return the stages in turn, for `ssl-audio stages`: each one's argument, or what writes its file."""
    from ssl_audio.inference import augment

    a = arguments(arg)
    a.refuse("stage previous", "`ssl-audio stages` sets it")
    a.refuse("runlocal", "it is for one stage at a time")
    for name in ("data", "model") + (("filter",) if a.threshold else ()):
        if not getattr(a, name):
            raise ValueError(f"{name}: wanted, as {name}={'FEW.csv' if name == 'data' else 'RUN'}.")
    if "{}" not in a.template:
        raise ValueError(f"template: got {a.template!r}, wanted a place for the label, {{}}.")
    for name, least, most in (
        ("each", 1, math.inf), ("rejected", 1, math.inf), ("rounds", 0, math.inf), ("threshold", 0, 1),
    ):  # fmt: skip
        if not least <= getattr(a, name) <= most:
            wanted = f"at least {least}" if most > 1 else f"{least} to {most}"
            raise ValueError(f"{name}: got {getattr(a, name)}, wanted {wanted}.")
    augment.rows(a.data)  # before hours are spent
    small = dict(laptop=True) if a.laptop else {}
    made = functools.partial
    found: dict[str, Any] = {}
    if a.align:
        found["pairs.csv"] = made(pairs, a.data, a.model, a.template, a.rejected, a.seed)
        found["preferred"] = words(stage="preferred", model=a.model, **small)
    # The aligned model is that of the stage before.
    found["captions.csv"] = made(captions, a.data, a.each, a.template, a.generic, a.mixcap, a.seed)
    found["sounds.csv"] = made(
        sounds, "" if a.align else a.model, a.filter, a.threshold, a.rounds, a.template, a.seed
    )
    found["together.csv"] = made(together, a.data)
    return found


def words(**options: Any) -> str:
    """Return options as the argument of a config."""
    return ",".join(f"{key}={escaped(str(value))}" for key, value in options.items() if value)


def arguments(arg: str) -> Any:
    return parse_arg(
        arg, stage="preferred", data="", model="", filter="", previous="", threshold=0.85,
        template="Sound of a {}", each=2, rejected=2, rounds=3, seed=0, generic=True, align=True,
        mixcap=True, laptop=False, runlocal=False,
    )  # fmt: skip


def pairs(data, model, template, rejected, seed, previous: str, out: pathlib.Path) -> None:
    """Write a table of real clips and of generated ones that they are preferred to."""
    from ssl_audio.inference import augment
    from ssl_audio.inference.load import load
    from ssl_audio.storage import atomic

    del previous
    made = augment.pairs(
        load(model),
        augment.rows(data),
        _folder(out),
        template=template,
        rejected=rejected,
        seed=seed,
    )
    atomic.write(out, augment.table(made))


def captions(data, each, template, generic, mixcap, seed, previous: str, out: pathlib.Path) -> None:
    """Write new captions for each real clip."""
    from ssl_audio.data import mixcap as grammar
    from ssl_audio.inference import augment
    from ssl_audio.storage import atomic

    del previous
    made = augment.captions(
        augment.rows(data),
        each=each,
        template=template,
        generic=generic,
        seed=seed,
        propose=grammar.propose if mixcap else None,
    )
    atomic.write(out, augment.table(made))


def sounds(
    model, judge, threshold, rounds, template, seed, previous: str, out: pathlib.Path
) -> None:
    """Write sounds of the captions before, and which of them fit their labels."""
    from ssl_audio.inference import augment
    from ssl_audio.inference.load import load
    from ssl_audio.storage import atomic

    aligned = model or str(next(out.parent.glob("*_preferred")))
    made = load(aligned)
    name, score = "none", lambda sound, label: 1.0
    if threshold:
        name, score = augment.fitting(load(judge), template, made.rate)
    log.info("filter: %s, from %g on", name, threshold)
    found = augment.filtered(
        made,
        score,
        augment.rows(previous),
        _folder(out),
        threshold=threshold,
        rounds=rounds,
        template=template,
        seed=seed,
    )
    atomic.write(out, augment.table([row | {"filter": name} for row in found]))


def together(data, previous: str, out: pathlib.Path) -> None:
    """Write the real clips and the accepted sounds as one table."""
    from ssl_audio.inference import augment
    from ssl_audio.storage import atomic

    real = [(row, "real") for row in augment.rows(data)]
    made = [(row, "synthetic") for row in augment.rows(previous) if row["accepted"] == "1"]
    found = [
        {"path": row["path"], "label": row["label"], "origin": origin}
        for row, origin in [*real, *made]
    ]
    atomic.write(out, augment.table(found))


def get_config(arg=""):
    a = arguments(arg)
    a.refuse(
        "data filter threshold template each rejected rounds seed generic align mixcap",
        "it is for `ssl-audio stages`",
    )
    if a.stage != "preferred":
        raise ValueError(f"stage '{a.stage}': wanted preferred.")
    if a.runlocal:  # there is no run to begin from: the model itself
        a.refuse("model previous laptop", "runlocal is on synthetic sounds")
        return runs.few_steps(diffusion.model("synthetic", size="tiny", small=True), 3200)
    place = a.previous or "synthetic"
    if not a.model:  # nothing to prefer by yet: the model itself
        return diffusion.model(place, size="laptop" if a.laptop else "base", small=a.laptop)
    return diffusion.preference(place, a.model, small=a.laptop)


def _folder(out: pathlib.Path) -> pathlib.Path:
    """Return the folder of a table's sounds: 1_pairs for 1_pairs.csv."""
    return out.with_suffix("")
