"""Hugging Face `datasets` on disk, read with pyarrow alone: folders of `save_to_disk`, Parquet, Arrow files.

Sound is decoded by this package's own decoders from the bytes, or the files, that an Audio column holds.
"""

import functools
import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ssl_audio.data.arrow_files import Tables, class_names, files, kind_of
from ssl_audio.data.decode import DecodeError, printable
from ssl_audio.data.packed import (
    MEANT,
    TEXTS,
    Listed,
    Packed,
    captions,
    fold,
    numbered,
    others,
    split,
)
from ssl_audio.data.packed import unique as unique_ids
from ssl_audio.data.source import SourceInfo
from ssl_audio.storage import opened


@dataclass(frozen=True)
class Arrow(Packed):
    """The rows of a dataset on disk.

    `root` is a folder that `save_to_disk` wrote (of one or several splits), a file .parquet or .arrow, or a
    folder of such files, whose names may begin with their split, as train-00000-of-00002.parquet.

    The label is a ClassLabel, a name, a number, or a list of them; columns without a meaning are kept as
    `columns`. Rows of Arrow files are read where they lie. Of Parquet a whole row group is read for each
    clip that is not in the last few: prepare such data once (`ssl-audio prepare`) to draw from it at random.

    Attributes:
      audio: the column of sound; default: the one of type Audio.
      label: default: "label", "labels", or the only ClassLabel; "-": none.
      text: of captions; default: the first there is of text, caption, sentence, transcription, …; "-": none.
      files: folder of the sound files, where the rows have paths of another machine.

    Raises ValueError on first use when there is no such data, no sound in it, or a file is damaged;
    RuntimeError without pyarrow.
    """

    root: str
    split: str = ""  # keep this split only
    folds: tuple[int, ...] = ()  # keep these folds only
    rate: int = 16_000  # Hz
    audio: str = ""
    label: str = ""
    text: str = ""
    files: str = ""
    name: str = ""  # default: the folder's or file's own name
    channels: str = "average"  # or "first", "loudest"

    def listed(self) -> Listed:  # noqa: D102
        columns = _Columns(self._tables.tables, self.audio, self.label, self.text)
        rows = columns.rows()
        where = [f"{path}, row {i}" for path, count in self._tables.sizes for i in range(count)]
        splits = [name for (_, name), (_, count) in zip(
            self._tables.files, self._tables.sizes, strict=True) for _ in range(count)]  # fmt: skip
        labels, names, several = numbered(
            [row.get(columns.label) for row in rows], columns.names, where.__getitem__
        )
        paths = columns.paths()
        ids = [
            str(row["id"]) if row.get("id") not in (None, "") else path and pathlib.PurePath(path).name
            for row, path in zip(rows, paths, strict=True)
        ]  # fmt: skip
        places = [f"{printable(path.name)}/{i}" for path, n in self._tables.sizes for i in range(n)]
        used = (*MEANT, columns.label, columns.text)
        fields = {
            "id": unique_ids(ids, places.__getitem__),
            "label": labels,
            "fold": [fold(row.get("fold"), at) for row, at in zip(rows, where, strict=True)],
            "split": [
                name or split(row.get("split")) for row, name in zip(rows, splits, strict=True)
            ],
            "text": [
                captions(row.get(columns.text), f"{at}: {columns.text}")
                for row, at in zip(rows, where, strict=True)
            ],
            "columns": [others(row, used) for row in rows],
        }
        about = self._tables.about
        info = SourceInfo(
            self.name or pathlib.Path(self.root).expanduser().resolve().stem,
            names,
            licence=_text(about.get("license")) or "unknown",
            citation=_text(about.get("citation")) or "",
            url=_text(about.get("homepage")) or "",
            multilabel=several,
        )
        return Listed(info, fields, len(rows))

    def content(self, row: int) -> bytes | str:  # noqa: D102
        content, path = self._tables.sound(self._column, row)
        if content:
            return content
        if not path:
            raise DecodeError("no sound: neither bytes nor a path")
        asked = pathlib.Path(path)
        folders = [pathlib.Path(self.files).expanduser()] if self.files else []
        folders += [self._tables.where(row)[0].parent]
        tried = [asked] if asked.is_absolute() else []
        tried += [folder / name for folder in folders for name in (asked, asked.name)]
        for some in tried:
            if some.is_file():
                return str(some)
        raise DecodeError(
            f"no bytes, and no file {printable(path)}: `to_parquet` stores paths of the machine that wrote "
            "it. Set files=FOLDER of the sounds, or write it with save_to_disk, which holds them"
        )

    def place(self, row: int) -> str:  # noqa: D102
        path, number = self._tables.where(row)
        return f"{printable(path)}, row {number}"

    @functools.cached_property
    def _tables(self) -> Tables:
        return Tables(files(pathlib.Path(self.root).expanduser()))

    @functools.cached_property
    def _column(self) -> str:
        return _Columns(self._tables.tables, self.audio, self.label, self.text).audio

    def __getstate__(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in ("_found", "_clips", "_column")}
        return {**vars(self), **found}  # found once, not in every process


