"""A folder to be shared: config, parameters, a model card and, with --as, what transformers reads.

Called by `export --to hub`. Nothing in it names a place of the author's machine.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ssl_audio import convert
from ssl_audio.convert import card, private
from ssl_audio.convert.named import WORDS, calibration, put_words, state_dict
from ssl_audio.storage import atomic, exported, hub, opened, written

LIMIT = 1e-5  # most relative difference of what transformers is given, read back
CARD = "README.md"


def write(
    out: pathlib.Path,
    where: pathlib.Path,
    params: Any,
    config: Mapping[str, Any],
    *,
    step: int | str | None = None,
    licence: str = card.UNKNOWN,
    family: str | None = None,
    extra: Mapping[str, Any] | None = None,
    unused: Mapping[str, np.ndarray] | None = None,
) -> dict[str, str]:
    """Write the folder of a model.

    Args:
      out: the folder.
      where: the run or folder that the model comes from, for the card.
      params, config: of the model.
      step: which checkpoint was taken.
      licence: of the model, as its author says.
      family: whose names to write for transformers, too; None: none.
      extra: what the model's predictors need beside parameters.
      unused: arrays of a foreign checkpoint that the model does without.

    Returns:
      What was taken out of the config, by field.

    Raises:
      ValueError: the family has no such model, or transformers would compute something else.
    """
    if family:
        _converter(family)  # before anything is written
    known = card.facts(where, params, config, step, name=out.resolve().name, licence=licence)
    shared, left = private.public(config)
    if (found := card.labels(known)) and not written.labels(shared):
        shared["data"]["entries"]["label"]["names"] = list(found)
    file = written.entry(config, "text").get("words", {}).get("file")
    exported.write(out, params, shared, extra=extra, unused=unused)
    put_words(out, shared, file)
    calibration(where, out, step)
    published = None
    if family:
        kind = for_transformers(out / family, family, params, shared, unused or {})
        if file:
            atomic.write(out / family / WORDS, (out / WORDS).read_bytes())
        published = family, kind
    text = card.text(dataclasses.replace(known, config=config, published=published))
    atomic.write(out / CARD, text)
    private.check(out, left)
    return left


def _converter(family: str) -> ModuleType:
    """Return the module of a family that can be written for transformers.

    Raises:
      ValueError: it cannot.
    """
    converter = convert.module(family)
    if not hasattr(converter, "extractor_config"):
        raise ValueError(
            f"--as {family}: transformers has no such family, or it cannot be written; wanted one of "
            f"{', '.join(writable())}."
        )
    return converter


def for_transformers(
    folder: pathlib.Path,
    family: str,
    params: Any,
    config: Mapping[str, Any],
    unused: Mapping[str, np.ndarray],
) -> str:
    """Write weights, config.json and preprocessor_config.json that transformers reads.

    What was written is converted back and compared with the model on noise.

    Returns:
      The class that reads the folder.

    Raises:
      ValueError: the family is none of transformers, has no such model, or what was written is another.
    """
    converter = _converter(family)
    options = dict(config)
    if getattr(converter, "NAMED", None):  # the names of transformers, whichever it was read with
        options["reference"] = {**config.get("reference", {}), **converter.NAMED}
    state = state_dict(family, params, options) | dict(unused)
    about = converter.reference_config(options) | dict(dtype="float32")
    heard = converter.extractor_config(options)
    folder.mkdir(parents=True, exist_ok=True)
    exported.write_arrays(folder / exported.PARAMS, state, {"format": "pt"})
    for name, found in ((written.CONFIG, about), (hub.EXTRACTORS[0], heard)):
        atomic.write(folder / name, json.dumps(found, indent=2) + "\n")
    _compare(folder, family, params, config)
    return "AutoModelForAudioClassification" if "id2label" in about else "AutoModel"


def writable() -> list[str]:
    """Return the families that transformers reads when they were written here."""
    found = (name for name in convert.families() if name not in convert.ALIASES)
    return [name for name in found if hasattr(convert.module(name), "extractor_config")]


def _compare(folder: pathlib.Path, family: str, params: Any, config: Mapping[str, Any]) -> None:
    """Convert a folder and compare with the model that it was written from.

    Raises:
      ValueError: they differ.
    """
    from ssl_audio.convert.compare import difference
    from ssl_audio.convert.files import read

    state, options = read(folder)
    try:
        again = convert.from_state_dict(family, state, **options)
    except ValueError as error:
        raise ValueError(f"--as {family}: what was written cannot be read back: {error}") from error
    got, wanted = _vector(again.params, again.config), _vector(params, config)
    if not (apart := difference(got, wanted)) <= LIMIT:
        raise ValueError(
            f"--as {family}: transformers has a model of these names, but it computes something else: "
            f"vectors of noise differ by {apart:.1e} (at most {LIMIT:g} wanted). "
            f"{opened.short(config['objective'].get('encoder', {}).get('kind', 'the model'))} has options "
            "that the family does not know."
        )


def _vector(params: Any, config: Mapping[str, Any]) -> np.ndarray:
    """Return a model's vector of a second of noise."""
    import jax

    from ssl_audio import config as configs
    from ssl_audio.inference.load import interface

    objective = configs.build(config["objective"], "objectives")
    model: Any = interface(objective)(objective, params, dict(config))
    noise = np.random.default_rng(0).normal(0, 0.1, model.rate).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        if hasattr(model, "embed_audio"):
            return model.embed_audio(noise, model.rate)
        pad = config.get("inference", {}).get("pad", "training")
        return model.embed(noise, model.rate, pad=pad)
