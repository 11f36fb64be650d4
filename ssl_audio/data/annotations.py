"""Events with onset and offset in files: tables, Raven selection tables, Audacity labels, JAMS.

Read as labels to train with and as truth to compare with; written by `eval/events.py`. A table holds many
recordings, each of the other files one.
"""

import difflib
import importlib
import math
import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ssl_audio.data import names as spelling
from ssl_audio.data import tables
from ssl_audio.data.listing import audio_files
from ssl_audio.data.tables import Row
from ssl_audio.storage import opened

# Format → the ending of its files; of several that fit a name, the longest counts.
ENDINGS = {"csv": ".csv", "raven": ".selections.txt", "audacity": ".txt", "jams": ".jams"}
TABLES = (".csv", ".tsv", *tables.JSON)
COLUMN = "Annotation"  # of a Raven table with the labels
_RAVEN = ("Begin Time (s)", "End Time (s)")
HEAD = ("path", "start", "end", "label", "score")  # of a table
# What programs call the columns of a table; of several that are there, the first counts.
_NAMES = {
    "path": ("path", "file", "filename", "file_name", "audio_filename", "filepath"),
    "start": ("start", "onset", "start (s)", "start_time", "start_seconds"),
    "end": ("end", "offset", "end (s)", "end_time", "end_seconds"),
    "label": ("label", "event_label", "class", "annotation", "common name", "scientific name"),
    "score": ("score", "confidence"),
}


class Event(NamedTuple):
    """A stretch of a recording and what is heard in it."""

    start: float  # s
    end: float  # s
    label: str
    score: float | None = None
    low: float | None = None  # Hz, of the box around it
    high: float | None = None


Annotated = dict[str, list[Event]]  # recording → its events in the order of their starts; none: []


def read(place: str | os.PathLike, column: str = COLUMN) -> Annotated:
    """Return the events of the recordings that a table, or files beside them in a folder, describe.

    A table names recordings by paths relative to its own folder, a row for each event; a row without times
    and label names a recording in which nothing is heard. In a folder `a/b.wav` is described by
    `a/b.selections.txt`, `a/b.Table.1.selections.txt` or `a/b.txt`; other recordings are left out, since
    nobody has listened to them.

    Args:
      place: of the table (.csv, .tsv, .jsonl) or the folder.
      column: of Raven tables with the labels.

    Raises:
      ValueError: naming file and line, what cannot be understood; no recording; two files for one.
    """
    place = pathlib.Path(place).expanduser()
    if place.is_dir():
        beside = {file: describing(file) for file in audio_files(place)}
        found = {str(a): of_recording(b, column) for a, b in beside.items() if b is not None}
        if not found:
            wanted = (
                "recordings with a file of the same name, as a.wav with a.selections.txt or a.txt"
            )
            raise opened.error(place, f"{len(beside)} recordings and no such file", wanted)
        return found
    if place.suffix.lower() not in TABLES:
        wanted = f"a table ({', '.join(TABLES)}) or a folder of recordings with files beside them"
        raise opened.error(place, repr(place.suffix), wanted)
    return _table(place)


def splits(place: str | os.PathLike) -> dict[str, str]:
    """Return the split of each recording of a table with a column `split`; of anything else nothing.

    Raises:
      ValueError: rows of one recording say different splits.
    """
    path, found = pathlib.Path(place).expanduser(), {}
    if path.suffix.lower() not in TABLES or not path.is_file():
        return found
    for block in tables.blocks(path):
        known = {name.lower(): name for name in block.columns}
        file = next((known[name] for name in _NAMES["path"] if name in known), None)
        if file is None or "split" not in known:
            continue
        for row in map(block.row, range(len(block.lines))):
            said, named = spelling.text(row.get(known["split"])), spelling.text(row[file])
            name = found.setdefault(os.path.normpath(path.parent / named), said)
            if name != said:
                raise opened.error(
                    f"{row.where}: split", repr(said), f"{name!r}, as of its other rows"
                )
    return {name: split for name, split in found.items() if split}


def describing(recording: pathlib.Path, folder: pathlib.Path | None = None) -> pathlib.Path | None:
    """Return the file that describes a recording, beside it or in another folder; None: there is none.

    Raises:
      ValueError: there are several.
    """
    folder = folder or recording.parent
    bare = (recording.stem, recording.name)
    endings = (".selections.txt", ".Table.1.selections.txt", ".txt")
    files = [folder / f"{name}{ending}" for name in bare for ending in endings]
    there = [file for file in files if file.is_file()]
    if len(there) > 1:
        raise ValueError(
            f"{recording}: {' and '.join(p.name for p in there)} describe it: keep one."
        )
    return there[0] if there else None


