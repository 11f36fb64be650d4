"""DESED: ten seconds of domestic sound, with events marked (strong), named only (weak), or neither."""

import logging
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from ssl_audio.data import annotations, tables
from ssl_audio.data import names as spelling
from ssl_audio.data.listing import audio_names
from ssl_audio.data.source import Clip, Files, SourceInfo
from ssl_audio.storage import opened

log = logging.getLogger(__name__)

WEAK = "event_labels"
# Tables whose folder of sound has another name than they.
_OTHERS = {"audioset_strong": "strong_label_real"}


@dataclass(frozen=True)
class Desed(Files):
    """The clips of one table below `metadata` that are on the disk, below `audio` beside it.

    `metadata/train/weak.tsv` (`filename`, `event_labels` with commas between) gives each clip its labels;
    `metadata/train/unlabel_in_domain.tsv` (`filename`) and strong tables give none: events of those are
    read by `annotated.Recordings(path=TABLE)`. The sound of `metadata/A/B.tsv` lies in `audio/A/B`, in
    `audio/A/B_16k` or with another rate in its name, or in `audio/A`.
    """

    table: str
    rate: int = 16_000  # Hz
    labels: tuple[str, ...] = ()  # names in the order of their numbers; default: sorted

    def scan(self) -> tuple[SourceInfo, Sequence[Clip]]:  # noqa: D102
        path = pathlib.Path(self.table).expanduser()
        listed: dict[str, list[str] | None] = {}
        for row in tables.read(path, need=("filename",)):
            name = _name(row)
            if WEAK in row:
                labels = [part.strip() for part in row[WEAK].split(",")]
                if not all(labels):
                    got = repr(row[WEAK])
                    raise opened.error(f"{row.where}: {WEAK}", got, "names with commas between")
                listed[name] = labels
            else:
                listed.setdefault(name, None)
        there = {label for some in listed.values() for label in some or ()}
        names = self.labels or tuple(sorted(there, key=spelling.natural))
        if other := sorted(there - set(names)):
            raise ValueError(f"{path}: label {other[0]!r} is not one of {', '.join(names)}")
        files = _files(path, listed)
        number = {label: i for i, label in enumerate(names)}
        clips = []
        for name, file in files.items():
            labels = listed[name]
            tags = None if labels is None else tuple(sorted({number[label] for label in labels}))
            clips.append(Clip(str(file), name.rpartition(".")[0], tags))
        info = SourceInfo(
            "desed",
            names,
            licence="annotations CC BY 4.0; the sounds have their own",
            citation="N. Turpault et al. Sound event detection in domestic environments with weakly labeled "
            "data and soundscape synthesis. DCASE 2019. hal-02160855",
            url="https://project.inria.fr/desed",
            multilabel=True,
        )
        return info, clips


def read(table: pathlib.Path) -> annotations.Annotated:
    """Return the events of the clips of a strong table (`filename`, `onset`, `offset`, `event_label`).

    Raises:
      ValueError: naming file and line, what cannot be understood; a table without events; no clip is there.
    """
    columns = next(iter(tables.blocks(table))).columns
    if "onset" not in columns:
        raise opened.error(
            table, f"the columns {', '.join(columns)}", "filename, onset, offset and event_label",
            "Weak labels do not say when: train with weak=TABLE.",
        )  # fmt: skip
    # Paths come back relative to the table's own folder.
    found = annotations.read(table)
    marked = {os.path.relpath(path, table.parent): events for path, events in found.items()}
    return {str(file): marked[name] for name, file in _files(table, marked).items()}


def audio_folders(table: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders that may hold the sound of a table, likeliest first; none: it is not of DESED."""
    path = table.expanduser().resolve()
    root = next((parent for parent in path.parents if parent.name == "metadata"), None)
    if root is None:
        return []
    place = root.parent / "audio" / path.parent.relative_to(root)
    stem = _OTHERS.get(path.stem, path.stem)
    found = [place / stem, *sorted(place.glob(f"{stem}_[0-9]*k")), place]
    return [folder for folder in found if folder.is_dir()]


def _name(row: tables.Row) -> str:
    name = spelling.text(row["filename"])
    if not name:
        raise opened.error(f"{row.where}: filename", "nothing", "the name of a file")
    return name


def _files(table: pathlib.Path, listed) -> dict[str, pathlib.Path]:
    """Return the file of each listed clip that is there; videos disappear, so the others are only counted."""
    folders = audio_folders(table)
    found: dict[str, pathlib.Path] = {}
    for folder in reversed(folders):
        there = set(audio_names(folder)[0])
        found |= {name: folder / name for name in listed if name in there}
    if not found:
        where = ", ".join(map(str, folders)) or "no folder audio beside metadata"
        raise ValueError(f"{table}: none of its {len(listed)} clips is there; looked in {where}")
    if len(found) < len(listed):
        log.warning("%s: %d of %d clips have a file", table, len(found), len(listed))
    return dict(sorted(found.items()))
