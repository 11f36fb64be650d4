"""What is known of many clips beside their sound, in columns: a few dozen bytes a clip.

`clips.py` and `shards.py` keep theirs here, `manifest.py` fills it; the worker processes of a program look
at the same memory.
"""

import collections
import contextlib
import ctypes
import gc
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

import numpy as np

from ssl_audio.data.shared_arrays import SharedArrays

Example = dict[str, Any]
Label = int | tuple[int, ...]
Coded = tuple[np.ndarray, list[Any]]  # the number of each clip's value [N], and the values

# What is known of a clip beside its audio: columns of a shard's index, entries of an example.
FIELDS = ("id", "label", "fold", "split", "text", "rewrites", "negatives", "weight", "columns")
CODED = ("label", "fold", "split")  # the same few values again and again
NUMBERS = ("weight", "start", "end")
CELLS = ("path", "id", "text", "rewrites", "negatives", "columns")
PLACE = ("path", "start", "end")  # what of which file a clip is
BLOCK = 16_384  # clips that are worked on together
_SPARSE = 8  # one clip wanted of so many: they are looked up one by one
_JSON = "\0"  # begins a cell that is no text, but JSON


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} cannot be kept with a clip; wanted text, numbers, lists of them")


_encode = json.JSONEncoder(default=_plain).encode


@contextlib.contextmanager
def many_objects() -> Iterator[None]:
    """Let the body make millions of objects that hold no cycles, and give back the memory of those gone.

    To look for cycles among them takes a third of the time of reading a table.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
        with contextlib.suppress(AttributeError, OSError, TypeError):  # glibc has it
            ctypes.CDLL(None).malloc_trim(0)


class Builder:
    """Gathers blocks of clips, each as columns.

    A column that a block lacks is unknown for all of its clips.
    """

    def __init__(self):
        self._size = 0
        self._blocks: dict[str, list[tuple[int, int, Any, Any]]] = {}

    def cells(self, name: str, values: Sequence[str]) -> None:
        """Add cells of the next block; "" is none, and what is no text is given by `cell`."""
        text = "".join(values)
        if text:
            plain = text.isascii()
            some = values if plain else [value.encode("utf-8", "surrogatepass") for value in values]
            blob = text.encode() if plain else b"".join(some)  # pyright: ignore
            lengths = np.fromiter(map(len, some), np.uint32, len(values))
            self._add(name, len(values), blob, lengths)

    def numbers(self, name: str, values: np.ndarray) -> None:
        """Add numbers of the next block; NaN is none."""
        if not np.isnan(values).all():
            self._add(name, len(values), np.asarray(values, np.float64), None)

    def codes(self, name: str, codes: np.ndarray) -> None:
        """Add, for the next block, the numbers of values that `finish` is told."""
        self._add(name, len(codes), np.asarray(codes, np.uint32), None)

    def end(self, size: int) -> None:
        """Say how many clips the block had."""
        self._size += size

    def _add(self, name: str, size: int, first: Any, second: Any) -> None:
        self._blocks.setdefault(name, []).append((self._size, size, first, second))

    def rename(self, old: str, new: str) -> None:
        """Give the codes of one column to another instead of its own."""
        self._blocks[new] = self._blocks.pop(old, [])

    def finish(self, values: Mapping[str, Sequence[str]]) -> "Columns":
        """Return the columns.

        Args:
          values: the cells of each coded column, by the numbers of `codes`. The number of clips that no
            block told of is 0.
        """
        arrays: dict[str, np.ndarray] = {}
        for name in list(self._blocks):
            blocks = self._blocks.pop(name)  # given back as soon as it can be
            if any(values.get(name, ())):
                arrays |= _coded(name, self._spread(blocks, np.uint32, 2), values[name])
            elif name in NUMBERS:
                arrays[name] = self._spread(blocks, np.float64, 2, np.nan)
            elif name in CELLS:
                lengths = self._spread(blocks, np.uint32, 3)
                arrays |= _texts(name, b"".join(block[2] for block in blocks), lengths)
        return Columns(self._size, SharedArrays(arrays))

    def _spread(self, blocks: list, kind: Any, which: int, fill: float = 0) -> np.ndarray:
        found = np.full(self._size, fill, kind)
        for block in blocks:
            found[block[0] : block[0] + block[1]] = block[which]
        return found


def as_json(text: str) -> str:
    """Return JSON as a cell."""
    return _JSON + text


def cell(value: Any) -> str:
    """Return a value as a cell: text as it is, None as "", the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, str) and value and value[0] != _JSON:
        return value
    if type(value) in (tuple, list) and set(map(type, value)) == {int}:
        return f"{_JSON}{list(value)}"  # as JSON has it too, in a tenth of the time
    return _JSON + _encode(value)