def of_recording(path: pathlib.Path, column: str = COLUMN) -> list[Event]:
    """Return the events of one recording, from a Raven selection table or Audacity's labels; empty: none.

    Raises:
      ValueError: naming file and line, what cannot be understood.
    """
    if not path.read_bytes().strip():
        return []
    lines = opened.text(path, "a Raven selection table, or labels of Audacity").splitlines()
    raven = set(_RAVEN) <= {cell.strip() for cell in lines[0].split("\t")}
    found = _raven(lines, path, column) if raven else _audacity(lines, path)
    return sorted(found, key=lambda event: event[:3])


def labels(annotated: Mapping[str, Sequence[Event]]) -> tuple[str, ...]:
    """Return the names of all classes, in the order of their numbers."""
    there = {event.label for events in annotated.values() for event in events}
    return tuple(sorted(there, key=spelling.natural))


def _table(path: pathlib.Path) -> Annotated:
    found: Annotated = {}
    for block in tables.blocks(path):
        columns = _columns(block.columns, f"{path}")
        for row in map(block.row, range(len(block.lines))):
            file = spelling.text(row[columns["path"]])
            if not file:
                raise opened.error(f"{row.where}: {columns['path']}", "nothing", "a path")
            some = found.setdefault(os.path.normpath(path.parent / file), [])
            cells = [spelling.text(row.get(columns[key])) for key in ("start", "end", "label")]
            if any(cell not in ("", "nan", "NaN") for cell in cells):
                some.append(_event(row, columns))
    return {file: sorted(some, key=lambda event: event[:3]) for file, some in found.items()}


def _columns(there: Iterable[str], where: str) -> dict[str, str]:
    """Return what a table calls the columns."""
    known = {name.lower(): name for name in there}
    found = {
        key: known[name]
        for key, some in _NAMES.items()
        if (name := next((n for n in some if n in known), None))
    }
    for key in ("path", "start", "end", "label"):
        if key not in found:
            near = difflib.get_close_matches(key, known, 1, 0.7)
            hint = f"Is '{near[0]}' meant?" if near else ""
            if any(";" in name for name in known):
                hint = "Is it separated by ';'? Write commas."
            wanted = f"one for the {key}: {', '.join(_NAMES[key])}"
            raise opened.error(where, f"the columns {', '.join(there)}", wanted, hint)
    return found


def _event(row: Row, columns: Mapping[str, str]) -> Event:
    start, end = (_seconds(row, columns[key]) for key in ("start", "end"))
    score = row.number(columns["score"], float) if "score" in columns else None
    low, high = (
        row.number(key, float) if key in row else None
        for key in ("Low Freq (Hz)", "High Freq (Hz)")
    )
    label = row[columns["label"]]
    if isinstance(label, list | dict | bool):
        got = opened.short(str(label))
        raise opened.error(f"{row.where}: {columns['label']}", got, "one name", "A row per event.")
    return _checked(Event(start, end, spelling.text(label), score, low, high), row.where)


def _seconds(row: Row, key: str) -> float:
    value = row.number(key, float)
    if value is None:
        raise opened.error(f"{row.where}: {key}", "nothing", "seconds")
    return value


def _checked(event: Event, where: str) -> Event:
    if not 0 <= event.start < math.inf:
        raise opened.error(f"{where}: start", f"{event.start:g} s", "0 or more")
    if not event.start < event.end < math.inf:
        got = f"{event.start:g} to {event.end:g} s"
        raise opened.error(
            where, got, "an end after the start", "A point has no length: give it one."
        )
    if not event.label:
        raise opened.error(f"{where}: label", "nothing", "the name of what is heard")
    return event


def _raven(lines: Sequence[str], path: pathlib.Path, column: str) -> list[Event]:
    head = [cell.strip() for cell in lines[0].split("\t")]
    if column not in head:
        hint = f"Name the column with the labels: its columns are {', '.join(head)}."
        raise opened.error(path, f"no column {column!r}", "a Raven table with it", hint)
    columns = dict(start=_RAVEN[0], end=_RAVEN[1], label=column)
    columns |= {"score": "Score"} if "Score" in head else {}
    found: dict[Any, Event] = {}
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        if not line.strip():
            continue
        row = Row(dict(zip(head, map(str.strip, cells), strict=False)), path, number)
        event = _event(row, columns)
        # Raven writes a selection once for each view that is open.
        known = found.setdefault(row.get("Selection") or number, event)
        if known != event:
            got = f"selection {row['Selection']} twice, with different values"
            raise opened.error(row.where, got, "each selection once, or once for each view")
    return list(found.values())


