"""Recordings with marked events, wherever they lie: tables and folders, and layouts of published collections.

Training (`annotated.py`) and the truth of `ssl-audio events` read them here.
"""

import os
import pathlib
from typing import Any

from ssl_audio.data import annotations, places, tables
from ssl_audio.data.annotations import COLUMN, Annotated
from ssl_audio.data.sets import audioset_strong, desed


def read(place: str | os.PathLike, column: str = COLUMN) -> Annotated:
    """Return the events of recordings; see `annotations.read`.

    A table of AudioSet-Strong, and one in a folder `metadata` beside a folder `audio` (DESED), are known by
    their columns and their place; what is not on the disk is left out and counted in the log.

    Raises:
      ValueError: naming file and line, what cannot be understood; none of the recordings is there.
    """
    path = pathlib.Path(place).expanduser()
    if path.is_file() and path.suffix.lower() in annotations.TABLES:
        if audioset_strong.FIRST in next(iter(tables.blocks(path))).columns:
            return audioset_strong.read(path)
        if desed.audio_folders(path):
            return desed.read(path)
    return annotations.read(path, column)


def weak(place: str, rate: int = 16_000) -> dict[str, Any]:
    """Return the config of a source of clips whose labels say what is somewhere in them.

    A table of DESED (`metadata/train/weak.tsv`, or unlabelled clips), or whatever `places.source` takes.
    """
    path = pathlib.Path(place).expanduser()
    if path.suffix.lower() in annotations.TABLES and desed.audio_folders(path):
        given = {} if rate == 16_000 else dict(rate=rate)
        return dict(kind="sets.desed", table=str(path), **given)
    return places.source(place, rate)
