"""An index for other programs: `ssl-audio search export`; see docs/search.md.

perch-hoplite: a database of recordings and windows (SQLite and USearch), for agile modelling. Embedding
Atlas: a table in Parquet, whose command line draws the map.
"""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ssl_audio.inference.index import Index
from ssl_audio.storage import atomic, columns

BLOCK = 4096  # vectors written together
PROJECT = "ssl_audio"


def export(index: Index, to: str, out: str | os.PathLike) -> str:
    """Write an index in another program's format; return how to open it there.

    Args:
      index: to write.
      to: one of `FORMATS`.
      out: a folder that is not there yet (perch-hoplite), or a file .parquet (embedding-atlas).

    Raises:
      ValueError: no such format; the place is taken, or cannot be written.
      RuntimeError: a library is missing.
    """
    if to not in FORMATS:
        raise ValueError(f"--to: got {to!r}, wanted one of {', '.join(FORMATS)}.")
    return FORMATS[to](index, pathlib.Path(out).expanduser())


def _hoplite(index: Index, out: pathlib.Path) -> str:
    """Write a database of perch-hoplite 1: vectors in float16, inner product, windows from 1 on."""
    try:
        from ml_collections import config_dict
        from perch_hoplite.db import sqlite_usearch_impl as hoplite  # pyright: ignore
    except ImportError:
        raise RuntimeError(
            f"{out}: perch-hoplite's format takes it: pip install 'ssl_audio[hoplite]'."
        ) from None
    if out.exists():
        raise ValueError(f"{out}: got a place that is taken, wanted a new folder for the database.")
    atomic.check_folder(out.parent)
    width = index.vectors.shape[1]
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        options = hoplite.get_default_usearch_config(width)
        made = hoplite.SQLiteUSearchDB.create(str(partial), options)
        base = _base(index.rows.paths)
        globs = [{
            "dataset_name": PROJECT, "base_path": base, "file_glob": "**", "min_audio_len_s": 0.0,
            "target_sample_rate_hz": -2, "shard_len_s": None, "max_shards_per_file": None,
        }]  # fmt: skip
        made.insert_metadata("audio_sources", config_dict.ConfigDict({"audio_globs": globs}))
        settings = {"checkpoint": index.checkpoint, **index.settings}
        model = {"model_key": "ssl_audio", "embedding_dim": width, "model_config": settings}
        model |= {"logits_key": None, "logits_idxes": None}
        made.insert_metadata("model_config", config_dict.ConfigDict(model))
        place = made.insert_deployment(name=PROJECT, project=PROJECT)
        numbers = [
            made.insert_recording(filename=_text(os.path.relpath(path, base)), deployment_id=place)
            for path in index.rows.paths
        ]
        rows = index.rows
        for first in range(0, len(rows), BLOCK):
            some = slice(first, first + BLOCK)
            windows = [
                {"recording_id": numbers[file], "offsets": [start, end]}
                for file, start, end in zip(
                    rows.file[some].tolist(), rows.start[some].tolist(), rows.end[some].tolist(),
                    strict=True,
                )
            ]  # fmt: skip
            # "allow": the rest compares every two windows.
            made.insert_windows_batch(windows, np.array(index.vectors[some]), "allow")
        made.commit()  # without it the file of vectors is empty
        if made.count_embeddings() != len(rows):
            raise RuntimeError(
                f"{out}: {made.count_embeddings()} vectors in it, wanted {len(rows)}."
            )
        made.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        made.db.close()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return f'perch_hoplite.db.sqlite_usearch_impl.SQLiteUSearchDB.create("{out}")'


def _atlas(index: Index, out: pathlib.Path) -> str:
    """Write the table that the command `embedding-atlas` takes: a row for each segment."""
    if out.suffix != ".parquet":
        raise ValueError(f"{out}: wanted a name that ends in .parquet.")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise RuntimeError(f"{out} needs pyarrow: pip install 'ssl_audio[parquet]'.") from None
    atomic.check(out)
    rows = index.rows
    names = [_text(path) for path in rows.paths]

    def blocks() -> Iterator[Mapping[str, Any]]:
        for first in range(0, len(rows), BLOCK):
            some = slice(first, first + BLOCK)
            paths = [names[file] for file in rows.file[some].tolist()]
            starts = rows.start[some]
            yield {
                "id": [f"{path}#{_time(t)}" for path, t in zip(paths, starts, strict=True)],
                "path": paths,
                "folder": [os.path.basename(os.path.dirname(path)) for path in paths],
                "start": starts,
                "end": rows.end[some],
                "vector": np.array(index.vectors[some]),
            }

    with atomic.file(out) as file:
        columns.write_parquet(file, blocks())
    return f"embedding-atlas {out} --vector vector --text id"


def _time(seconds: float) -> str:
    """Return a time as text, to the microsecond: fewer digits would be the same for two windows."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


FORMATS: Mapping[str, Callable[[Index, pathlib.Path], str]] = {
    "perch-hoplite": _hoplite,
    "embedding-atlas": _atlas,
}


def _base(paths: list[str]) -> str:
    """Return the folder that all files are in."""
    return os.path.commonpath([os.path.dirname(path) for path in paths])


def _text(path: str) -> str:
    """Return a path as text that can be stored anywhere; what is not UTF-8 is written as backslashes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
