"""A model of ours under a published model's names, and what lies beside a model: parts of every export."""

import copy
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_audio import convert
from ssl_audio.presets.codec import LEARNING, is_codec
from ssl_audio.storage import atomic, hub, written

log = logging.getLogger(__name__)
WORDS = hub.MORE[1]  # the tokenizer of an audio-text model


def calibration(where: pathlib.Path, out: pathlib.Path, step: int | str | None) -> None:
    """Copy how a classifier's scores are calibrated, where the folder of a model says so for this step."""
    from ssl_audio.inference import calibration

    if where.resolve() == out.resolve():
        return
    if found := calibration.fitted(where, step):
        found.write(out)
    else:
        (out / calibration.NAME).unlink(missing_ok=True)  # of what was exported here before


def put_words(out: pathlib.Path, config: Mapping[str, Any], file: str = "") -> None:
    """Copy a tokenizer's file into the folder of its model, and have the config there name it.

    That of an installed package stays where it is, as does the name of a file that is not there.

    Args:
      out: the folder.
      config: of the model, that was written there.
      file: of the tokenizer; "": that of the config.
    """
    file = file or written.entry(config, "text").get("words", {}).get("file") or ""
    source = pathlib.Path(file).expanduser()
    if not file or not source.is_file():
        return
    if source.resolve() != (out / WORDS).resolve():
        atomic.write(out / WORDS, source.read_bytes())
    there: Any = copy.deepcopy(dict(config))
    there["data"]["entries"]["text"]["words"]["file"] = WORDS
    atomic.write(out / written.CONFIG, json.dumps(there, indent=2) + "\n")


def state_dict(family: str, params: Any, options: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return parameters of ours under a published model's names, without `module.`.

    What a codec needs for its own training only, discriminators, is left out, which is logged.

    Args:
      family: a file of `convert/` that can write.
      params: numpy arrays.
      options: the config.

    Raises:
      ValueError: the model is not one of this family, which has no name for some parameter.
    """
    from ssl_audio.convert.base import nameless

    converter = convert.module(family)
    if not hasattr(converter, "to_state_dict"):
        raise ValueError(f"{family}: this family can be read, not written.")
    kind = options["objective"]["kind"]
    if is_codec(options["objective"]) and (idle := params.keys() & set(LEARNING)):
        log.warning("%s: left out, no published codec has it: %s", family, ", ".join(sorted(idle)))
        params = {name: part for name, part in params.items() if name not in idle}
    try:
        state = converter.to_state_dict(params, options)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{family} has no model like this ({kind}): no {error}.") from error
    # A family whose model leaves out what changes nothing has names for all in `with_idle`.
    write = getattr(converter, "with_idle", converter.to_state_dict)
    if lost := nameless(params, lambda p: write(p, options)):
        raise ValueError(
            f"{family} has no names for all parameters of this model ({kind}): {', '.join(lost[:8])}."
        )
    return state