# From datasets 4 on, that writes arrays as they are and cut to [-1, 1]: int16 would become a square wave.
_CAST = "With `datasets`: cast_column(NAME, Audio()); divide arrays of int16 by 32768 before."


class _Columns:
    """Which columns of some tables mean what; `rows` gives all but the sound."""

    def __init__(self, tables: Sequence[Any], audio: str, label: str, text: str):
        import pyarrow

        self._tables, first = tables, tables[0]
        schema, features = first.schema, first.features
        kinds = {field.name: field.type for field in schema}
        there = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())

        def is_sound(kind: Any) -> bool:
            inside = {kind.field(i).name for i in range(kind.num_fields)}
            return pyarrow.types.is_struct(kind) and "bytes" in inside

        def wanted(name: str, field: str) -> str:
            if name not in kinds:
                raise opened.error(f"{first.path}: {field}", repr(name), f"a column of {there}")
            return name

        typed = [name for name, feature in features.items() if kind_of(feature) == "Audio"]
        sounds = [name for name in typed or kinds if name in kinds and is_sound(kinds[name])]
        if audio:
            sounds = [name for name in (wanted(audio, "audio"),) if is_sound(kinds[name])]
        if len(sounds) != 1:
            got = f"columns {', '.join(sounds)}" if sounds else f"no such column in {there}"
            raise opened.error(
                f"{first.path}: audio", got, "one column of sound: a struct of bytes and path",
                "Say which: audio=NAME." if sounds else _CAST,
            )  # fmt: skip
        self.audio = sounds[0]
        classes = [name for name in features if class_names(features[name])]
        usual = [name for name in ("label", "labels") if name in kinds]
        self.label = usual[0] if usual else classes[0] if len(classes) == 1 else ""
        if label:
            self.label = "" if label == "-" else wanted(label, "label")
        self.text = next((name for name in TEXTS if name in kinds and name != self.label), "")
        if text:
            self.text = "" if text == "-" else wanted(text, "text")
        self.names = class_names(features.get(self.label)) if self.label else ()
        self._classes = {
            name: class_names(features[name]) for name in classes if name != self.label
        }  # of other columns
        for table in tables[1:]:
            if table.schema.names != schema.names:
                raise opened.error(
                    table.path, f"columns {', '.join(table.schema.names)}", f"those of {first.path}"
                )
            if not is_sound(kind := table.schema.field(self.audio).type):
                raise opened.error(
                    f"{table.path}: {self.audio}",
                    str(kind),
                    f"what {first.path} has: a struct",
                )
            for name in {*table.features, *features} & {*kinds}:
                some, usual = (class_names(of.get(name)) for of in (table.features, features))
                if some != usual:
                    raise opened.error(
                        f"{table.path}: {name}",
                        f"classes {', '.join(some[:5]) or 'without names'}",
                        f"those of {first.path} in their order ({', '.join(usual[:5]) or 'no names'})",
                        "A number would mean two classes: write both with one ClassLabel, or read one.",
                    )

    def rows(self) -> list[dict[str, Any]]:
        """Return what each row says, but its sound; classes of other columns by name."""
        found = []
        for table in self._tables:
            kept = [name for name in table.schema.names if name != self.audio]
            kept = [name for name in kept if not _binary(table.schema.field(name).type)]
            found += table.rows(kept)
        for name, names in self._classes.items():
            for row in found:
                value = row.get(name)
                if isinstance(value, int) and 0 <= value < len(names):
                    row[name] = names[value]
        return found

    def paths(self) -> list[str | None]:
        """Return the path that each row has for its sound."""
        return [path for table in self._tables for path in table.paths(self.audio)]


def _text(value: Any) -> str | None:
    if not value:
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _binary(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
