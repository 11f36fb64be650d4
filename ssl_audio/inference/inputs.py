"""What a user asks to be embedded or classified: files, folders, the rows of a table, in their order.

Called by `embed`, `predict` and, for Python, `Encoder.embed` and `Classifier.predict`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ssl_audio.data import tables
from ssl_audio.data.decode import DecodeError, blocks, printable
from ssl_audio.data.listing import AudioFiles, audio_files
from ssl_audio.data.prefetch import in_order
from ssl_audio.data.source import Clip, Example, Files, SourceInfo
from ssl_audio.storage import opened

PIECE = 30.0  # s; of longer files no more than a few such pieces are in memory
START, END = "start", "end"  # columns of a table: the part of the file that is meant, s


class Pieces(Files):
    """Audio files whose sound comes in pieces: `audio` is an iterator of them when there are several."""

    def __getitem__(self, i: int) -> Example:
        path, rate, start, end = self._excerpt(self.clips[i])
        begin = functools.partial(
            blocks, path, rate, start, end, seconds=PIECE, channels=self.channels
        )
        pieces = begin()
        audio = next(pieces)
        if next(pieces, None) is not None:
            audio = begin()  # anew: many clips are read ahead, and one that is begun holds memory
        return {"audio": audio, **self.meta(i)}


@dataclasses.dataclass(frozen=True)
class Paths(Pieces):
    """Audio files, and all audio files below folders, each once; a clip's id is its path."""

    paths: tuple[str, ...]
    rate: int
    channels: str = "average"  # or "first", "loudest"

    def scan(self) -> tuple[SourceInfo, list[Clip]]:  # noqa: D102
        found: dict[str, None] = {}
        listed = AudioFiles([], {})
        for path in map(pathlib.Path, self.paths):
            if not path.exists():
                raise ValueError(f"{path}: no such file or folder.")
            inside = inside_of(path)
            listed = listed + inside
            found |= dict.fromkeys(p.as_posix() for p in inside)
        info = SourceInfo("paths", left_out=listed.summary)
        # A name need not be UTF-8, but the text of a table must be.
        return info, list(map(Clip, found, map(printable, found)))