def _audacity(lines: Sequence[str], path: pathlib.Path) -> list[Event]:
    found: list[Event] = []
    for number, line in enumerate(lines, 1):
        where, cells = f"{path}, line {number}", line.split("\t")
        if not line.strip():
            continue
        if cells[0].strip() == "\\":  # the frequencies of the label before
            if not found or len(cells) < 3:
                raise opened.error(where, opened.short(line), "a label, then its frequencies")
            low, high = (_number(cell, where) for cell in cells[1:3])
            low, high = (None if value < 0 else value for value in (low, high))
            found[-1] = found[-1]._replace(low=low, high=high)
            continue
        if len(cells) < 2:
            wanted = "start, end and label with tabs between, or a Raven table with its header"
            raise opened.error(where, opened.short(line), wanted)
        start, end = (_number(cell, where) for cell in cells[:2])
        found.append(_checked(Event(start, end, "\t".join(cells[2:]).strip()), where))
    return found


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        hint = "Write a point for the comma." if "," in cell else ""
        raise opened.error(where, opened.short(cell), "a number", hint) from None
    if not math.isfinite(value):
        raise opened.error(where, cell, "a finite number")
    return value


def format_of(name: str) -> str:
    """Return the format that a file's name asks for; "": none."""
    fits = [kind for kind, ending in ENDINGS.items() if name.lower().endswith(ending)]
    return max(fits, key=lambda kind: len(ENDINGS[kind]), default="")


def check_labels(kind: str, labels: Iterable[str]) -> None:
    """Raise ValueError where a format cannot hold the name of a class."""
    for label in labels if kind in ("raven", "audacity") else ():
        if not label.strip() or len(label.splitlines()) > 1 or "\t" in label:
            wanted = f"a name without tabs and line ends, which a file of {kind} has around it"
            raise opened.error("class", repr(label), wanted, "Write .csv or .jams.")


def written(kind: str, events: Sequence[Event], *, rate: float, duration: float, name: str) -> str:
    """Return the text of a file of events of one recording.

    Args:
      kind: "raven", "audacity" or "jams".
      events: in the order of their starts.
      rate: of the recording, Hz: boxes without frequencies reach from 0 to half of it.
      duration: of the recording, s.
      name: of its file.
    """
    if kind == "jams":
        return _jams(events, duration, name)
    return _as_raven(events, rate / 2) if kind == "raven" else _as_audacity(events)


def _as_raven(events: Sequence[Event], top: float) -> str:
    head = (
        "Selection",
        "View",
        "Channel",
        *_RAVEN,
        "Low Freq (Hz)",
        "High Freq (Hz)",
        COLUMN,
        "Score",
    )
    lines = ["\t".join(head)]
    for number, event in enumerate(events, 1):
        # With a point in each: readers take a column of whole numbers for another type.
        low, high = 0.0 if event.low is None else event.low, event.high or top
        times = f"{event.start:.6f}\t{event.end:.6f}\t{low:.1f}\t{high:.1f}"
        score = "" if event.score is None else f"{event.score:.4f}"
        lines.append(f"{number}\tSpectrogram 1\t1\t{times}\t{event.label}\t{score}")
    return "\n".join(lines) + "\n"


def _as_audacity(events: Sequence[Event]) -> str:
    # Without the lines of frequencies, which some readers cannot read.
    return "".join(f"{e.start:.6f}\t{e.end:.6f}\t{e.label}\n" for e in events)


def needs(package: str, what: str) -> Any:
    """Import a package of the extra `events`; RuntimeError with the command that installs it."""
    try:
        with warnings.catch_warnings():  # those of old packages that it imports in turn
            warnings.simplefilter("ignore")
            return importlib.import_module(package)
    except ImportError as error:  # of the package, or of one that it needs
        raise RuntimeError(
            f"{what} needs {package} ({error}): pip install 'ssl_audio[events]'."
        ) from None


def _jams(events: Sequence[Event], duration: float, name: str) -> str:
    jams = needs("jams", "JAMS")
    made = jams.JAMS(file_metadata=jams.FileMetadata(title=name, duration=duration))
    some = jams.Annotation(namespace="tag_open", time=0.0, duration=duration)
    some.annotation_metadata.data_source = "program"
    for event in events:
        some.append(
            time=event.start, duration=event.end - event.start, value=event.label,
            confidence=event.score,
        )  # fmt: skip
    made.annotations.append(some)
    return made.dumps(indent=1) + "\n"


def rows(path: str, events: Sequence[Event]) -> Iterable[tuple[str, ...]]:
    """Yield the rows of a table: `HEAD`, cells as text; a recording without events has one."""
    for e in events:
        score = "" if e.score is None else f"{e.score:.4f}"
        yield path, f"{e.start:.6f}", f"{e.end:.6f}", e.label, score
    if not events:
        yield path, "", "", "", ""
