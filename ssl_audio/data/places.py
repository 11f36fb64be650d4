"""Where audio lies, as configs and commands name it → the config of a source."""

import pathlib
import re
from collections.abc import Collection
from typing import Any

from ssl_audio.data.listing import EXTENSIONS
from ssl_audio.data.tables import JSON

TABLES = (".csv", ".tsv", ".txt", *JSON)
ARROW = (".parquet", ".arrow")


def source(where: str, rate: int = 16_000) -> dict[str, Any]:
    """Return the config of a source: "synthetic", a folder of prepared shards or of audio files, a table.

    An address as gs://bucket/folder is taken for prepared shards. Data of Hugging Face `datasets` (a folder
    of `save_to_disk`, .parquet, .arrow, folders of those) and tars of WebDataset (one, a folder of them,
    DIR/*.tar) are known by what is there.
    """
    given = {} if rate == 16_000 else dict(rate=rate)
    if where == "synthetic":
        return dict(kind="synthetic", **given)
    if "://" in where:  # an object store
        return dict(kind="shards", root=where)
    path = pathlib.Path(where).expanduser()
    if path.is_file() and path.suffix.lower() in TABLES:
        return dict(kind="source:Manifest", path=str(path), **given)
    if path.suffix.lower() == ".tar":
        return dict(kind="webdataset", root=str(path), **given)
    if path.is_file() and path.suffix.lower() in ARROW:
        return dict(kind="arrow", root=str(path), **given)
    if not path.is_dir():
        raise ValueError(
            f"data '{where}': wanted 'synthetic', a folder that exists, a table ({' '.join(TABLES)}), "
            f"{' '.join(ARROW)} or .tar that exists, or an address as gs://…"
        )
    if (path / "index.json").exists():
        return dict(kind="shards", root=str(path))
    if packed := _packed(path):
        return dict(kind=packed, root=str(path), **given)
    return dict(kind="source:Folder", root=str(path), **given)


def sources(where: str, rate: int = 16_000) -> dict[str, Any]:
    """Return a named source per place in "PLACE+PLACE…"; see `source`."""
    found: dict[str, Any] = {}
    for place in where.split("+"):
        found[another(place, found)] = source(place, rate)
    return found


def another(where: str, names: Collection[str]) -> str:
    """Return the name of a place, numbered where others have it already."""
    known, number = name(where), len(names)
    found = known
    while found in names:
        found, number = f"{known}_{number}", number + 1
    return found


def name(where: str) -> str:
    """Return the name of a place in a config."""
    return re.sub(r"\W", "_", pathlib.Path(where).resolve().name)


def _packed(folder: pathlib.Path) -> str:
    """Return the kind of a folder whose sound lies in larger files; "": it has other files."""
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return "arrow"
    endings = {path.suffix.lower() for path in folder.iterdir() if path.is_file()}
    if not any(endings):  # as DIR/data/train-00000-of-00002.parquet
        inside = (path for path in folder.glob("*/*") if path.is_file())
        endings = {path.suffix.lower() for path in inside}
    if endings & EXTENSIONS:
        return ""
    return "webdataset" if ".tar" in endings else "arrow" if endings.intersection(ARROW) else ""
