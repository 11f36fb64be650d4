"""Tables of users and data sets: CSV, TSV, JSON lines; errors name file, line and column."""

import csv
import difflib
import json
import logging
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ssl_audio.storage import opened

JSON = (".jsonl", ".ndjson", ".json")

log = logging.getLogger(__name__)


class Row(dict[str, Any]):
    """A line of a table: column → cell, and where it stands. A cell that is asked for must be there."""

    def __init__(self, cells: Mapping[str, Any], path: pathlib.Path, line: int):
        super().__init__(cells)
        self.path, self.line = path, line

    @property
    def where(self) -> str:
        """The file and the number of its line."""
        return f"{self.path}, line {self.line}"

    def __missing__(self, key: str) -> Any:
        there = ", ".join(self) or "nothing"
        got = f"only {there}: another table, or a line that was cut"
        raise opened.error(f"{self.where}: {key}", got, "a value in this column")

    def number(self, key: str, kind: type) -> Any:
        """Return a cell as a finite int or float; None: there is nothing in it."""
        value = self.get(key)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        try:
            found = float(value)  # tables made by way of pandas have whole numbers as "1.0"
            if isinstance(value, bool) or not math.isfinite(found) or found != kind(found):
                raise ValueError(value)
        except (TypeError, ValueError):
            wanted = "a whole number" if kind is int else "a finite number"
            raise opened.error(f"{self.where}: {key}", opened.short(value), wanted) from None
        return kind(found)

    def whole(self, key: str) -> int:
        """Return a cell, which must be there, as a whole number."""
        found = self.number(key, int)
        if found is None:
            raise opened.error(f"{self.where}: {key}", repr(self[key]), "a whole number")
        return found

    def numbers(self, key: str, names: Sequence[str], known: Mapping[str, int]) -> tuple[int, ...]:
        """Return the sorted numbers of some names in a cell."""
        for name in names:
            if name not in known:
                few = ", ".join(list(known)[:5])
                wanted = f"one of {len(known)} known ones ({few}, …)"
                raise opened.error(f"{self.where}: {key}", repr(name), wanted)
        return tuple(sorted({known[name] for name in names}))


def read(
    path: pathlib.Path,
    columns: Sequence[str] = (),
    *,
    need: Sequence[str] = (),
    comments: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a table, at least one.

    Blanks around the names of columns do not count; where a comma in the header has a blank behind it, those
    behind the commas of the rows do not either. A byte-order mark is fine.

    Args:
      path: JSON lines by their ending, separated by tabs for .tsv, otherwise by commas; UTF-8.
      columns: names of the columns of a file that has no line for them.
      need: columns that must be there.
      comments: leave out lines that begin with "#".

    Raises:
      ValueError: no such file, not UTF-8, not such a table; a column is missing or there twice.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; wanted a table.")
    kind, empty = path.suffix.lower(), True
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines: Iterable[str] = file
            if comments:  # kept as empty lines, so that the others have their numbers
                lines = ("\n" if line.startswith("#") else line for line in file)
            found = (
                _json(lines, path)
                if kind in JSON
                else _delimited(lines, path, "\t" if kind == ".tsv" else ",", columns, need)
            )
            for row in found:
                empty = False
                yield row
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 (byte {error.object[error.start]:#04x} at {error.start}); save it as UTF-8, "
            "as with `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from None
    if empty:
        raise opened.error(path, "no rows", "a table")


def tell_unused(rows: Sequence[Row], known: Sequence[str], where: str) -> tuple[str, ...]:
    """Log which columns of a table have no meaning here, and return them."""
    columns = dict.fromkeys(key for row in rows for key in row)
    unused = tuple(key for key in columns if key not in known)
    if unused:
        near = {key: difflib.get_close_matches(key.lower(), known, 1, 0.75) for key in unused}
        hints = [f"'{key}' for '{found[0]}'?" for key, found in near.items() if found]
        log.info(
            "%s: columns kept and not used: %s%s",
            where, ", ".join(unused), f"; misspelt: {' '.join(hints)}" if hints else "",
        )  # fmt: skip
    return unused


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
        yield Row({key.strip(): value for key, value in row.items()}, path, line)


def _delimited(
    file: Iterable[str],
    path: pathlib.Path,
    mark: str,
    columns: Sequence[str],
    need: Sequence[str],
) -> Iterator[Row]:
    lines = iter(file)
    first, names, before = "", list(columns), 0
    if not columns:
        for first in lines:
            if first.strip():
                break
            before += 1

    def together() -> Iterator[str]:
        yield first
        yield from lines

    spaced = bool(columns) or f"{mark} " in first
    reader = csv.reader(
        lines if columns else together(), delimiter=mark, skipinitialspace=spaced, strict=True
    )
    fields_of = _fields(reader, path, before)
    names = names or [name.strip() for name in next(fields_of, [])]
    for name in need if names else ():
        if name not in names:
            other = next((m for m in (";", "\t", "|", ",") if m != mark and m in first), None)
            hint = f"; is it separated by {other!r}? wanted {mark!r}" if other else ""
            near = difflib.get_close_matches(name, [n.lower() for n in names], 1, 0.75)
            hint += f"; is '{near[0]}' meant?" if near and not hint else ""
            columns = ", ".join(names)
            where = f"{path}, line {before + 1}"
            raise ValueError(f"{where}: no column '{name}'; the columns are {columns}{hint}")
    if twice := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
        raise ValueError(f"{path}, line {before + 1}: column '{twice[0]}' is there twice")
    for fields in fields_of:
        if not any(field.strip() for field in fields):
            continue
        if any(field.strip() for field in fields[len(names) :]):
            raise ValueError(
                f"{path}, line {before + reader.line_num}: {len(fields)} fields, but {len(names)} columns; "
                'write a field that holds a comma in quotes, "like, this"'
            )
        cells = {name: field for name, field in zip(names, fields, strict=False) if name}
        yield Row(cells, path, before + reader.line_num)


def _fields(reader: Any, path: pathlib.Path, before: int) -> Iterator[list[str]]:
    """Yield what a CSV reader gives; its errors name file and line, of which `before` were not given it."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise opened.error(
                f"{path}, line {before + reader.line_num}",
                f"what is no CSV ({error})",
                "a row of a table",
            ) from None
