"""A run's config, read back: its architecture, and what another run takes over from it."""

import json
import pathlib
from typing import Any


def written(path: str) -> dict[str, Any]:
    """Return the config of a run or of an exported folder.

    Raises:
      ValueError: there is none.
    """
    file = pathlib.Path(path).expanduser() / "config.json"
    if not file.is_file():
        raise ValueError(f"{path}: no config.json there; wanted the workdir of a run.")
    return json.loads(file.read_text())


def trained(path: str, *keys: str) -> Any:
    """Return the objective of a run or of an exported folder, or an option in it.

    Raises:
      ValueError: there is no run, or its objective has no such option.
    """
    found = written(path)["objective"]
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


def is_run(where: str) -> bool:
    """Tell whether this is a folder with the config of a run in it."""
    return (pathlib.Path(where).expanduser() / "config.json").is_file()
