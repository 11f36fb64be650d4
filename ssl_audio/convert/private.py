"""What of a config must not leave the author's machine: places of files.

Used by `export --to hub` and `push`.
"""

import copy
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ssl_audio.storage import hub

# Parts of a config that only the training on that machine needs.
SECTIONS = ("checkpoint", "evals", "record", "warm_start")
PLACES = (
    "cache",
    "checkpoint",
    "data_dir",
    "file",
    "folder",
    "path",
    "pretrained",
    "root",
    "workdir",
)
ABSOLUTE = re.compile(r"^(/|~|\.{1,2}/|[A-Za-z]:[\\/]|\\\\|file:|(?!https?:)\w[\w+.-]*://)")
TEXT = (".json", ".md", ".txt", ".yaml", ".yml", ".py")


def public(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a config without places of files, and what was taken out, by field.

    Of what is learned, a place is cut to its last name, for a class may ask for the field; sources of the
    training are left out. A model loads from the result as before.
    """
    found, out = copy.deepcopy(dict(config)), {}
    for name in SECTIONS:
        if name in found:
            out |= _places(found.pop(name), name)
    data = found.get("data")
    if isinstance(data, dict):
        beside = data.get("beside") or {}
        for path, part in (("data", data), *((f"data.beside.{n}", p) for n, p in beside.items())):
            for name in ("sources", "weights"):
                out |= _places(part.pop(name, {}), f"{path}.{name}")
    _cut(found, "", out)
    return found, out


def _is_place(key: str, value: Any) -> bool:
    if not isinstance(value, str) or hub.is_address(value) or value.startswith("package:"):
        return False
    return bool(ABSOLUTE.match(value)) or (key in PLACES and ("/" in value or "\\" in value))


def _last(place: str) -> str:
    return re.split(r"[\\/]", place.rstrip("\\/"))[-1]


def _places(value: Any, path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    _cut({"": copy.deepcopy(value)}, path, found)
    return found


def _cut(value: Any, path: str, out: dict[str, str]) -> None:
    """Cut the places in objects and lists to their last names; note them in `out`."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in list(pairs):
        at = f"{path}.{key}".strip(".")
        if isinstance(entry, tuple):
            entry = value[key] = list(entry)
        if isinstance(entry, (dict, list)):
            _cut(entry, at, out)
        elif _is_place(str(key), entry):
            out[at], value[key] = entry, _last(entry)


def check(folder: pathlib.Path, places: Mapping[str, str]) -> None:
    """See that no text of a folder holds a place of this machine.

    Args:
      folder: as it is to be shared.
      places: what was taken out of the config, by field.

    Raises:
      ValueError: one does, naming the file and the place.
    """
    here = {str(pathlib.Path.home()), os.getcwd(), str(folder.resolve()), *places.values()}
    secret = [p for p in here if ABSOLUTE.match(p) and len(pathlib.PurePath(p).parts) > 1]
    for path in sorted(p for p in folder.rglob("*") if p.suffix in TEXT and p.is_file()):
        text = path.read_text(encoding="utf-8", errors="replace")
        for place in secret:
            # As it stands, and as JSON writes it.
            if any(
                re.search(rf"{re.escape(p)}(?![\w-])", text)
                for p in (place, json.dumps(place)[1:-1])
            ):
                raise ValueError(
                    f"{path}: names {place}, a place of this machine; wanted a folder to be shared without "
                    "such: take it out, or write the folder with `ssl-audio export --to hub`."
                )
