"""The run that `finetune:data=…` describes: classes, length of clips, parts, steps, all from the data.

`configs/finetune.py` calls `run` with the architecture of a pretrained encoder.
"""

import collections
import difflib
import logging
import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio import config
from ssl_audio.presets import runs
from ssl_audio.storage.checkpoint import Checkpoint
from ssl_audio.train.optim import Optim
from ssl_audio.train.record import Record

LONGEST = 10.0  # s of a clip, unless asked for more
LOOKED_AT = 48  # clips whose length is looked at
STEPS = (200, 20_000)  # at least and at most; ten epochs in between
UNEVEN = 2.0  # clips of the most frequent class over those of the rarest: from here on balanced

log = logging.getLogger("ssl_audio")


def run(
    parts: dict[str, Any],
    *,
    data: str,
    validation: str = "",
    test: str = "",
    by: Sequence[str] = (),
    share: float = 0.2,
    fold: int = 0,
    seconds: float = 0.0,
    steps: str = "",
    batch: int = 16,
    max_bad_share: float = 0.01,
    window: int = 0,
) -> Any:
    """Return the config of a run that fine-tunes an encoder on a user's labelled clips.

    Args:
      parts: options of its frontend, tokenizer and encoder.
      data, validation, test: where the clips lie; validation and test: "": parts of `data`.
      by, share, fold: see `data.labelled`.
      seconds: of a clip; 0: as long as nearly all clips are, at most `LONGEST`.
      steps: a number of updates or of epochs ("20ep"); "": ten epochs within `STEPS`.
      batch: clips.
      max_bad_share: of clips that are missing or cannot be read.
      window: columns that the encoder was pretrained on, if it was fine-tuned before; see `Tagging`.

    Raises:
      ValueError: the data cannot be read or understood, or too much of it is missing.
    """
    from ssl_audio.data import places
    from ssl_audio.data.entries import audio

    rate = parts["frontend"].get("rate", 16_000)
    share = 0.0 if validation else share
    division = dict(share=share, by=tuple(by), fold=fold)
    options = dict(kind="labelled", source=places.source(data, rate), **division)
    whole: Any = config.build(options, "data", path=f"data={data}")
    found, names = whole.found, whole.info.labels
    check_files(whole.source, max_bad_share, data)
    _describe(found, names, data, share)
    warn_of_names(names, found)
    sources = {"train": options | dict(part="train")}
    for part, place in (("validation", validation), ("test", test)):
        if place:
            sources[part] = dict(kind="labelled", source=places.source(place, rate), share=0.0)
            check_kind(sources[part], found.several, part, place)
        elif len(found.parts[part]):
            sources[part] = options | dict(part=part)
    usual = durations(whole)
    length = seconds or min(math.ceil(10 * np.quantile(usual, 0.95)) / 10, LONGEST)
    objective, samples = cut(parts, length, window)
    objective |= dict(
        kind="tagging",
        head=dict(kind="classify:Classifier", classes=len(names), pool="stats"),
        criterion="sigmoid" if found.several else "softmax",
        smoothing=0.0,
    )
    counts = found.counts["train"][found.counts["train"] > 0]
    balanced = bool(counts.max() >= UNEVEN * counts.min())
    if balanced:
        log.info(
            "classes have %d to %d training clips: rare ones are drawn as often as common ones "
            "(data.balanced)", counts.min(), counts.max(),
        )  # fmt: skip
    weighted = _weighted(whole.source)
    if weighted:
        log.info("%s: clips count in the loss as its column 'weight' says", data)
    size = len(found.parts["train"])
    epochs = min(max(STEPS[0], 10 * size // batch), STEPS[1])
    name = places.name(data)
    made: Any = runs.run(
        objective=objective,
        data=dict(
            sources={name: sources["train"]},
            batch_size=batch,
            entries=dict(
                audio=audio(samples, speed=0.1, gain=6.0),
                label=dict(kind="entries:Labels", classes=len(names), names=names),
                **({"weight": dict(kind="entries:Weight")} if weighted else {}),
            ),
            mixup=0.3,
            balanced=balanced,
            max_bad_share=max_bad_share,
            rate=rate,
        ),
        optim=optimizer(parts["encoder"]),
        steps=steps or str(epochs),
        checkpoint=Checkpoint(every="20%", keep=1, best=_best(sources, found.several)),
        record=Record(every=20, figures="0"),
    )
    if made.checkpoint.best:
        made.checkpoint.load_best = True
    made.evals = {
        part: dict(
            kind="classify",
            source=sources[part],
            samples=samples,
            classes=len(names),
            batch_size=batch,
            views=min(5 * views(length, samples, rate), views(np.median(usual), samples, rate)),
            max_bad_share=max_bad_share,
        )
        for part in ("validation", "test")
        if part in sources
    }
    made.eval_every = "20%"
    return made


def check_kind(options: dict[str, Any], several: bool, part: str, place: str) -> None:
    """See that clips to score on have one label or several, as those of the training; `options` may change.

    Raises:
      ValueError: they have several, and those of the training one.
    """
    made: Any = config.build(options, "data", path=f"{part}={place}")
    if made.found.several and not several:
        raise ValueError(
            f"{part}={place}: clips have several labels (a column 'labels', or rows that name one clip), and "
            "those to learn from one each: what is scored must be as what is learned. A column 'labels' in "
            "the data to learn from makes it a model of several."
        )
    if several:
        options["several"] = True


def _weighted(source: Any) -> bool:
    """Tell whether a source says how much its clips count."""
    from ssl_audio.data.labelled import columns_of

    columns = columns_of(source)
    return columns is not None and bool((~np.isnan(columns.number("weight"))).any())


def _best(sources: Mapping[str, Any], several: bool) -> str:
    if "validation" not in sources:
        return ""
    return "validation/mAP" if several else "validation/balanced_accuracy"


def optimizer(encoder: Mapping[str, Any]) -> Optim:
    """Return AdamW with rates that fall from the head down, and lower ones for wider encoders."""
    width = encoder.get("width") or 768
    return Optim(
        lr=7e-4 * min(1.0, 192 / width), weight_decay=0.05, warmup="10%", schedule="cosine", clip=1.0,
        layer_decay=runs.layer_decay(encoder), rates={"^head/": 3.0},
    )  # fmt: skip


def cut(parts: dict[str, Any], seconds: float, window: int) -> tuple[dict[str, Any], int]:
    """Return the architecture for clips of so many seconds, and their samples.

    A grid of patches is as long as the clip, and so are tokens whose positions count from the begin. A grid
    that is longer than those of pretraining is encoded in windows, where those were short.
    """
    made = {name: dict(options) for name, options in parts.items()}
    frontend, tokenizer = made["frontend"], made["tokenizer"]
    rate, pretraining = frontend.get("rate", 16_000), frontend.get("frames") or 0
    samples = round(seconds * rate)
    built = config.build(frontend | dict(frames=None), "frontend")
    count = built.count(max(samples, built.window))
    patches = tokenizer["kind"] == "patchify"
    if not patches and pretraining and count > pretraining:
        log.info("clips are cut to the %d frames that the encoder takes", pretraining)
        return made, built.window + built.hop * (pretraining - 1)
    # Whisper's positions go on from the clip's begin: the silence up to 30 s need not be heard.
    positions = made["encoder"].get("positions") or {}
    shortened = pretraining and positions.get("cut") == "start"
    if not patches and not shortened:
        return made, samples
    grid = config.build(tokenizer, "tokens")
    stride = grid.stride[1]
    frames = max(-(-count // stride) * stride, grid.patch[1])
    frontend["frames"] = frames
    if not patches:
        return made, runs.crop(frontend, frames)
    if not window and 0 < pretraining < frames:
        window = pretraining // stride
    objective: dict[str, Any] = made
    return objective | (dict(window=window) if window else {}), runs.crop(frontend, frames)


def views(seconds: float, samples: int, rate: int) -> int:
    """Return how many windows of so many samples cover so many seconds, but for a twentieth of one."""
    return max(1, math.ceil(float(seconds) * rate / samples - 0.05))


def durations(source: Any) -> np.ndarray:
    """Return the length of some clips that can be read, s, from all over a source.

    Raises:
      ValueError: none of them can be read.
    """
    from ssl_audio.data.decode import DecodeError

    found, why = [], ""
    for i in np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).astype(int)).tolist():
        try:
            example = source.open(i)
        except DecodeError as error:
            why = str(error)
            continue
        found.append(len(example["audio"]) / example["rate"])
    if not found:
        raise ValueError(f"{source.info.name}: none of the clips looked at can be read: {why}")
    return np.array(found)


def check_files(source: Any, max_bad_share: float, where: str) -> None:
    """Warn of files that a table names and that are not there; refuse too many of them."""
    clips = getattr(source, "clips", None)
    if not hasattr(source, "path") or clips is None:
        return
    paths = dict.fromkeys(clip.path for clip in clips)
    missing = [path for path in paths if not os.path.exists(path)]
    if not missing:
        return
    few = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    said = f"{where}: {len(missing)} of {len(paths)} files are missing: {few}"
    if len(missing) > max(1.0, max_bad_share * len(paths)):
        raise ValueError(
            f"{said}. Paths are relative to the table's folder. Repair or remove the rows; "
            "max_bad_share=0.1 goes on without up to a tenth of the files."
        )
    log.warning("%s; other clips are drawn instead", said)


def _describe(found: Any, names: Sequence[str], where: str, wanted: float) -> None:
    """Log the classes, the parts, and what of the data is not used; `wanted`: share for validation."""
    sizes = {name: len(rows) for name, rows in found.parts.items() if len(rows)}
    total = found.total
    kind = "several labels a clip" if found.several else "one label a clip"
    log.info("%s: %d clips of %d classes, %s", where, sum(sizes.values()), len(names), kind)
    for n in np.argsort(-total, kind="stable").tolist()[:50]:
        each = ", ".join(f"{part} {found.counts[part][n]}" for part in sizes)
        log.info("  %-24s %5d   %s", names[n], total[n], each)
    if len(names) > 50:
        log.info(
            "  and %d classes with no more than %d clips", len(names) - 50, np.sort(total)[-50]
        )
    for part, size in sizes.items():
        how = "as the data says" if part in found.given else "made here"
        if part == "train" and part not in found.given:
            how = "the others"
        kept = f", kept together by {found.groups}" if found.groups and how == "made here" else ""
        log.info("%s: %d clips, %s%s", part, size, how, kept)
    for note in found.notes:
        log.warning("%s: %s", where, note)
    if wanted and "validation" not in sizes:
        why = f" (by {found.groups})" if found.groups else ""
        log.warning(
            "%s: no clip is left for validation: each class is of one clip, or of one group%s. The last step "
            "is kept, not the best, and scores are not calibrated. Name other clips with --validation, or "
            "with --by another column of what must stay together", where, why,
        )  # fmt: skip
    for part, why in (
        ("train", "it cannot be learned"),
        ("validation", "the best step is chosen without it"),
    ):
        without = [
            names[n] for n in np.flatnonzero((found.counts[part] == 0) & (total > 0)).tolist()
        ]
        if without and part in sizes:
            few = ", ".join(without[:10]) + (
                f" and {len(without) - 10} more" if without[10:] else ""
            )
            log.warning("%s: no clip of these classes is for %s (%s): %s", where, part, why, few)


def warn_of_names(names: Sequence[str], found: Any) -> None:
    """Warn of classes whose names differ in case, blanks or the like only, or are spelt nearly alike."""
    total, alike = found.total, collections.defaultdict(list)
    for n, name in enumerate(names):
        folded = unicodedata.normalize("NFKC", name).casefold()
        alike["".join(c for c in folded if c.isalnum())].append(n)
    for some in alike.values():
        if len(some) > 1:
            listed = ", ".join(f"{names[n]!r} ({total[n]} clips)" for n in some)
            log.warning(
                "classes that differ only in case, blanks or signs: %s. Are they one?", listed
            )
    if len(names) > 1000:
        return
    for n, name in enumerate(names):
        near = difflib.get_close_matches(name, [x for x in names[:n] if len(x) > 5], 1, 0.9)
        if near and len(name) > 5 and total[n] * 20 <= total[names.index(near[0])]:
            log.warning("class %r has %d clips; is it %r?", name, total[n], near[0])