def distinct(values: Iterable[Any]) -> tuple[list[Any], np.ndarray]:
    """Return the different values in the order of their appearance, and which each is."""
    numbers: collections.defaultdict[Any, int] = collections.defaultdict()
    numbers.default_factory = numbers.__len__
    found = np.fromiter(map(numbers.__getitem__, values), np.uint32)
    return list(numbers), found


def in_columns(fields: Mapping[str, Sequence[Any]], size: int) -> "Columns":
    """Return the columns of clips whose fields are given as lists; None: unknown."""
    made, values = Builder(), {}
    for name, given in fields.items():
        kinds = set(map(type, given)) - {type(None)}
        if name in CODED:
            plain = kinds in ({int}, {str})  # of several kinds, 1 and True would be one value
            different, codes = distinct(given if plain else map(cell, given))
            values[name] = list(map(cell, different)) if plain else different
            made.codes(name, codes)
        elif name in NUMBERS:
            numbers = [math.nan if value is None else value for value in given]
            made.numbers(name, np.array(numbers, np.float64))
        elif name in CELLS:
            texts = name in ("path", "id")  # as they are, whatever they begin with
            made.cells(name, given if texts else list(map(cell, given)))
    made.end(size)
    return made.finish(values)


class Columns:
    """What is known of clips by number, without their files; read only, shared by processes.

    Attributes:
      size: clips.
      arrays: "NAME" numbers; or "NAME" bytes and "NAME.ends" where each cell ends; or "NAME.codes" and the
        cells of the values that they number.
      rows: which of them, None: all.
    """

    def __init__(self, size: int, arrays: SharedArrays, rows: SharedArrays | None = None):
        self.arrays, self._rows = arrays, rows
        self._known = frozenset(name.partition(".")[0] for name in arrays)
        self.size = size if rows is None else len(rows["rows"])

    def kept(self, rows: np.ndarray) -> "Columns":
        """Return some of the clips."""
        rows = rows if self._rows is None else self._rows["rows"][rows]
        return Columns(self.size, self.arrays, SharedArrays({"rows": rows.astype(np.uint32)}))

    def row(self, i: int) -> int:
        """Return where clip `i`, counted from the end if negative, stood before any were left out.

        Raises:
          IndexError: there is no such clip.
        """
        if not -self.size <= i < self.size:
            raise IndexError(f"clip {i} of {self.size}")
        i %= self.size
        return i if self._rows is None else int(self._rows["rows"][i])

    def get(self, name: str, i: int) -> Any:
        """Return a field of a clip; None: unknown. Lists come as tuples."""
        if name not in self._known:
            return None
        row = self.row(i)
        if name in NUMBERS:
            value = float(self.arrays[name][row])
            return None if value != value else value
        if name in CODED:
            row = int(self.arrays[f"{name}.codes"][row])
        text = self._cell(name, row)
        return text or None if name in ("path", "id") else _value(text)

    def meta(self, i: int) -> Example:
        """Return the known fields of a clip."""
        known = {name: self.get(name, i) for name in FIELDS if name in self._known}
        return {name: value for name, value in known.items() if value is not None}

    def coded(self, name: str) -> Coded:
        """Return of a field in CODED the number of each clip's value [N], and the values; None: unknown."""
        if name not in self._known:
            return np.zeros(self.size, np.uint32), [None]
        codes = self.arrays[f"{name}.codes"]
        count = len(self.arrays[f"{name}.ends"])
        cells = self._cells(name, np.arange(count))
        parts = ("null" if not c else c[1:] if c[0] == _JSON else quoted(c) for c in cells)
        found = json.loads(f"[{','.join(parts)}]")  # at once: a third of the time
        values = [tuple(value) if isinstance(value, list) else value for value in found]
        return codes if self._rows is None else codes[self._rows["rows"]], values

    def texts(self, name: str) -> Sequence[str]:
        """Return the cells of a column of CELLS for all clips; "": none."""
        return self._cells(name, np.arange(self.size) if self._rows is None else self._rows["rows"])

    def number(self, name: str) -> np.ndarray:
        """Return a column of NUMBERS for all clips; NaN: none."""
        if name not in self.arrays:
            return np.full(self.size, np.nan)
        return self.arrays[name] if self._rows is None else self.arrays[name][self._rows["rows"]]

    def digest(self, rate: int, ids: Callable[["Columns", np.ndarray], Sequence[str]]) -> str:
        """Return what `digest` returns for the metadata of all clips, without making any.

        Args:
          rate: Hz, of all.
          ids: returns those of some rows.
        """
        found = hashlib.sha256(b"[")
        tables = {name: self._json_of_values(name) for name in CODED}
        for first in range(0, self.size, BLOCK):
            rows = np.arange(first, min(self.size, first + BLOCK))
            rows = rows if self._rows is None else self._rows["rows"][rows]
            parts: list[Iterable[str]] = [
                itertools.repeat(f'{{"rate": {rate}, "id": '), map(quoted, ids(self, rows))
            ]  # fmt: skip
            parts += [part for name in FIELDS[1:] if (part := self._json(name, rows, tables))]
            said = ", ".join(f"{''.join(some)}}}" for some in zip(*parts, strict=False))
            found.update(f"{', ' if first else ''}{said}".encode())
        found.update(b"]")
        return found.hexdigest()

    def cells(self, name: str, rows: np.ndarray) -> Sequence[str]:
        """Return the cells of a column of CELLS in some rows of the arrays, which rise; "": none."""
        return self._cells(name, rows)

    def _json(self, name: str, rows: np.ndarray, tables: Mapping[str, Any]) -> Iterable[str] | None:
        """Return, for some rows, `, "NAME": VALUE` or nothing; None: nothing for all."""
        if name in CODED:
            if tables[name] is None:
                return None
            return map(tables[name].__getitem__, self.arrays[f"{name}.codes"][rows].tolist())
        if name not in self.arrays:
            return None
        if name in NUMBERS:
            numbers = self.arrays[name][rows].tolist()
            return ["" if n != n else f', "{name}": {float.__repr__(n)}' for n in numbers]
        return [_json_of(name, text) for text in self._cells(name, rows)]

    def _json_of_values(self, name: str) -> list[str] | None:
        if name not in self._known:
            return None
        count = len(self.arrays[f"{name}.ends"])
        return [_json_of(name, text) for text in self._cells(name, np.arange(count))]

    def _cell(self, name: str, row: int) -> str:
        ends = self.arrays[f"{name}.ends"]
        first = int(ends[row - 1]) if row else 0
        return self.arrays[name][first : int(ends[row])].tobytes().decode("utf-8", "surrogatepass")

    def _cells(self, name: str, rows: np.ndarray) -> Sequence[str]:
        """Return the cells in rows that rise."""
        if name not in self._known or not len(rows):
            return [""] * len(rows)
        low, high = int(rows[0]), int(rows[-1]) + 1
        if high - low > _SPARSE * len(rows):
            return [self._cell(name, row) for row in rows.tolist()]
        ends = self.arrays[f"{name}.ends"]
        first = int(ends[low - 1]) if low else 0
        stops = (ends[low:high] - ends.dtype.type(first)).tolist()
        blob = self.arrays[name][first : first + stops[-1]].tobytes()
        spans = zip([0, *stops[:-1]], stops, strict=True)
        if blob.isascii():
            text = blob.decode()
            found = [text[a:b] for a, b in spans]
        else:
            found = [blob[a:b].decode("utf-8", "surrogatepass") for a, b in spans]
        return found if len(found) == len(rows) else [found[k] for k in (rows - low).tolist()]


