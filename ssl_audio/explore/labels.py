"""Labels that people give, in a CSV `path,start,end,label`: one row per label, on disk at once.

The file is a manifest that training takes as it is. Several pages and programs may write it.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ssl_audio.data import tables
from ssl_audio.data.decode import printable
from ssl_audio.explore.collection import Row, key
from ssl_audio.storage import atomic, opened

COLUMNS = ("path", "start", "end", "label")


class Labels:
    """The labels of some rows, one each at most; what the file says of other files stays in it.

    Args:
      path: of the CSV; made at the first label.
      rows: what may be labelled.
      numbers: `Collection.numbers`.

    Raises:
      ValueError: the file is no such table.
    """

    def __init__(self, path: pathlib.Path, rows: Sequence[Row], numbers: Mapping[Any, int]):
        self.path, self._rows, self._numbers = path, rows, numbers
        self._thread = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self.version = 0
        self.of: dict[int, str] = {}  # number of a row → label
        self.others = 0  # labels of what is no row here
        if path.suffix.lower() != ".csv":
            raise ValueError(f"--labels {path}: wanted a name that ends in .csv.")
        atomic.check_folder(path.parent)
        self.refresh()

    @property
    def classes(self) -> list[str]:
        """The labels, in the order of their first use."""
        return list(dict.fromkeys(self.of.values()))

    def refresh(self) -> int:
        """Read the file again if it has changed; return a number that grows with every change."""
        with self._thread:
            return self._refresh()

    def set(self, number: int, label: str | None) -> str | None:
        """Label a row, or take its label away; return the one it had. On disk when this returns.

        Raises:
          ValueError: a label that no table can hold; the file cannot be written.
        """
        if label is not None:
            label = " ".join(label.split())
            if not label or len(label) > 200:
                raise ValueError(f"label: got {label!r:.60}, wanted 1 to 200 characters.")
        path, start, end = self._rows[number]
        if not _utf8(label or ""):
            raise ValueError(f"label: got {label!r:.60}, wanted text that UTF-8 can write.")
        if not _utf8(path):
            raise ValueError(
                f"{printable(path)}: its name is not UTF-8 and cannot stand in a table; rename the file."
            )
        with self._thread:
            try:
                with _locked(self.path):
                    self._refresh()
                    before = self.of.get(number)
                    if before == label:
                        return before
                    if before is None and label is not None:
                        cells = (path, _time(start), _time(end), label)
                        self._append(dict(zip(COLUMNS, cells, strict=True)))
                    else:
                        self._rewrite(number, label)
            except OSError as error:
                raise ValueError(f"{self.path}: cannot be written: {error.strerror}.") from None
            self._refresh()
        return before

    def _refresh(self) -> int:
        try:
            about = self.path.stat()
            seen = about.st_size, about.st_mtime_ns, about.st_ino
        except FileNotFoundError:
            seen = ()
        if seen != self._seen:
            of, others = {}, 0
            for cells in self._read() if seen else ():
                number = self._number(cells)
                if number is None:
                    others += 1
                else:
                    of[number] = str(cells["label"]).strip()
            # At once: other threads read them, and a table that is damaged changes nothing.
            self.of, self.others, self._seen = of, others, seen
            self.version += 1
        return self.version

    def _read(self) -> Iterator[tables.Row]:
        if self.path.read_bytes().count(b"\n") < 2 and len(self._lines()) < 2:  # no row yet
            return
        for row in tables.read(self.path, need=("path", "label")):
            if str(row.get("label") or "").strip():
                yield row

    def _lines(self) -> list[list[str]]:
        """Return the cells of all lines from the header on, with the blanks that `tables` takes off gone."""
        content = self.path.read_bytes()
        text = opened.text(self.path, "a table of labels") if content.strip() else ""
        text = text.lstrip()
        spaced = ", " in text.partition("\n")[0]
        return list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=spaced))

    def _number(self, row: tables.Row) -> int | None:
        # What has no time stands for whole files.
        start, end = row.number("start", float), row.number("end", float)
        path = os.path.normpath(self.path.parent.absolute() / row["path"])
        return self._numbers.get(key(path, start, end))

    def _append(self, cells: Mapping[str, str]) -> None:
        """Add a line with a single write, which a kill cannot cut in two nor another program split."""
        head = (self._lines() or [COLUMNS])[0] if self.path.exists() else COLUMNS
        names = [name.strip() for name in head]
        if missing := [name for name in COLUMNS if name not in names]:
            got, wanted = f"no column {', '.join(missing)}", ", ".join(COLUMNS)
            raise opened.error(self.path, got, wanted, "Name another file: --labels FILE.csv")
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(file).st_size
            text = "" if size else _line(COLUMNS)
            if size and os.pread(file, 1, size - 1) not in (b"\n", b"\r"):
                text = "\n"
            os.write(file, (text + _line([cells.get(name, "") for name in names])).encode())
            os.fsync(file)
        finally:
            os.close(file)

    def _rewrite(self, number: int, label: str | None) -> None:
        """Change or leave out the lines of a row; all others stay as they are, with all their columns."""
        head, *lines = self._lines()
        names = [name.strip() for name in head]
        kept = []
        for cells in lines:
            row = tables.Row(dict(zip(names, cells, strict=False)), self.path, 0)
            if not cells or not row.get("path") or self._number(row) != number:
                kept.append(cells)
            elif label is not None:
                cells[names.index("label")] = label
                kept.append(cells)
                label = None  # several lines of the row become one
        atomic.write(self.path, "".join(map(_line, [head, *kept])))


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.3f}".rstrip("0").rstrip(".")


def _line(cells: Sequence[str]) -> str:
    made = io.StringIO()
    csv.writer(made, lineterminator="\n").writerow(cells)
    return made.getvalue()


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Keep other processes that label from writing: the kernel's lock of a file beside the table."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    file = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
