"""A run's config, read back: as it would be written today, its architecture, what another run takes over."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from ssl_audio import slots
from ssl_audio.storage import hub, opened

CONFIG = "config.json"
# Kinds of classes that have moved or been renamed since version 0.1 → today's, and options they need.
KINDS: dict[str, str | dict[str, Any]] = {
    "code_heads:Codes": "codes:Codes",
    "code_heads:CosineCodes": "codes:CosineCodes",
    "gpt2:Causal": dict(kind="attention", causal=True),
    "heads:Classifier": "classify:Classifier",
    "heads:LayerMix": "classify:LayerMix",
    "heads:PatchPredictor": "classify:PatchPredictor",
    "heads:Pooled": "classify:Pooled",
    "heads:Segments": "classify:Segments",
    "norms:StoredNorm": "norms:FrozenBatchNorm",
    "pools:First": "pools:BertPooler",
    "pools:Start": "pools:ClsToken",
    "quantize:Centroids": "codebooks:Centroids",
    "quantize:Cosine": "codebooks:Cosine",
    "quantize:Gumbel": "codebooks:Gumbel",
    "quantize:RandomProjection": "codebooks:RandomProjection",
    "ssl_audio.frozen:Frozen": "ssl_audio.inference.frozen:Frozen",
    "stack:MirroredPair": "blocks:MirroredPair",
    "stack:Mlp": "blocks:Mlp",
    "stack:PreNorm": "blocks:PreNorm",
    "t5:Feed": "t5:T5Mlp",
    "t5:Unscaled": "t5:T5Attention",
}
# Kind → its options that are now those of one of its parts (before 0.3).
MOVED = {"codec": {"decay": "quantizer"}}


WANTED = "the config that a run, `ssl-audio export` or `convert` writes"
MAPPINGS = (
    "objective",
    "data",
    "optim",
    "sharding",
    "checkpoint",
    "record",
    "evals",
    "warm_start",
    "adapt",
)


def read(path: str | os.PathLike, trust: Iterable[str] = ()) -> dict[str, Any]:
    """Return the config of a run or of an exported folder, as today's version would write it.

    This is the only place that reads a folder's config, and nothing in it may name code of others.

    Args:
      path: the folder, or hf://OWNER/NAME.
      trust: packages that it may name beside ours, and beside those of `slots.trusting`.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged, or names a class of a package that is not trusted.
    """
    file = hub.local(path).expanduser() / CONFIG
    if not file.is_file():
        raise FileNotFoundError(
            f"{path}: no {CONFIG}; wanted the workdir of a training run, or an exported folder."
        )
    found = opened.json_file(file, WANTED)
    _check_mappings(found, file)
    try:
        found = upgraded(found)
        with slots.trusting(trust):
            slots.check_trusted(found, str(file))
    except RecursionError:
        raise opened.error(file, "brackets that are nested too deep", WANTED) from None
    if "samples" in entry(found, "audio"):
        with opened.naming(file):
            samples(found)
    _find_words(found, file.parent)
    return found


def _find_words(found: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Put the folder before the bare name of a tokenizer's file that lies in it, as `export` writes it."""
    words = entry(found, "text").get("words")
    if not isinstance(words, dict):
        return
    name = words.get("file")
    if isinstance(name, str) and name == pathlib.PurePath(name).name and (folder / name).is_file():
        words["file"] = str((folder / name).absolute())


