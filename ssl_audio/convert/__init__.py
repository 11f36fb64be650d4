"""Foreign checkpoints → our config and parameters. A family of models is a file of this folder."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # --help needs the names of the families only
    from ssl_audio.convert.base import Converted, State

# Not families.
SHARED = (
    "__main__",
    "base",
    "clap_names",
    "command",
    "compare",
    "export",
    "files",
    "options",
    "patches",
)
SHARED += (
    "references",
    "trace",
    "vit",
    "card",
    "hub_folder",
    "named",
    "onnx_file",
    "private",
    "published",
    "push",
)
SHARED += ("ctranslate2", "rewrite", "stablehlo", "tensor_bundle", "torch_file")
# Other names of families: those that share a file, and "hf_" at either end.
SPEECH = ("wav2vec2", "hubert", "wavlm", "data2vec")
ALIASES: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(SPEECH, "hf_speech")
    | {f"hf_{name}": "hf_speech" for name in SPEECH}
    | {
        "ast_hf": "hf_ast",
        "openbeats": "beats",
        "spear": "zipformer",
        "spear_zipformer": "zipformer",
    }
)

log = logging.getLogger(__name__)

__all__ = ["families", "from_state_dict", "module"]


def families() -> list[str]:
    """Return the families that can be converted: the files here that say how, and their aliases."""
    names = (file.name for file in pkgutil.iter_modules(__path__))
    return sorted({name for name in names if name not in SHARED} | ALIASES.keys())


def module(family: str) -> ModuleType:
    """Return the module that converts a family.

    What follows a family's name and "_" tells a variant and is ignored: "beats_large" is "beats".

    Raises:
      ValueError: no such family.
    """
    known = families()
    found = [name for name in known if f"{family}_".startswith(f"{name}_")]
    if not found:
        raise ValueError(f"family '{family}': wanted one of {', '.join(known)}.")
    chosen = max(found, key=len)
    return importlib.import_module(f"ssl_audio.convert.{ALIASES.get(chosen, chosen)}")


def from_state_dict(
    family: str, state_dict: State, *, strict: bool = False, **options: Any
) -> Converted:
    """Convert a state dict to a model of ours.

    A head that there is no place for, of a task that is none here, is left out: the encoder is
    converted, and the names of the head's arrays are in `left` of the result, and logged.

    Args:
      family: see `families`: "ssast", "ssamba", "hf_ast", …
      state_dict: reference name → array; the prefixes `module.` and `param/` are accepted.
      strict: refuse a head without a place.
      **options: what the state dict cannot tell, under the reference's names: see the family's file.

    Raises:
      ValueError: no such family; keys missing or left over (both are listed); an option that
        contradicts the state dict, or is needed and was not given.
    """
    from ssl_audio.convert.base import UnknownHead, plain_names

    converter = module(family)
    try:
        return converter.from_state_dict(state_dict, **options)
    except UnknownHead as error:
        if strict:
            raise ValueError(
                f"{error} They are of a head that {family} has no place for; without `strict` the "
                "encoder is converted and they are listed."
            ) from error
        left = error.names
    state = plain_names(state_dict)
    head = {name: state.pop(name) for name in left}
    model = converter.from_state_dict(state, **options)
    log.warning("%s: no place for this head, the encoder is converted: %s", family, ", ".join(left))
    return dataclasses.replace(model, unused={**model.unused, **head}, left=tuple(left))
