"""Foreign checkpoints → our config and parameters. A family of models is a file of this folder."""

import importlib
import pkgutil
from typing import Any

from ssl_audio.convert.base import Converted, State

SHARED = ("__main__", "base", "files", "options", "patches", "trace", "vit")  # not families

__all__ = ["Converted", "families", "from_state_dict"]


def families() -> list[str]:
    """Return the families that can be converted: the files here that say how."""
    names = (file.name for file in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if name not in SHARED)


def from_state_dict(family: str, state_dict: State, **options: Any) -> Converted:
    """Convert a state dict to a model of ours.

    Args:
      family: a file of this folder: "ssast", "ssamba", "hf_ast", …
      state_dict: reference name → array; the prefixes `module.` and `param/` are accepted.
      **options: what the state dict cannot tell, under the reference's names: see the family's file.

    Raises:
      ValueError: no such family; keys missing or left over (both are listed); an option that
        contradicts the state dict, or is needed and was not given.
    """
    if family not in families():
        raise ValueError(f"family '{family}': wanted one of {', '.join(families())}.")
    module = importlib.import_module(f"ssl_audio.convert.{family}")
    return module.from_state_dict(state_dict, **options)
