"""Every file in configs/, and what it must be told to resolve without the data it is for."""

import importlib.util
import pathlib
from typing import Any

from reference import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.py"))
NEEDS = {
    "finetune": "root=DATA",
    "passt": "root=DATA",
}  # stem -> argument without which there is no full-size config


def argument(path: pathlib.Path, *, runlocal: bool) -> str:
    """Return the config argument of the full-size or the laptop version."""
    return "runlocal" if runlocal else NEEDS.get(path.stem, "")


def load(path: pathlib.Path, arg: str) -> Any:
    """Return the ConfigDict of a config file."""
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)
