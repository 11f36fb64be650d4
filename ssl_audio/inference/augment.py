"""Synthetic clips for a small labelled set: pairs to prefer, new captions, filtered sounds (Synthio).

Ghosh et al. 2025 (arXiv:2410.02056). Called by the stages of `configs/synthio.py`; each writes a table, from
which the next one reads, and goes on where it was killed.
"""

import csv
import io
import logging
import math
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio.data import mixcap, tables
from ssl_audio.data.decode import decode
from ssl_audio.inference import kinds
from ssl_audio.storage import atomic

log = logging.getLogger("ssl_audio")

Row = dict[str, str]
Score = Callable[[np.ndarray, str], float]  # (sound, label) → 0 to 1


def rows(path: str | pathlib.Path) -> list[Row]:
    """Return the rows of a table, with absolute paths.

    Raises:
      ValueError: it has no columns path and label, or no rows; a row without a label, or of no file.
    """
    place = pathlib.Path(path).expanduser()
    found: list[Row] = []
    for block in tables.blocks(place, need=("path", "label")):
        names = list(block.columns)
        for values in zip(*(block.columns[name] for name in names), strict=True):
            cells = zip(names, values, strict=True)
            found.append({n: str(v) for n, v in cells if v is not None and v is not tables.ABSENT})
    if not found:
        raise ValueError(f"{place}: no rows.")
    for number, row in enumerate(found, 1):
        file = (place.parent / row.get("path", "")).resolve()
        if not file.is_file():
            raise ValueError(f"{place}: row {number}: no such file: {file}.")
        if not row.get("label", "").strip():
            raise ValueError(f"{place}: row {number} ({file.name}) has no label.")
        row["path"] = str(file)
    return found


def pairs(
    model: Any,
    clips: Sequence[Row],
    folder: pathlib.Path,
    *,
    template: str,
    rejected: int,
    seed: int,
) -> list[Row]:
    """Generate sounds from the template for each real clip, which is preferred to them.

    Args:
      model: a `DiffusionModel`.
      clips: real.
      folder: where the sounds are written.
      template: of the text, with "{}".
      rejected: sounds for each clip.
      seed: of the first sound.

    Returns:
      The rows of a table for the config `diffusion` with pretrained=.
    """
    texts = [template.replace("{}", clip["label"]) for clip in clips]
    asked = [text for text in texts for _ in range(rejected)]
    paths = sounds(model, asked, folder, seed)
    return [
        {
            "path": clip["path"],
            "label": clip["label"],
            "text": text,
            "rejected": ";".join(map(str, paths[i * rejected : (i + 1) * rejected])),
        }
        for i, (clip, text) in enumerate(zip(clips, texts, strict=True))
    ]


def captions(
    clips: Sequence[Row],
    *,
    each: int,
    template: str,
    generic: bool,
    seed: int,
    propose: Callable[..., list[str]] | None = mixcap.propose,
) -> list[Row]:
    """Return new captions for each real clip.

    Args:
      clips: real; their `text`, if they have one, is where elements come from.
      each: captions of a clip.
      template: see `mixcap.propose`.
      generic: also offer elements that no caption has, `mixcap.GENERIC`.
      seed: of the chance.
      propose: makes captions, as `mixcap.propose` does; None: the template alone, as without MixCap.
    """
    found = []
    elements = {}
    for label in dict.fromkeys(clip["label"] for clip in clips):
        own = [clip["text"] for clip in clips if clip["label"] == label and clip.get("text")]
        elements[label] = mixcap.mined(own, label) | (
            mixcap.GENERIC if generic else mixcap.Elements()
        )
    for number, clip in enumerate(clips):
        label, rng = clip["label"], np.random.default_rng((seed, number))
        texts = [template.replace("{}", label)] * each
        if propose is not None:
            texts = propose(label, elements[label], each, rng, template)
        found += [{"path": clip["path"], "label": label, "text": text} for text in texts]
    return found


