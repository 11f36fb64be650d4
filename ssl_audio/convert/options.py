"""The options of a conversion: as given, held against what the state dict says."""

import difflib
import logging
from collections.abc import Mapping
from typing import Any

PREPROCESSOR = "preprocessor"  # the option that holds a feature extractor's settings
# Settings that say who reads a file, or how batches are made of clips, not what one clip becomes.
DESCRIPTIVE = frozenset(
    {
        "auto_map",
        "feature_extractor_type",
        "image_processor_type",
        "padding_side",
        "processor_class",
        "return_attention_mask",
        "transformers_version",
    }
)

log = logging.getLogger(__name__)


class Options:
    """Options under the reference's names.

    Published configs hold much that says nothing about the arrays (how the file was made, what was
    trained with it). What nobody asks for is therefore ignored, unless it looks like a misspelling.
    The settings of a feature extractor, options under `preprocessor`, all change what a model hears:
    of these nothing is ignored.
    """

    def __init__(self, given: Mapping[str, Any]):
        given = dict(given)
        extractor = dict(given.pop(PREPROCESSOR, None) or {})
        self.given = {k: _tuples(v) for k, v in (extractor | given).items() if v is not None}
        self.heard = {k for k, v in extractor.items() if v is not None} - DESCRIPTIVE
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        """Return an option that does not follow from the state dict."""
        self.asked.add(name)
        return self.given.get(name, default)

    def number(self, name: str, default: float) -> float:
        """Return an option that is a number of at least 0.

        Raises:
          ValueError: it is none.
        """
        found = self.get(name, default)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not found >= 0:
            raise ValueError(f"option {name}={found!r}: wanted a number of at least 0.")
        return float(found)

    def found(self, name: str, value: Any, where: str) -> Any:
        """Return the value that the state dict has at `where`; a given option must agree.

        Raises:
          ValueError: the option says something else.
        """
        value = _tuples(value)
        if (given := self.get(name, value)) != value:
            raise ValueError(f"option {name}={given}: the state dict says {value} ({where}).")
        return value

    def only(self, name: str, *allowed: Any) -> None:
        """Raise ValueError if the option is given and not one of `allowed`."""
        if (given := self.get(name, allowed[0])) not in allowed:
            wanted = " or ".join(map(repr, allowed))
            raise ValueError(f"option {name}={given!r}: only {wanted} can be converted.")

    def heads(self, name: str, width: int) -> int:
        """Return the number of attention heads; the default is published: 64 wide ones.

        Raises:
          ValueError: no such number, one that does not divide the width, or none is given and 64 does not.
        """
        heads = self.get(name)
        if heads is None:
            if width % 64:
                raise ValueError(
                    f"the state dict does not tell the number of attention heads, and its width "
                    f"{width} is not a multiple of the usual 64: give the option {name}."
                )
            return width // 64
        if not isinstance(heads, int) or heads < 1:
            raise ValueError(f"option {name}={heads!r}: wanted a whole number, 1 or more.")
        if width % heads:
            raise ValueError(f"option {name}={heads}: it does not divide the width {width}.")
        return heads

    def finish(self) -> None:
        """Raise ValueError for what nobody asked for: settings of a feature extractor, misspellings."""
        left = self.given.keys() - self.asked
        if unread := sorted(self.heard & left):
            settings = ", ".join(f"{name}={self.given[name]!r}" for name in unread)
            raise ValueError(
                f"feature extractor: {settings}: a setting that this family does not know; wanted "
                "those that its docstring names. Without it features might differ: take it out of "
                "the file of the feature extractor, if it does not matter."
            )
        for name in sorted(left - DESCRIPTIVE):
            if close := difflib.get_close_matches(name, self.asked, 1, cutoff=0.8):
                raise ValueError(f"option '{name}': not known. Did you mean '{close[0]}'?")
            log.info("option %s: ignored", name)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
