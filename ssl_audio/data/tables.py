"""Tables of users and data sets: CSV, TSV, JSON lines; errors name file, line and column."""

import csv
import difflib
import functools
import itertools
import json
import logging
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_audio.storage import opened

JSON = (".jsonl", ".ndjson", ".json")

_LINE_END = re.compile(r"\r\n|\r|\n")
BLOCK = 16_384  # lines that are read together
# How files begin that are tables, but no text.
_NO_TEXT = {b"PAR1": "Parquet", b"PK\x03\x04": "a spreadsheet or zip", b"\x1f\x8b": "gzip"}

log = logging.getLogger(__name__)


class _Absent:
    """What stands in a column where a line has no cell for it."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT: Any = _Absent()


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


@dataclass(frozen=True)
class Block:
    """Lines of a table, by column; `ABSENT` where a line has no cell.

    Attributes:
      path: of the table.
      lines: the number of each line.
      columns: name → cells, one for each line.
    """

    path: pathlib.Path
    lines: Sequence[int]
    columns: Mapping[str, Sequence[Any]]

    def row(self, i: int) -> Row:
        """Return one line."""
        cells = {key: cells[i] for key, cells in self.columns.items() if cells[i] is not ABSENT}
        return Row(cells, self.path, self.lines[i])


def read(
    path: pathlib.Path,
    columns: Sequence[str] = (),
    *,
    need: Sequence[str] = (),
    comments: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a table, at least one; see `blocks`."""
    for block in blocks(path, columns, need=need, comments=comments):
        yield from map(block.row, range(len(block.lines)))


def blocks(
    path: pathlib.Path,
    columns: Sequence[str] = (),
    *,
    need: Sequence[str] = (),
    comments: bool = False,
) -> Iterator[Block]:
    """Yield the lines of a table, at least one, many at a time.

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
    with open(path, "rb") as file:
        begin = file.read(4)
    if other := next((what for mark, what in _NO_TEXT.items() if begin.startswith(mark)), None):
        raise opened.error(path, other, "text: save it as .csv, .tsv or .jsonl")
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
            for block in found:
                empty = empty and not block.lines
                yield block
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not UTF-8 (byte {error.object[error.start]:#04x} at {error.start}); save it as UTF-8, "
            "as with `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from None
    if empty:
        raise opened.error(path, "no rows", "a table")


_named: set[str] = set()


def name_columns(columns: Iterable[str]) -> None:
    """Say that entries of batches look these columns up, so that `tell_unused` passes over them."""
    _named.update(columns)


def tell_unused(columns: Iterable[str], known: Sequence[str], where: str) -> tuple[str, ...]:
    """Log which columns of a table have no meaning here, and return them."""
    unused = tuple(key for key in columns if key not in known and key not in _named)
    if unused:
        near = {key: difflib.get_close_matches(key.lower(), known, 1, 0.75) for key in unused}
        hints = [f"'{key}' for '{found[0]}'?" for key, found in near.items() if found]
        said = f"; misspelt: {' '.join(hints)}" if hints else ""
        _tell(f"{where}: columns kept and not used: {', '.join(unused)}{said}")
    return unused


@functools.lru_cache(1024)
def _tell(line: str) -> None:
    """Log a line, once: a table is read again for every part of the data and for evaluation."""
    log.info("%s", line)


def _json(file: Iterable[str], path: pathlib.Path) -> Iterator[Block]:
    lines = enumerate(file, 1)
    decoder: Any = json.JSONDecoder()
    scan = decoder.scan_once
    clean: set[str] = set()  # names of columns without blanks around them
    while some := list(itertools.islice(lines, BLOCK)):
        rows, numbers = [], []
        for line, content in some:
            text = content.strip(" \t\r\n")
            if not text or text.isspace():
                continue
            try:
                row, end = scan(text, 0)
            except (ValueError, RecursionError, StopIteration):
                end = -1
            if end != len(text):
                row = _parsed(content, path, line)
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {line}: wanted an object, got {text:.80}")
            if not clean.issuperset(row):
                row = {key.strip(): value for key, value in row.items()}
                clean.update(row)
            rows.append(row)
            numbers.append(line)
        kinds = dict.fromkeys(map(tuple, rows))
        if len(kinds) == 1:
            names = next(iter(kinds))
            columns = dict(zip(names, zip(*map(dict.values, rows), strict=True), strict=True))
        else:
            names = dict.fromkeys(name for kind in kinds for name in kind)
            columns = {name: [row.get(name, ABSENT) for row in rows] for name in names}
        yield Block(path, numbers, columns)


def _parsed(text: str, path: pathlib.Path, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {line}: not JSON: {error}") from None


def _delimited(
    file: Iterable[str],
    path: pathlib.Path,
    mark: str,
    columns: Sequence[str],
    need: Sequence[str],
) -> Iterator[Block]:
    lines = iter(file)
    first, names, before = "", list(columns), 0
    if not columns:
        for first in lines:
            if first.strip():
                break
            before += 1

    spaced = bool(columns) or f"{mark} " in first
    reader = csv.reader(
        lines if columns else itertools.chain([first], lines),
        delimiter=mark,
        skipinitialspace=spaced,
        strict=True,
    )
    names = names or [name.strip() for name in next(iter(_some(reader, path, before, 1)[0]), [])]
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
    while True:
        rows, numbers = _some(reader, path, before, BLOCK)
        if not rows:
            return
        # Most tables have nothing but whole rows: to look at each of those takes longer than to read them.
        cells = list(zip(*rows, strict=True)) if set(map(len, rows)) == {len(names)} else []
        if not cells or not all(map(str.strip, cells[0])):
            rows, numbers = _whole(rows, numbers, names, path)
            cells = zip(*rows, strict=True) if rows else ([] for _ in names)
        yield Block(path, numbers, {n: c for n, c in zip(names, cells, strict=True) if n})


def _some(
    reader: Any, path: pathlib.Path, before: int, most: int
) -> tuple[list[list[str]], Sequence[int]]:
    """Return rows of a CSV reader and the numbers of their lines, of which `before` were not given it."""
    first = reader.line_num
    try:
        rows = list(itertools.islice(reader, most))
    except csv.Error as error:
        raise opened.error(
            f"{path}, line {before + reader.line_num}",
            f"what is no CSV ({error})",
            "a row of a table",
        ) from None
    if reader.line_num - first == len(rows):
        return rows, range(before + first + 1, before + reader.line_num + 1)
    # A cell in quotes may go over several lines; a row has the number of its last one.
    lengths = (1 + sum(len(_LINE_END.findall(field)) for field in fields) for fields in rows)
    return rows, [before + first + last for last in itertools.accumulate(lengths)]


def _whole(
    rows: list[list[str]], numbers: Sequence[int], names: Sequence[str], path: pathlib.Path
) -> tuple[list[list[str]], list[int]]:
    """Return the rows that are not blank, each with a cell per column."""
    found = []
    for fields, line in zip(rows, numbers, strict=True):
        if not any(field.strip() for field in fields):
            continue
        if any(field.strip() for field in fields[len(names) :]):
            raise ValueError(
                f"{path}, line {line}: {len(fields)} fields, but {len(names)} columns; "
                'write a field that holds a comma in quotes, "like, this"'
            )
        missing = len(names) - len(fields)
        found.append((([*fields, *[ABSENT] * missing])[: len(names)], line))
    return [row for row, _ in found], [line for _, line in found]
