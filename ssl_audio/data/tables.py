"""Tables of data sets, read with errors that name file, line and column. For `sets/` and presets."""

import csv
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssl_audio.storage import opened


class Row(dict[str, Any]):
    """A line of a table; `where`: its file and number."""

    def __init__(self, cells: Mapping[str, Any], where: str):
        super().__init__(cells)
        self.where = where

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            there = ", ".join(str(name) for name, cell in self.items() if cell is not None)
            got = f"only {there or 'nothing'}: another table, or a line that was cut"
            raise opened.error(f"{self.where}: {key}", got, "a value in this column")
        return value

    def whole(self, key: str) -> int:
        """Return a cell as a whole number."""
        try:
            return int(self[key])
        except ValueError:
            got = opened.short(self[key])
            raise opened.error(f"{self.where}: {key}", got, "a whole number") from None

    def numbers(self, key: str, names: Sequence[str], known: Mapping[str, int]) -> tuple[int, ...]:
        """Return the sorted numbers of some names in a cell."""
        for name in names:
            if name not in known:
                few = ", ".join(list(known)[:5])
                wanted = f"one of {len(known)} known ones ({few}, …)"
                raise opened.error(f"{self.where}: {key}", repr(name), wanted)
        return tuple(sorted({known[name] for name in names}))


def table(path: pathlib.Path, columns: Sequence[str] = (), *, comments: bool = False) -> list[Row]:
    """Return the lines of a CSV file; see `rows_of`."""
    return list(rows_of(path, columns, comments=comments))


def rows_of(
    path: pathlib.Path, columns: Sequence[str] = (), *, comments: bool = False
) -> Iterator[Row]:
    """Yield the lines of a CSV file.

    Args:
      path: of the file; UTF-8, with or without a byte-order mark.
      columns: names of the columns of a file that has no line for them.
      comments: leave out lines that begin with "#".

    Raises:
      ValueError: no such file, it is empty, not text, or no table.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; wanted the table of a data set.")
    text = opened.text(path, "the table of a data set, CSV in UTF-8")
    lines = text.splitlines(keepends=True)
    if comments:  # kept as empty lines, so that the others have their numbers
        lines = ["\n" if line.startswith("#") else line for line in lines]
    options: Any = dict(restkey="", skipinitialspace=True, strict=True)  # strict: a quote is closed
    reader = csv.DictReader(lines, list(columns) or None, **options)
    empty = True
    try:
        for cells in reader:
            empty = False
            yield Row(cells, f"{path}, line {reader.line_num}")
    except csv.Error as error:
        where = f"{path}, line {reader.line_num}"
        raise opened.error(where, f"what is no CSV ({error})", "the table of a data set") from None
    if empty:
        raise opened.error(path, "no rows", "the table of a data set")
