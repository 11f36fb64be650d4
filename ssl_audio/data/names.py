"""Names of classes as tables hold them: one or several in a cell, cleaned, and the order of their numbers."""

import logging
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")

log = logging.getLogger(__name__)


def several(
    values: Sequence[Any],
    place: Callable[[int], str],
    key: str,
    known: Collection[str],
    where: str,
) -> list[list[str]]:
    """Return the names in each cell of a column of labels, which may have several in a row.

    Text is split at ";" if there is one anywhere in the column, otherwise at ","; not where it is a known
    name. JSON may have lists.

    Args:
      values: the different cells, in the order of the table.
      place: returns where the cell of a number stands first, for messages.
      key: of the column.
      known: names that there may be.
      where: the table, for messages.

    Raises:
      ValueError: a list that was written as text, or something else than names.
    """
    known = frozenset(known)
    for i, value in enumerate(values):
        if not isinstance(value, str) or "[" in value:
            _check_names(value, known, f"{place(i)}: {key}")
    texts = [value for value in values if isinstance(value, str)]
    odd = next((t for t in texts if "|" in t and t not in known), None)
    if odd is not None:
        log.warning(
            "%s: column '%s': '|' does not separate names, as in %r; write ';'", where, key, odd
        )
    mark = ";" if any(";" in text for text in texts) else ","
    if mark == "," and (example := next((t for t in texts if "," in t and t not in known), "")):
        log.info("%s: column '%s' is split at commas, as in %r", where, key, example)

    def names(value: Any) -> list[str]:
        if isinstance(value, str):
            some = [value] if value.strip() in known else value.split(mark)
            return list(filter(None, map(str.strip, some)))
        return [
            name for some in (value if isinstance(value, list) else [value]) if (name := text(some))
        ]

    return [names(value) for value in values]


def _check_names(value: Any, known: Collection[str], where: str) -> None:
    listed = isinstance(value, str) and value not in known and re.fullmatch(r"\s*\[.*\]\s*", value)
    nested = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(name, (list, dict)) for name in value)
    )
    if listed or nested:
        raise ValueError(
            f"{where}: got {value!r}, wanted names: as text dog;cat, in JSON lines a list of texts"
        )


def natural(name: str) -> tuple[float, str]:
    """Return a key that sorts names of classes: numbers first, by size, then the others."""
    return (float(name), name) if _NUMBER.fullmatch(name) else (float("inf"), name)


def text(value: Any) -> str:
    """Return a cell's value as text without blanks around it: a number of JSON that is whole as such."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None or value != value else str(value).strip()