def filtered(
    model: Any,
    score: Score,
    asked: Sequence[Row],
    folder: pathlib.Path,
    *,
    threshold: float,
    rounds: int,
    template: str,
    seed: int,
) -> list[Row]:
    """Generate a sound for each caption, keep those that fit their label, and try again with the others.

    Args:
      model: a `DiffusionModel`.
      score: how well a sound fits a label; see `fitting`.
      asked: rows of `captions`.
      folder: where the sounds are written.
      threshold: least score that is accepted; 0: no filter.
      rounds: of self-reflection: captions of rejected sounds are rewritten by those of accepted ones.
      template: see `mixcap.reflect`.
      seed: of the first sound.

    Returns:
      A row per sound: path, label, text, seed, score, parent (the real clip), round, accepted.
    """
    todo, found = [dict(row) for row in asked], []
    for number in range(rounds + 1):
        first = seed + number * len(asked)
        paths = sounds(model, [row["text"] for row in todo], folder / f"round_{number}", first)
        missed = []
        for k, (row, path) in enumerate(zip(todo, paths, strict=True)):
            value = score(decode(str(path), model.rate), row["label"])
            fits = value >= threshold
            found.append({
                "path": str(path), "label": row["label"], "text": row["text"], "seed": str(first + k),
                "score": f"{value:.4f}", "parent": row["path"], "round": str(number),
                "accepted": str(int(fits)),
            })  # fmt: skip
            missed += [] if fits else [row]
        log.info("round %d: %d of %d sounds accepted", number, len(todo) - len(missed), len(todo))
        if not missed:
            break
        todo = []
        for row in missed:
            good = [r["text"] for r in found if r["accepted"] == "1" and r["label"] == row["label"]]
            rng = np.random.default_rng((seed, number, zlib.crc32(f"{row}".encode())))
            text = mixcap.reflect(row["label"], good, row["text"], rng, template)
            todo.append({**row, "text": text})
    return found


def fitting(model: Any, template: str, rate: int) -> tuple[str, Score]:
    """Return the name of a filter, and its score.

    "clap": sigmoid of scale x cosine of a sound and the template's text, of a model of audio and text.
    "confidence": the probability of the label, of a classifier: of use where there is no such model, and
    another filter than the paper's.

    Args:
      model: what `ssl_audio.load` returned.
      template: with "{}".
      rate: of the sounds, Hz.

    Raises:
      ValueError: the model is neither.
    """
    offers = model.offers
    if "embed_audio" in offers and "embed_text" in offers:

        def words_fit(sound: np.ndarray, label: str) -> float:
            text = model.embed_text(template.replace("{}", label))
            cosine = float(np.dot(model.embed_audio(sound, rate), text))
            return 1 / (1 + math.exp(-model.scale * cosine))

        return "clap", words_fit
    if "logits" in offers:

        def heard(sound: np.ndarray, label: str) -> float:
            if label not in model.labels:
                raise ValueError(
                    f"label {label!r} is none of the filter's: {', '.join(model.labels)}."
                )
            return float(model.scores(sound, rate).values.mean(0)[model.labels.index(label)])

        return "confidence", heard
    raise kinds.refusal(model, "filter", "filter")


def sounds(model: Any, texts: Sequence[str], folder: pathlib.Path, seed: int) -> list[pathlib.Path]:
    """Write a sound for each text, of seeds that follow one another; those that are there stay.

    Raises:
      ValueError: a model that generates no sound.
    """
    import soundfile

    kinds.check(model, "generator")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed + i:06d}.wav" for i in range(len(texts))]
    todo = [i for i, path in enumerate(paths) if not path.exists()]
    while todo:
        # Seeds of a call follow one another, so does what is missing after a kill.
        group = [i for k, i in enumerate(todo[: model.batch_size]) if i == todo[0] + k]
        made = model.generate([texts[i] for i in group], seed=seed + group[0])
        for i, sound in zip(group, made, strict=True):
            written = io.BytesIO()
            soundfile.write(written, sound, model.rate, format="WAV")
            atomic.write(paths[i], written.getvalue())
        todo = todo[len(group) :]
    return paths


def table(some: Sequence[Mapping[str, str]]) -> str:
    """Return rows as the text of a CSV file."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(some[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(some)
    return out.getvalue()
