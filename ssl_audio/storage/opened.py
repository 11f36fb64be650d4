"""Files that users bring, read with one form of error: which file, what was got, what was wanted.

Whoever reads JSON, .npz or .safetensors that this very process did not write reads it here.
"""

import contextlib
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_audio.storage.remote import Remote

# What damaged files make the standard library and NumPy raise.
DAMAGE = (
    ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError,
    RecursionError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
NAMES = {dict: "an object {…}", list: "a list […]", str: "text", int: "a whole number"}


def error(where: Any, got: str, wanted: str, hint: str = "") -> ValueError:
    """Return the error about a file: "WHERE: got …, wanted …. HINT"."""
    return ValueError(f"{where}: got {got}, wanted {wanted}.{hint and ' '}{hint}")


def short(value: Any, most: int = 60) -> str:
    """Return a value, or an exception, as text for a message: on one line and not too long."""
    if isinstance(value, BaseException):
        said, most = " ".join([f"{type(value).__name__}:", *str(value).split()]), 10 * most
    else:
        said = repr(value)
    return said if len(said) <= most else f"{said[:most]}…"


@contextlib.contextmanager
def naming(where: Any) -> Iterator[None]:
    """Put the name of a file or folder before a ValueError or TypeError about what is in it."""
    try:
        yield
    except (ValueError, TypeError) as found:
        if str(where) in str(found):
            raise
        raise type(found)(f"{where}: {found}") from found


@contextlib.contextmanager
def reading(
    path: str | os.PathLike | Remote, wanted: str, *more: type[Exception]
) -> Iterator[None]:
    """Turn what a library raises about a damaged file into the one form of error.

    Args:
      path: of the file.
      wanted: what it should be.
      *more: exceptions of the library, beside those of Python and NumPy.

    Raises:
      ValueError: naming the file.
      FileNotFoundError, PermissionError, …: as they come; they name the file by themselves.
    """
    try:
        yield
    except (*DAMAGE, *more) as found:
        if isinstance(found, ValueError) and str(found).startswith(f"{path}"):
            raise
        raise error(path, f"what cannot be read ({short(found)})", wanted) from None


def text(path: str | os.PathLike | Remote, wanted: str) -> str:
    """Return a file's text, UTF-8 with or without a byte-order mark.

    Raises:
      ValueError: it is empty or not UTF-8.
    """
    content = (path if isinstance(path, Remote) else pathlib.Path(path)).read_bytes()
    if not content.strip():
        raise error(path, "an empty file" if not content else "nothing but blanks", wanted)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as found:
        got = f"bytes that are not UTF-8 text (at byte {found.start})"
        raise error(path, got, wanted) from None


def parsed(content: str | bytes, where: Any, wanted: str, kind: type = dict) -> Any:
    """Return JSON of a kind, parsed.

    Raises:
      ValueError: naming `where`, the line and the column.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise error(where, f"damaged JSON ({short(problem)})", wanted) from None
    if not isinstance(found, kind):
        raise error(where, short(found), f"{wanted}: {NAMES[kind]}")
    return found


def json_file(path: str | os.PathLike | Remote, wanted: str, kind: type = dict) -> Any:
    """Return a file of JSON.

    Args:
      path: of the file.
      wanted: what it should be, for the message.
      kind: dict or list.

    Raises:
      ValueError: it is empty, damaged, or holds another kind.
      FileNotFoundError: there is none.
    """
    return parsed(text(path, wanted), path, wanted, kind)


def texts(path: str | os.PathLike) -> list[str]:
    """Return the lines of a file of texts; ValueError as `text`."""
    return text(pathlib.Path(path).expanduser(), "texts in UTF-8, one a line").splitlines()


def json_lines(path: str | os.PathLike, wanted: str) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; errors name the line.

    A last line without an end, which a kill has cut, counts for nothing.
    """
    *lines, _ = pathlib.Path(path).read_bytes().decode("utf-8", "replace").split("\n")
    numbered = enumerate(lines, 1)
    return [parsed(line, f"{path}, line {i}", wanted) for i, line in numbered if line.strip()]


def member(found: Mapping[str, Any], key: str, kind: type | tuple, where: Any) -> Any:
    """Return `found[key]`, of a kind.

    Raises:
      ValueError: naming the file and the field.
    """
    some = kind if isinstance(kind, tuple) else (kind,)
    wanted = " or ".join(NAMES.get(k, k.__name__) for k in some)
    if key not in found:
        have = ", ".join(map(str, found)) or "nothing"
        raise error(f"{where}: {key}", f"no such field (there are {short(have)})", wanted)
    value = found[key]
    if not isinstance(value, some) or (isinstance(value, bool) and bool not in some):
        raise error(f"{where}: {key}", short(value), wanted)
    return value


def inside(folder: str | os.PathLike, name: Any, where: Any) -> str:
    """Return a file's name that an index gives, seen to stay in its folder.

    Args:
      folder: on this machine or an address.
      name: as found, with "/" between folders.
      where: it stands, for the message.

    Raises:
      ValueError: it is absolute, has "..", or leads out of the folder by a link.
    """
    wanted = "the name of a file in the same folder"
    parts = name.split("/") if isinstance(name, str) else []
    odd = not parts or any(part in ("", ".", "..") for part in parts)
    if odd or any(c in name for c in "\\:\0") or pathlib.PurePath(name).is_absolute():
        raise error(where, short(name), wanted)
    if "://" not in str(folder):
        root = pathlib.Path(folder).expanduser().resolve()
        # huggingface_hub's cache: snapshots/COMMIT/NAME is a link into blobs/.
        roots = [root] + [root.parents[1] / "blobs"] * (root.parent.name == "snapshots")
        if not any((root / name).resolve().is_relative_to(some) for some in roots):
            raise error(where, f"{name}, a link out of the folder", wanted)
    return name


def npz(
    path: str | os.PathLike, wanted: str, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file, without pickle.

    Args:
      path: of the file.
      wanted: what it should be, for the message.
      names: arrays that must be there; others are left out. None: all.

    Raises:
      ValueError: it is damaged, another kind of file, holds objects, or lacks an array.
    """
    with reading(path, wanted):
        # Opened here, since np.load leaves a damaged file open.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise error(path, f"one array {file.shape} (an .npy file)", f"{wanted}: an .npz")
            if missing := [name for name in names or () if name not in file.files]:
                have = ", ".join(file.files) or "none"
                raise error(path, f"no array {missing[0]!r}, only {have}", wanted)
            return {name: file[name] for name in (names or file.files)}


def numbers(value: Any, check: Callable[[Any], bool], where: Any, wanted: str) -> Any:
    """Return a value that passes a check; ValueError naming where it stands."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not check(value):
        raise error(where, short(value), wanted)
    return value
