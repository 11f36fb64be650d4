"""The rows of a user's table: CSV, TSV or JSON lines, with errors that name file and line.

Called by `Manifest` in `source.py`, and by whoever else reads a table with a header.
"""

import csv
import difflib
import json
import logging
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

JSON = (".jsonl", ".ndjson", ".json")

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """A row and the line of its file where it ends."""

    line: int
    values: Mapping[str, Any]


def read(path: pathlib.Path, *, need: Sequence[str] = ()) -> list[Row]:
    """Return the rows of a table.

    Blanks around the names of columns do not count; where a comma in the header has a blank behind it, those
    behind the commas of the rows do not either. A byte-order mark is fine.

    Args:
      path: JSON lines by their ending, separated by tabs for .tsv, otherwise by commas.
      need: columns that must be there.

    Raises:
      ValueError: not UTF-8, not such a table, or a column is missing or there twice.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            kind = path.suffix.lower()
            found = list(
                _json(file, path) if kind in JSON else _delimited(file, path, kind == ".tsv", need)
            )
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 (byte {error.object[error.start]:#04x} at {error.start}); save it as UTF-8, "
            "as with `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from None
    if not found:
        raise ValueError(f"{path}: no rows")
    return found


def number(row: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """Return a finite number of a row; None where there is none."""
    value = row.get(key)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        found = float(value)  # tables made by way of pandas have whole numbers as "1.0"
        if isinstance(value, bool) or not math.isfinite(found) or found != kind(found):
            raise ValueError(value)
    except (TypeError, ValueError):
        wanted = "a whole number" if kind is int else "a finite number"
        raise ValueError(f"{where}: {key}: wanted {wanted}, got {value!r}") from None
    return kind(found)


def several(rows: Iterable[Row], key: str, known: Sequence[str], where: str) -> list[list[str]]:
    """Return the names in a column of labels, which may have several in a row.

    Text is split at ";" if there is one anywhere in the column, otherwise at ","; not where it is a known
    name. JSON may have lists.

    Raises:
      ValueError: a list that was written as text, or something else than names.
    """
    rows = list(rows)
    for row in rows:
        _check_names(row.values.get(key), known, f"{where}, line {row.line}: {key}")
    values = [row.values.get(key) for row in rows]
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
            return list(
                filter(None, map(text, [value] if value.strip() in known else value.split(mark)))
            )
        return [
            name for some in (value if isinstance(value, list) else [value]) if (name := text(some))
        ]

    return [names(value) for value in values]


def _check_names(value: Any, known: Sequence[str], where: str) -> None:
    listed = isinstance(value, str) and value not in known and re.fullmatch(r"\s*\[.*\]\s*", value)
    nested = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(name, (list, dict)) for name in value)
    )
    if listed or nested:
        raise ValueError(
            f"{where}: got {value!r}, wanted names: as text dog;cat, in JSON lines a list of texts"
        )


def tell_unused(rows: Sequence[Row], known: Sequence[str], where: str) -> tuple[str, ...]:
    """Log which columns of a table have no meaning here, and return them."""
    columns = dict.fromkeys(key for row in rows for key in row.values)
    unused = tuple(key for key in columns if key not in known)
    if unused:
        near = {key: difflib.get_close_matches(key.lower(), known, 1, 0.75) for key in unused}
        hints = [f"'{key}' for '{found[0]}'?" for key, found in near.items() if found]
        log.info(
            "%s: columns kept and not used: %s%s",
            where, ", ".join(unused), f"; misspelt: {' '.join(hints)}" if hints else "",
        )  # fmt: skip
    return unused


def natural(name: str) -> tuple[float, str]:
    """Return a key that sorts names of classes: numbers first, by size, then the others."""
    return (float(name), name) if _NUMBER.fullmatch(name) else (float("inf"), name)


def text(value: Any) -> str:
    """Return a cell's value as text without blanks around it: a number of JSON that is whole as such."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None or value != value else str(value).strip()


def _json(file: Iterable[str], path: pathlib.Path) -> Iterator[Row]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {line}: not JSON: {error}") from None
        if not isinstance(row, dict):
            got = f"{text.strip():.80}"
            raise ValueError(f"{path}, line {line}: wanted an object, got {got}")
        yield Row(line, {key.strip(): value for key, value in row.items()})


def _delimited(
    file: Iterable[str], path: pathlib.Path, tabs: bool, need: Sequence[str]
) -> Iterator[Row]:
    lines = iter(file)
    first = next(lines, "")
    while first and not first.strip():
        first = next(lines, "")
    mark = "\t" if tabs else ","

    def together() -> Iterator[str]:
        yield first
        yield from lines

    reader = csv.reader(
        together(), delimiter=mark, skipinitialspace=f"{mark} " in first, strict=True
    )
    names = [name.strip() for name in next(reader, [])]
    for name in need if names else ():
        if name not in names:
            other = next((m for m in (";", "\t", "|", ",") if m != mark and m in first), None)
            hint = f"; is it separated by {other!r}? wanted {mark!r}" if other else ""
            near = difflib.get_close_matches(name, [n.lower() for n in names], 1, 0.75)
            hint += f"; is '{near[0]}' meant?" if near and not hint else ""
            columns = ", ".join(names)
            raise ValueError(f"{path}, line 1: no column '{name}'; the columns are {columns}{hint}")
    if twice := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
        raise ValueError(f"{path}, line 1: column '{twice[0]}' is there twice")
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {reader.line_num}: not a row of a table: {error}"
            ) from None
        if not any(field.strip() for field in fields):
            continue
        if len(fields) > len(names) and any(field.strip() for field in fields[len(names) :]):
            raise ValueError(
                f"{path}, line {reader.line_num}: {len(fields)} fields, but {len(names)} columns; "
                'write a field that holds a comma in quotes, "like, this"'
            )
        yield Row(
            reader.line_num,
            {name: field for name, field in zip(names, fields, strict=False) if name},
        )
