"""Captions for sounds, found by their pictures: audio-text pairs without anybody having heard one (VIP-ANT).

Zhao et al. 2022 (arXiv:2112.08995). On unit vectors of a model of pictures and words.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_audio.data.beside_files import every
from ssl_audio.storage import atomic


def mine(
    frames: Sequence[np.ndarray], captions: np.ndarray, top: int = 10, *, random: int | None = None
) -> list[list[int]]:
    """Return for every clip the numbers of its captions: the union of those nearest to each of its frames.

    Args:
      frames: unit vectors [F, D] of each clip's pictures.
      captions: unit vectors [m, D] of the captions there are, whatever clips they are of.
      top: captions of a frame.
      random: a seed: as many captions as would be found, drawn at random; the control.

    Returns:
      Numbers in the order of their best similarity, each once.

    Raises:
      ValueError: not so many captions; a clip without a frame.
    """
    _check(top, len(captions))
    rng, found = np.random.default_rng(random), []
    for number, some in enumerate(frames):
        if not len(some):
            raise ValueError(f"frames: clip {number} has none.")
        scores = np.asarray(some) @ captions.T
        nearest = np.unique(np.argpartition(-scores, top - 1, axis=1)[:, :top])
        best = scores.max(axis=0)[nearest]
        chosen = nearest[np.argsort(-best, kind="stable")]
        if random is not None:
            chosen = rng.choice(len(captions), len(chosen), replace=False)
        found.append([int(i) for i in chosen])
    return found


def _check(top: int, count: int) -> None:
    if not 1 <= top <= count:
        raise ValueError(f"top: got {top}, wanted 1 to {count}, the number of different captions.")


def write(
    model: Any,
    source: Any,
    captions: Sequence[str],
    out: str | pathlib.Path,
    *,
    top: int = 10,
    column: str = "image",
    random: int | None = None,
) -> list[list[int]]:
    """Write a manifest of a source's clips with the captions that their pictures find; return their numbers.

    Args:
      model: with `embed_image` and `embed_text`.
      source: of plain files, whose table has a column of pictures.
      captions: texts, of any origin.
      out: JSON lines, for `source.Manifest`.
      top, random: see `mine`.
      column: of the pictures.
    """
    texts = list(dict.fromkeys(captions))
    _check(top, len(texts))  # before the long work
    frames, rows = [], []
    for clip in source.clips:
        example = {**clip.meta(), "root": source.clips.root}
        frames.append(model.embed_image(every(example, column, "")))
        row = dict(path=str(pathlib.Path(clip.path).absolute()), id=clip.id)
        if clip.start or clip.end is not None:
            row |= dict(start=clip.start, end=clip.end)
        rows.append(row)
    found = mine(frames, model.embed_text(texts), top, random=random)
    lines = (
        json.dumps(row | dict(text=[texts[i] for i in some])) + "\n"
        for row, some in zip(rows, found, strict=True)
    )
    atomic.write(pathlib.Path(out), "".join(lines))
    return found