def inside_of(path: pathlib.Path) -> AudioFiles:
    """Return the audio files below a folder, sorted; of anything else, itself.

    Raises:
      ValueError: there is none.
    """
    inside = audio_files(path) if path.is_dir() else AudioFiles([path], {})
    if not inside:
        left_out = f" (left out: {inside.summary})" if inside.summary else ""
        raise ValueError(f"{printable(path)}: no audio file in this folder{left_out}.")
    return inside


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows that are asked for, in their order.

    Attributes:
      columns: all that is known of the rows, by name, [N] each.
      clips: the sound of each row. Equal ids mean equal sound.
      faults: why a row has no sound, by its number.
      left_out: of folders' files: how many of which endings are not taken.
    """

    columns: Mapping[str, Sequence[Any]]
    clips: Sequence[Clip]
    faults: Mapping[int, str]
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.clips)

    @functools.cached_property
    def keys(self) -> list[str]:
        """The id of each row's sound."""
        return [clip.id for clip in self.clips]

    @property
    def digest(self) -> str:
        """What differs between lists."""
        return hashlib.sha256(json.dumps(self.keys).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Asked(Pieces):
    """The sound of a table's rows; a row that cannot be read raises DecodeError with the reason."""

    table: Table
    rate: int
    channels: str = "average"  # or "first", "loudest"

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        return SourceInfo("rows", left_out=self.table.left_out), self.table.clips

    def __getitem__(self, i: int) -> Example:
        if fault := self.table.faults.get(i):
            raise DecodeError(f"{self.table.keys[i]}: {fault}")
        return super().__getitem__(i)


def of_paths(paths: Iterable[str | os.PathLike]) -> Table:
    """Return a row for each file, as often as it is named, and for each audio file below a folder.

    Raises:
      ValueError: nothing is named, or a folder has no audio file.
    """
    found: list[pathlib.Path] = []
    listed = AudioFiles([], {})
    for path in map(pathlib.Path, paths):
        inside = inside_of(path)
        listed = listed + inside
        found += inside
    if not found:
        raise ValueError("no path is given; wanted audio files or folders.")
    files = [path.as_posix() for path in found]
    columns = {"path": list(map(printable, files))}
    return Table(columns, [_clip(path, 0.0, None) for path in files], {}, listed.summary)


def of_csv(path: str | os.PathLike, root: str | os.PathLike | None = None) -> Table:
    """Return the rows of a CSV, TSV or JSON-lines file with a column `path`, where wanted `start` and `end`.

    Args:
      path: of the table; see `tables.blocks`.
      root: what its paths are relative to; None: the folder of the table.

    Raises:
      ValueError: there is no such file, or it is no such table.
    """
    path = pathlib.Path(path).expanduser()
    columns: dict[str, list[Any]] = {}
    count = 0
    for block in tables.blocks(path, need=("path",)):
        for name in block.columns:
            columns.setdefault(name, [""] * count)
        for name, cells in columns.items():
            given = block.columns.get(name, [tables.ABSENT] * len(block.lines))
            cells += ["" if cell in (None, tables.ABSENT) else cell for cell in given]
        count += len(block.lines)
    return of_columns(columns, path.parent if root is None else root)


def of_frame(frame: Any, root: str | os.PathLike = ".") -> Table:
    """Return the rows of a pandas DataFrame with a column `path`, where wanted `start` and `end`.

    Raises:
      ValueError: there is no column `path`, or no row.
    """
    names = [str(name) for name in frame.columns]
    if "path" not in names:
        have = ", ".join(names) or "none"
        raise ValueError(f"DataFrame: no column 'path'; the columns are {have}.")
    return of_columns({n: frame.iloc[:, i].tolist() for i, n in enumerate(names)}, root)


def of_columns(columns: Mapping[str, Sequence[Any]], root: str | os.PathLike) -> Table:
    """Return the rows of a table with a column `path`; what is wrong with one is a fault of that row."""
    base = pathlib.Path(root).expanduser()
    clips: list[Clip] = []
    faults: dict[int, str] = {}
    files = columns["path"]
    if not len(files):
        raise ValueError("the table has no rows.")
    bounds = (columns.get(name, [None] * len(files)) for name in (START, END))
    for i, (file, *some) in enumerate(zip(files, *bounds, strict=True)):
        text = os.fspath(file) if isinstance(file, (str, os.PathLike)) else ""
        try:
            if not text.strip():
                raise ValueError("path: nothing is given")
            start, end = map(_seconds, (START, END), some)
            if end is not None and end <= (start or 0.0):
                raise ValueError(f"end: got {end:g} s, wanted more than start, {start or 0.0:g} s")
            clips.append(_clip(_placed(text, base), start or 0.0, end))
        except ValueError as error:
            faults[i] = str(error)
            clips.append(Clip(text, f"row {i} of the table"))
    return Table(columns, clips, faults)


def _placed(text: str, base: pathlib.Path) -> str:
    """Return a path; a blank at its ends may belong to the name, but seldom does."""
    stripped = text.strip()
    exact = stripped != text and (base / text).exists()
    return (base / (text if exact else stripped)).as_posix()


def _seconds(name: str, value: Any) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    wanted = "seconds, 0 or more"
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise opened.error(name, opened.short(value), wanted) from None
    if math.isnan(found):  # how pandas writes that there is nothing
        return None
    if not 0 <= found < math.inf:
        raise opened.error(name, opened.short(value), wanted)
    return found


def _clip(path: str, start: float, end: float | None) -> Clip:
    span = f" from {start!r} s" if start or end is not None else ""
    span += f" to {end!r} s" if end is not None else ""
    return Clip(path, printable(path) + span, start=start, end=end)


def check_rate(sample_rate: Any) -> None:
    """Raise ValueError where a sample rate is given together with files."""
    if sample_rate is not None:
        raise ValueError(
            f"sample_rate: got {sample_rate}, but files state their own: leave it out."
        )


def sound(table: Table, rate: int, sample_rate: Any) -> Iterator[Any]:
    """Return the sound of each row at `rate` Hz, whole or in pieces, read ahead.

    Raises:
      ValueError: a row that cannot be read, when it is asked for; a sample rate is given, too.
    """
    check_rate(sample_rate)
    source = Asked(table, rate)
    return in_order(lambda i: source[i]["audio"], len(table), threads=8, ahead=32)


def is_frame(given: Any) -> bool:
    """Tell whether this is a pandas DataFrame, without importing pandas."""
    return hasattr(given, "iloc") and hasattr(given, "columns")


def files_in(given: Any) -> Table | None:
    """Return the rows of a path, several paths or a DataFrame; None: it is something else.

    Raises:
      ValueError: as `of_paths` and `of_frame`.
    """
    if is_frame(given):
        return of_frame(given)
    if isinstance(given, (str, os.PathLike)):
        return of_paths([given])
    if isinstance(given, (list, tuple)) and given:
        kinds = {isinstance(one, (str, os.PathLike)) for one in given}
        if kinds == {True}:
            return of_paths(given)
        if len(kinds) == 2:
            raise ValueError("paths and waveforms together; give one kind at a time.")
    return None


def text(value: Any) -> str:
    """Return a cell as the text of a table: as it is, or as JSON; nothing is empty."""
    if isinstance(value, str):
        return printable(value)
    return "" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which sound is meant, and how much at once; `check_options` checks them."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="audio files or folders of them")
    parser.add_argument(
        "--csv", metavar="TABLE",
        help="in place of PATH: .csv, .tsv or .jsonl with a column path and, where wanted, start and end (s)",
    )  # fmt: skip
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="what the table's paths are relative to; default: its folder",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        help="most windows computed together; on a CPU never more than four seconds of sound, or one",
    )


def check_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a message if options contradict each other or cannot be."""
    if bool(args.paths) == bool(args.csv):
        parser.error("PATH or --csv: wanted one of them, as `sounds/` or `--csv table.csv`")
    if args.root and not args.csv:
        parser.error("--root is of the paths in a table: give --csv too")
    if args.batch_size is not None and args.batch_size < 1:
        parser.error(f"--batch-size {args.batch_size}: wanted at least 1")


def with_batch_size(model: Any, args: argparse.Namespace) -> Any:
    """Return a model that computes as many windows together as was asked, or as it would by itself.

    `args.batch_size` is the number afterwards: results that are kept depend on it.
    """
    if args.batch_size is None:
        args.batch_size = model.batch_size
    return dataclasses.replace(model, batch_size=args.batch_size)