def _check_mappings(found: Mapping[str, Any], file: pathlib.Path) -> None:
    """Raise ValueError where something else stands for options."""
    for name in MAPPINGS:
        if name in found:
            opened.member(found, name, dict, file)
    entries = found.get("data", {}).get("entries", {})
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        opened.member(found["data"], "entries", dict, f"{file}: data")
        for name in entries:
            opened.member(entries, name, dict, f"{file}: data.entries")


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config of any earlier version with the names of today."""
    found = _renamed(config)
    if isinstance(data := found.get("data"), Mapping):  # that of a converted model has no kind
        found["data"] = _with_entries(data)
    if isinstance(record := found.get("record"), Mapping) and "tensorboard" in record:  # before 0.3
        logger = "tensorboard" if record["tensorboard"] else "none"
        found["record"] = {k: v for k, v in record.items() if k != "tensorboard"}
        found["record"].setdefault("logger", logger)
    return found


def _renamed(value: Any) -> Any:
    if isinstance(value, Mapping):
        found = {key: _renamed(entry) for key, entry in value.items()}
        if isinstance(kind := found.get("kind"), str):
            new = KINDS.get(kind, kind)
            found |= dict(kind=new) if isinstance(new, str) else new
            for name in MOVED.get(kind, {}).keys() & found.keys():
                part = MOVED[kind][name]
                found[part] = dict(found[part], **{name: found.pop(name)})
        return _with_entries(found) if kind == "pipeline" else found
    if isinstance(value, (list, tuple)):
        return type(value)(map(_renamed, value))
    return value


def _with_entries(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of batches with those of their entries by themselves (before 0.2: side by side)."""
    audio = {k: data[k] for k in ("samples", "crop", "fill", "speed", "gain") if k in data}
    others = ("classes", "text", "weighted", "tell_source")
    entries: dict[str, Any] = dict(data.get("entries", {}))
    if audio:
        entries["audio"] = dict(kind="entries:Audio", **audio)
    if data.get("classes"):
        entries["label"] = dict(kind="entries:Labels", classes=data["classes"])
    if data.get("text"):
        entries["text"] = data["text"]
    if data.get("weighted"):
        entries["weight"] = dict(kind="entries:Weight")
    if data.get("tell_source"):
        entries["source"] = dict(kind="entries:SourceNumber")
    rest = {k: v for k, v in data.items() if k not in (*audio, *others)}
    return rest | (dict(entries=entries) if entries else {})


def entry(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the options of an entry of a run's batches, as "audio" or "text"; none: {}."""
    return dict(config.get("data", {}).get("entries", {}).get(name) or {})


def labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes that a model tells apart, in their order; none: they are not known.

    Raises:
      ValueError: they are no list of names.
    """
    # Where events are learned, the entry that cuts them out together with the sound knows the classes.
    where = next((name for name in ("label", "audio") if entry(config, name).get("names")), "label")
    names = entry(config, where).get("names", ())
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise opened.error(
            f"config.data.entries.{where}.names", opened.short(names), "a list of names"
        )
    return tuple(names)


def sources(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of all sources of a config's `data`, by their names in a checkpoint's metadata.

    Those of pipelines beside it are named after both, as "unlabelled.esc10".
    """
    found = dict(data.get("sources") or {})
    for name, other in (data.get("beside") or {}).items():
        found |= {f"{name}.{source}": options for source, options in sources(other).items()}
    return found


def samples(config: Mapping[str, Any]) -> int:
    """Return the length of the clips that a model was trained on, samples.

    Raises:
      ValueError: it was not trained on sound.
    """
    if "samples" not in (found := entry(config, "audio")):
        raise ValueError("config: no data.entries.audio.samples; wanted a model of sound.")
    return opened.numbers(
        found["samples"],
        lambda n: isinstance(n, int) and 0 < n < 2**31,
        "config.data.entries.audio.samples",
        "a number of samples, from 1 to 2^31",
    )


def trained(path: str, *keys: str) -> Any:
    """Return the objective of a run or of an exported folder, or an option in it.

    Raises:
      ValueError: there is no run, or its objective has no such option.
    """
    found = opened.member(read(path), "objective", dict, pathlib.Path(path) / CONFIG)
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
    towers = objective.get("towers", {})
    objective = towers.get("audio", objective) if isinstance(towers, dict) else objective
    parts = ("frontend", "tokenizer", "encoder")
    if missing := [part for part in parts if part not in objective]:
        probe = "It is a probe: give the run or folder of the encoder that it was made on."
        hint = probe if "base" in objective else "Wanted a run or a folder of an encoder."
        raise ValueError(f"{path}: its objective has no {', '.join(missing)}. {hint}")
    return {part: objective[part] for part in parts}


def warm_start(path: str, into: str = "") -> dict[str, Any]:
    """Return the options of `config.warm_start` that take the encoder out of a run; see `architecture`."""
    out_of = "" if "encoder" in trained(path) else "audio/"
    take = "^(tokenizer|encoder)/"
    return dict(encoder=dict(path=path, take=take, leave="", out_of=out_of, into=into))


def is_run(where: str | os.PathLike) -> bool:
    """Tell whether this is a folder with the config of a run in it."""
    return hub.is_address(where) or (pathlib.Path(where).expanduser() / CONFIG).is_file()
