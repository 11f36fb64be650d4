"""AudioSet-Strong: excerpts of AudioSet whose events have onset and offset (Hershey et al. 2021)."""

import csv
import logging
import os
import pathlib
from collections.abc import Mapping

from ssl_audio.data import tables
from ssl_audio.data.annotations import Annotated, Event
from ssl_audio.data.listing import audio_names
from ssl_audio.storage import opened

log = logging.getLogger(__name__)

FIRST = "segment_id"  # the column that tells such a table from others
NAMES = "mid_to_display_name.tsv"


def read(table: pathlib.Path) -> Annotated:
    """Return the events of those excerpts of `audioset_{train,eval}_strong.tsv` that have a file.

    Columns: `segment_id` (the video's id, "_", and where the excerpt begins in it, ms),
    `start_time_seconds` and `end_time_seconds` (from the excerpt's begin) and `label` (a MID). The excerpts
    lie at any depth below the table's folder, already cut; their names are the segment's id, or begin with
    the video's or with "Y" and that. `mid_to_display_name.tsv` beside the table names the labels; without it
    they keep their MIDs. Two MIDs of one name are told apart by the MID in brackets.

    Events without length say nothing of time: they are counted in the log and left out.

    Raises:
      ValueError: naming file and line, what cannot be understood; the table is of frames judged one by one
        (`present`); no excerpt is there.
    """
    names = _names(table.parent / NAMES)
    files, found = _files(table.parent), {}
    points = events = 0
    seen: set[str] = set()
    owners: dict[pathlib.Path, str] = {}
    for row in tables.read(table, need=(FIRST, "start_time_seconds", "end_time_seconds", "label")):
        if "present" in row:
            raise opened.error(
                table, "a column 'present'", "a table of events",
                "Take audioset_eval_strong.tsv: this one is of frames that were judged one by one.",
            )  # fmt: skip
        segment, mid = row[FIRST].strip(), row["label"].strip()
        video, _, begin = segment.rpartition("_")
        if not video or not begin.isdigit():
            wanted = "the video's id, '_' and a begin in ms, as 0bRUkLsttto_30000"
            raise opened.error(f"{row.where}: {FIRST}", repr(segment), wanted)
        if names is not None and mid not in names:
            raise opened.error(f"{row.where}: label", repr(mid), f"a MID of {NAMES}")
        start, end = (row.number(f"{name}_time_seconds", float) for name in ("start", "end"))
        if start is None or end is None or not 0 <= start <= end:
            raise opened.error(row.where, f"{start} to {end} s", "seconds, the end after the start")
        seen.add(segment)
        file = files.get(segment) or files.get(video)
        if file is None:
            continue
        if (other := owners.setdefault(file, segment)) != segment:
            raise opened.error(
                f"{row.where}: {FIRST}", f"{segment}, and {other} before, for {file}", "a file for each",
                "Call the files by their segments' ids.",
            )  # fmt: skip
        some = found.setdefault(str(file), [])
        events += 1
        if start == end:
            points += 1
        else:
            some.append(Event(start, end, mid if names is None else names[mid]))
    if not found:
        raise ValueError(
            f"{table}: none of its {len(seen)} excerpts has a file below {table.parent}; wanted names that "
            "begin with the video's id, as 0bRUkLsttto.wav or Y0bRUkLsttto.wav."
        )
    log.info("%s: %d of %d excerpts have a file", table, len(found), len(seen))
    if points:
        log.warning("%s: %d of %d events have no length and are left out", table, points, events)
    return {file: sorted(some, key=lambda e: e[:3]) for file, some in sorted(found.items())}


def _names(path: pathlib.Path) -> Mapping[str, str] | None:
    """Return the name of each MID; None: there is no such table."""
    if not path.is_file():
        log.warning("%s: missing, so that classes are called by their MIDs", path)
        return None
    rows = list(csv.reader(path.read_text("utf-8").splitlines(), delimiter="\t"))
    for line, row in enumerate(rows, 1):
        if len(row) != 2:
            raise opened.error(f"{path}, line {line}", opened.short(row), "a MID, a tab and a name")
    names = [name for _, name in rows]
    return {mid: name if names.count(name) == 1 else f"{name} ({mid})" for mid, name in rows}


def _files(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return the files by what a segment's may be called: its id, or that of the video."""
    found: dict[str, pathlib.Path] = {}
    for name in audio_names(root)[0]:
        stem = os.path.splitext(name[name.rfind("/") + 1 :])[0]
        plain = stem[:11]  # the length of every video id
        for key in (stem, plain, *([stem[1:12], stem[1:]] if stem[0] == "Y" else [])):
            found.setdefault(key, root / name)
    return found
