"""The files of a dataset of Hugging Face `datasets`: which there are, their columns, and a cell of sound.

Called by `arrow.py`. Streams and files of Arrow are mapped to memory, row groups of Parquet read.
"""

import collections
import logging
import pathlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio.data import open_files
from ssl_audio.data.decode import DecodeError
from ssl_audio.data.source import SPLITS
from ssl_audio.storage import opened

STATE, DICT, INFO = "state.json", "dataset_dict.json", "dataset_info.json"
WANTED = "a file that `datasets` writes"
GROUPS = 4  # row groups of Parquet that are held
LARGE = 2**25  # bytes of a row group that are worth a word when clips are drawn at random

log = logging.getLogger(__name__)


class Tables:
    """The files of a dataset, opened when they are read; another process opens them for itself."""

    def __init__(self, files: Sequence[tuple[pathlib.Path, str | None]]):
        self.files = files
        self._open()
        self.counts = [table.count for table in self.tables]
        self._ends = np.cumsum(self.counts)

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._groups: collections.OrderedDict[Any, Any] = collections.OrderedDict()
        self._made: list[Any] = [None] * len(self.files)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("files", "counts", "_ends")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    @property
    def tables(self) -> list[Any]:
        """All files, open."""
        return [self._table(i) for i in range(len(self.files))]

    @property
    def sizes(self) -> list[tuple[pathlib.Path, int]]:
        """The path of each file, and how many rows it has."""
        return [
            (path, count) for (path, _), count in zip(self.files, self.counts, strict=True)
        ]  # fmt: skip

    @property
    def about(self) -> Mapping[str, Any]:
        """What the dataset says of itself."""
        path = self.files[0][0].parent / INFO
        return opened.json_file(path, WANTED) if path.is_file() else {}

    def where(self, row: int) -> tuple[pathlib.Path, int]:
        """Return the file of a row, and its number there."""
        file = int(np.searchsorted(self._ends, row, "right"))
        return self.files[file][0], row - (int(self._ends[file - 1]) if file else 0)

    def sound(self, column: str, row: int) -> tuple[bytes | None, str | None]:
        """Return the bytes and the path that a row has for its sound.

        Raises:
          DecodeError: they cannot be read.
        """
        file = int(np.searchsorted(self._ends, row, "right"))
        number = row - (int(self._ends[file - 1]) if file else 0)
        try:
            with self._lock:
                found = self._table(file).cell(column, number, self._groups)
        except (ValueError, OSError) as error:
            open_files.check(error, self.files[file][0])
            raise DecodeError(f"unreadable: {opened.short(error)}") from error
        found = found or {}
        return found.get("bytes"), found.get("path")

    def _table(self, file: int) -> Any:
        if self._made[file] is None:
            path = self.files[file][0]
            kind = _Parquet if path.suffix.lower() == ".parquet" else _Stream
            with opened.reading(path, WANTED, OSError):
                self._made[file] = kind(path)
        return self._made[file]


class _Stream:
    """A file of Arrow, mapped to memory: `datasets` writes streams, others may write files."""

    def __init__(self, path: pathlib.Path):
        import pyarrow

        self.path = path
        mapped = pyarrow.memory_map(str(path))
        try:
            self._table = pyarrow.ipc.open_stream(mapped).read_all()
        except pyarrow.ArrowInvalid:
            mapped.seek(0)
            if mapped.read(6) != b"ARROW1":
                raise
            mapped.seek(0)
            self._table = pyarrow.ipc.open_file(mapped).read_all()
        self.schema, self.count = self._table.schema, self._table.num_rows
        self.features = _features(self.schema, path)

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return some columns of all rows."""
        return self._table.select(list(names)).to_pylist() if names else [{}] * self.count

    def paths(self, column: str) -> list[str | None]:
        """Return the paths in a column of sound."""
        import pyarrow.compute

        field: Any = getattr(pyarrow.compute, "struct_field")  # noqa: B009 - not in its stubs
        if self._table.schema.field(column).type.get_field_index("path") < 0:
            return [None] * self.count
        return field(self._table[column], "path").to_pylist()

    def cell(self, column: str, row: int, groups: Any) -> Any:
        """Return the bytes and the path of a row."""
        del groups
        return self._table[column][row].as_py()


class _Parquet:
    """A file of Parquet: row groups are read, and the last few held."""

    def __init__(self, path: pathlib.Path):
        import pyarrow.parquet

        self.path, self._file = path, pyarrow.parquet.ParquetFile(path)
        self.schema, self.count = self._file.schema_arrow, self._file.metadata.num_rows
        about = self._file.metadata
        counts = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
        self._ends = np.cumsum(counts)
        self.features = _features(self.schema, path)
        sizes = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
        if max(sizes, default=0) > LARGE:
            log.warning(
                "%s: row groups of up to %d MiB, each read whole for a clip drawn at random: prepare it once "
                "(ssl-audio prepare --source arrow --root …) before training",
                path, max(sizes) // 2**20,
            )  # fmt: skip

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return some columns of all rows."""
        return self._file.read(columns=list(names)).to_pylist() if names else [{}] * self.count

    def paths(self, column: str) -> list[str | None]:
        """Return the paths in a column of sound."""
        if self.schema.field(column).type.get_field_index("path") < 0:
            return [None] * self.count
        found = self._file.read(columns=[f"{column}.path"])[column].to_pylist()
        return [row and row["path"] for row in found]

    def cell(self, column: str, row: int, groups: Any) -> Any:
        """Return the bytes and the path of a row; `groups`: those that are held."""
        group = int(np.searchsorted(self._ends, row, "right"))
        key = str(self.path), group
        if key not in groups:
            groups[key] = self._file.read_row_group(group, columns=[column])[column]
            while len(groups) > GROUPS:
                groups.popitem(last=False)
        groups.move_to_end(key)
        return groups[key][row - (int(self._ends[group - 1]) if group else 0)].as_py()


