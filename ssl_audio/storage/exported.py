"""The plain folder for exchange: config.json and model.safetensors, which need no Orbax to be read.

Written by `export` and `convert`; `ssl_audio.load` and warm starts take it wherever they take a workdir.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ssl_audio.distributed.sharding import path_name
from ssl_audio.storage import atomic, opened, written

PARAMS = "model.safetensors"
EXTRA = "extra.safetensors"  # what predictors need beside parameters, as a teacher's
UNUSED = "unused.safetensors"  # arrays of a foreign checkpoint that the model does without
FORMAT = "ssl_audio"


def is_plain(path: str | os.PathLike) -> bool:
    """Tell whether there is a file of parameters in a folder."""
    return (pathlib.Path(path) / PARAMS).is_file()


def write(
    path: str | os.PathLike,
    params: Any,
    config: Mapping[str, Any],
    *,
    extra: Any = None,
    unused: Mapping[str, np.ndarray] | None = None,
) -> pathlib.Path:
    """Write a model; arrays are named by their paths, as "encoder/layers/mixer/qkv/kernel".

    Args:
      path: the folder.
      params: of the model.
      config: of the model.
      extra: what its predictors need beside the parameters: `Objective.needs`.
      unused: arrays of a foreign checkpoint that the model does without.

    Raises:
      ValueError: the folder is the workdir of a run.
    """
    path = pathlib.Path(path)
    if (path / "checkpoints").exists():
        raise ValueError(f"{path}: the workdir of a training run; write to another folder.")
    path.mkdir(parents=True, exist_ok=True)
    for name, arrays in ((PARAMS, _named(params)), (EXTRA, _named(extra)), (UNUSED, unused or {})):
        (path / name).unlink(missing_ok=True)
        if arrays:
            write_arrays(path / name, arrays, {"format": FORMAT})
    atomic.write(path / written.CONFIG, json.dumps(config, indent=2) + "\n")
    return path


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters, numpy arrays, and the config.

    Raises:
      FileNotFoundError: there is no config.
      ValueError: a file is damaged, or not ours.
    """
    path = pathlib.Path(path)
    config = written.read(path)
    return _tree(path / PARAMS), config


def read_extra(path: str | os.PathLike) -> dict[str, Any]:
    """Return what predictors need beside the parameters, as numpy arrays; {}: the folder has nothing such.

    Raises:
      ValueError: the file is damaged, or not ours.
    """
    file = pathlib.Path(path) / EXTRA
    return _tree(file) if file.is_file() else {}


def _named(tree: Any) -> dict[str, Any]:
    return {path_name(p): v for p, v in jax.tree_util.tree_leaves_with_path(tree)}


def _tree(file: pathlib.Path) -> dict[str, Any]:
    """Return the arrays of a file of ours, each in its place."""
    arrays, about = read_arrays(file)
    if about.get("format") != FORMAT:
        raise ValueError(
            f"{file}: not written by ssl_audio. For a model of another library: "
            f"ssl-audio convert --from FAMILY --checkpoint {file.parent} --out DIR"
        )
    tree: dict[str, Any] = {}
    for name, value in arrays.items():
        *parents, last = name.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                break
        if not isinstance(place, dict) or last in place:
            got = f"an array {name!r} beside one that is named as a part of its path"
            raise opened.error(file, got, "arrays named by the paths of a tree")
        place[last] = value
    return tree


def read_unused(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Return the arrays that were kept for the way back to the foreign checkpoint."""
    file = pathlib.Path(path) / UNUSED
    return read_arrays(file)[0] if file.is_file() else {}


def read_arrays(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of a safetensors file and its metadata.

    Raises:
      ValueError: it is damaged.
    """
    import safetensors

    wanted = "a whole safetensors file"
    with opened.reading(path, wanted, safetensors.SafetensorError):
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def write_arrays(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], about: dict[str, str] | None = None
) -> None:
    """Write a safetensors file."""
    import safetensors.numpy

    packed = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    atomic.write(path, safetensors.numpy.save(packed, about))