def digest(metas: Iterable[Example]) -> str:
    """Return what differs between collections, wherever they lie: a digest of the metadata of all clips."""
    found = hashlib.sha256(b"[")
    for number, meta in enumerate(metas):
        found.update(f"{', ' if number else ''}{json.dumps(meta)}".encode())
    found.update(b"]")
    return found.hexdigest()


def span(start: float, end: float) -> str:
    """Return what tells excerpts of a file apart in their ids; NaN: no such bound."""
    return "" if start != start and end != end else f"#{0.0 if start != start else start:g}"


def _coded(name: str, codes: np.ndarray, values: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the arrays of a coded column; values that are the same get one number."""
    cells, renumbered = distinct(values)
    codes = renumbered.astype(np.min_scalar_type(max(0, len(cells) - 1)))[codes]
    encoded = [text.encode("utf-8", "surrogatepass") for text in cells]
    lengths = np.asarray(list(map(len, encoded)), np.uint32)
    return {f"{name}.codes": codes, **_texts(name, b"".join(encoded), lengths)}


def _texts(name: str, blob: bytes, lengths: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum(lengths, dtype=np.uint64)
    kind = np.uint32 if len(blob) < 2**32 else np.uint64
    return {name: np.frombuffer(blob, np.uint8), f"{name}.ends": ends.astype(kind)}


def _value(text: str) -> Any:
    if not text:
        return None
    if text[0] != _JSON:
        return text
    found = json.loads(text[1:])
    return tuple(found) if isinstance(found, list) else found


def _json_of(name: str, text: str) -> str:
    if not text:
        return ""
    return f', "{name}": {text[1:] if text[0] == _JSON else quoted(text)}'
