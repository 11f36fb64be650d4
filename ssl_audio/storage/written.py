"""A run's config, read back: as it would be written today, its architecture, what another run takes over."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

CONFIG = "config.json"
# Kinds of classes that have moved or been renamed since version 0.1, and where they are now.
KINDS = {
    "code_heads:Codes": "codes:Codes",
    "code_heads:CosineCodes": "codes:CosineCodes",
    "heads:Classifier": "classify:Classifier",
    "heads:LayerMix": "classify:LayerMix",
    "heads:PatchPredictor": "classify:PatchPredictor",
    "heads:Pooled": "classify:Pooled",
    "heads:Segments": "classify:Segments",
    "quantize:Centroids": "codebooks:Centroids",
    "quantize:Cosine": "codebooks:Cosine",
    "quantize:Gumbel": "codebooks:Gumbel",
    "quantize:RandomProjection": "codebooks:RandomProjection",
    "ssl_audio.frozen:Frozen": "ssl_audio.inference.frozen:Frozen",
    "stack:MirroredPair": "blocks:MirroredPair",
    "stack:Mlp": "blocks:Mlp",
    "stack:PreNorm": "blocks:PreNorm",
}


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Return the config of a run or of an exported folder, as today's version would write it.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged.
    """
    file = pathlib.Path(path).expanduser() / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"{path}: no {CONFIG}; wanted the workdir of a training run, or an exported folder."
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: damaged ({error}); wanted the JSON that a run writes.") from None
    if not isinstance(config, dict):
        raise ValueError(f"{file}: wanted the JSON object that a run writes.")
    return upgraded(config)


def upgraded(config: Any) -> Any:
    """Return a config of any earlier version with the names of today."""
    if isinstance(config, Mapping):
        found = {key: upgraded(value) for key, value in config.items()}
        if isinstance(kind := found.get("kind"), str):
            found["kind"] = KINDS.get(kind, kind)
        return found
    if isinstance(config, (list, tuple)):
        return type(config)(map(upgraded, config))
    return config


def trained(path: str, *keys: str) -> Any:
    """Return the objective of a run or of an exported folder, or an option in it.

    Raises:
      ValueError: there is no run, or its objective has no such option.
    """
    found = read(path)["objective"]
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise ValueError(f"{path}: its objective has no {'.'.join(keys)}.")
        found = found[key]
    return found


def architecture(path: str) -> dict[str, Any]:
    """Return the configs of a run's `frontend`, `tokenizer` and `encoder`, to fine-tune them.

    Of an audio-text model, those of its audio tower.

    Raises:
      ValueError: `path` is not the workdir of a run of an encoder.
    """
    objective = trained(path)
    objective = objective.get("towers", {}).get("audio", objective)
    parts = ("frontend", "tokenizer", "encoder")
    if missing := [part for part in parts if part not in objective]:
        raise ValueError(f"pretrained={path}: its objective has no {', '.join(missing)}.")
    return {part: objective[part] for part in parts}


def warm_start(path: str, into: str = "") -> dict[str, Any]:
    """Return the options of `config.warm_start` that take the encoder out of a run; see `architecture`."""
    out_of = "" if "encoder" in trained(path) else "audio/"
    take = "^(tokenizer|encoder)/"
    return dict(encoder=dict(path=path, take=take, leave="", out_of=out_of, into=into))


def is_run(where: str | os.PathLike) -> bool:
    """Tell whether this is a folder with the config of a run in it."""
    return (pathlib.Path(where).expanduser() / CONFIG).is_file()
