"""Every file in configs/, what it must be told to resolve without its data, and texts kept of it."""

import importlib.util
import os
import pathlib
from typing import Any

from reference import ROOT

GOLDEN = ROOT / "tests" / "golden"
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
NEEDS = {
    "finetune": "root=DATA",
    "fsd50k": "root=DATA",
    "passt": "root=DATA",
    "semi_supervised": "root=DATA",
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


def committed(name, text):
    """Return the committed text, after replacing it when asked to."""
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert file.exists(), f"{file}: missing; UPDATE_GOLDEN=1 writes it"
    return file.read_text()