def files(root: pathlib.Path) -> list[tuple[pathlib.Path, str | None]]:
    """Return the files of a dataset, and the split that each is of."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise RuntimeError(
            f"{root}: datasets are read with pyarrow: pip install 'ssl_audio[parquet]'."
        ) from None
    if root.is_file():
        return [(root, _split(root))]
    if (root / DICT).is_file():
        splits = opened.member(opened.json_file(root / DICT, WANTED), "splits", list, root / DICT)
        names = [opened.inside(root, split, root / DICT) for split in splits]
        return [
            (path, SPLITS.get(name, name)) for name in names for path in _saved(root / name)
        ]  # fmt: skip
    if (root / STATE).is_file():
        state = opened.json_file(root / STATE, WANTED)
        split = state.get("_split")
        known = SPLITS.get(split, split) if isinstance(split, str) else None
        return [(path, known) for path in _saved(root)]
    some = sorted(root.rglob("*.parquet")) if root.is_dir() else []
    some = some or (sorted(root.rglob("*.arrow")) if root.is_dir() else [])
    if not some:
        raise ValueError(
            f"Arrow.root: got {root}, wanted a folder that save_to_disk wrote, a file .parquet or .arrow, or "
            "a folder of them"
        )
    return [(path, _split(path)) for path in some]


def _saved(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    path = folder / STATE
    if not path.is_file():
        raise ValueError(f"{path}: no such file; save_to_disk writes it: copy the folder again.")
    state = opened.json_file(path, WANTED)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise opened.error(
            path, "rows chosen by a file of indices (an old version of datasets)", "rows as they are",
            "Load it with `datasets` and save_to_disk it again.",
        )  # fmt: skip
    for i, file in enumerate(opened.member(state, "_data_files", list, path)):
        where = f"{path}: _data_files[{i}]"
        name = opened.member(file, "filename", str, where) if isinstance(file, dict) else file
        found = folder / opened.inside(folder, name, where)
        if not found.is_file():
            raise ValueError(f"{found}: no such file, which {STATE} names; copy the folder again.")
        yield found


def _features(schema: Any, path: pathlib.Path) -> dict[str, Any]:
    """Return the types of columns as `datasets` names them; none where the file is of others."""
    about = (schema.metadata or {}).get(b"huggingface")
    if about:
        found = opened.parsed(about, f"{path}: its metadata", "what `datasets` writes")
        features = (found.get("info") or {}).get("features")
    else:
        info = path.parent / INFO
        features = opened.json_file(info, WANTED).get("features") if info.is_file() else None
    return features if isinstance(features, dict) else {}


def kind_of(feature: Any) -> str:
    """Return the name of a column's type, "" where it has none."""
    return feature.get("_type", "") if isinstance(feature, dict) else ""


def class_names(feature: Any) -> tuple[str, ...]:
    """Return the names of a ClassLabel, or of a list of them."""
    if isinstance(feature, list) and len(feature) == 1:  # how older versions write lists
        return class_names(feature[0])
    if isinstance(feature, dict) and kind_of(feature) in ("Sequence", "List", "LargeList"):
        return class_names(feature.get("feature"))
    if not isinstance(feature, dict) or kind_of(feature) != "ClassLabel":
        return ()
    names = feature.get("names") or []
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _split(path: pathlib.Path) -> str | None:
    """Return the split that a file's name begins with; None: none."""
    return SPLITS.get(re.split(r"[-_.]", path.name.lower())[0])
