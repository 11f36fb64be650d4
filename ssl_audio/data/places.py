"""Where audio lies, as configs and commands name it → the config of a source."""

import pathlib
import re
from typing import Any

from ssl_audio.data.tables import JSON

TABLES = (".csv", ".tsv", ".txt", *JSON)


def source(where: str, rate: int = 16_000) -> dict[str, Any]:
    """Return the config of a source: "synthetic", a folder of prepared shards or of audio files, a table.

    An address as gs://bucket/folder is taken for prepared shards.
    """
    given = {} if rate == 16_000 else dict(rate=rate)
    if where == "synthetic":
        return dict(kind="synthetic", **given)
    if "://" in where:  # an object store
        return dict(kind="shards", root=where)
    path = pathlib.Path(where).expanduser()
    if path.is_file() and path.suffix.lower() in TABLES:
        return dict(kind="source:Manifest", path=str(path), **given)
    if not path.is_dir():
        raise ValueError(
            f"data '{where}': wanted 'synthetic', a folder that exists, a table ({' '.join(TABLES)}) that "
            "exists, or an address as gs://…"
        )
    if (path / "index.json").exists():
        return dict(kind="shards", root=str(path))
    return dict(kind="source:Folder", root=str(path), **given)


def sources(where: str, rate: int = 16_000) -> dict[str, Any]:
    """Return a named source per place in "PLACE+PLACE…"; see `source`."""
    found: dict[str, Any] = {}
    for place in where.split("+"):
        known = name(place)
        found[f"{known}_{len(found)}" if known in found else known] = source(place, rate)
    return found


def name(where: str) -> str:
    """Return the name of a place in a config."""
    return re.sub(r"\W", "_", pathlib.Path(where).resolve().name)
