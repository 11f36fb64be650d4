"""Which files a checkpoint consists of, noted before it takes its name, so that damage is known at once.

`checkpoint.py` seals and checks. Without this, a library says what is wrong in hundreds of lines, or nothing.
"""

import json
import pathlib
import zlib
from collections.abc import Sequence

from ssl_audio.storage import atomic

SEAL = "files.json"
# Written after the seal; and what says how to read the rest, which is read before anything is checked.
OTHERS = ("commit_success.txt", "_CHECKPOINT_METADATA", "meta/metadata")
BLOCK = 2**24  # bytes


class Damaged(ValueError):
    """A checkpoint is not as it was written."""


def seal(folder: pathlib.Path) -> None:
    """Note the size and CRC-32 of every file of a folder that is complete."""
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, _crc(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.as_posix().endswith(OTHERS)
    }
    atomic.write(folder / SEAL, json.dumps(files))


def seal_new(checkpoints: pathlib.Path) -> None:
    """Seal the checkpoint that is being written into a folder of them; one is at a time."""
    for folder in checkpoints.glob("*.orbax-checkpoint-tmp*"):
        seal(folder)


def damage(folder: pathlib.Path) -> str:
    """Return what is wrong with a checkpoint as far as its files tell, or nothing."""
    try:
        check(folder)
    except Damaged as error:
        return str(error)
    return ""


def is_sealed(folder: pathlib.Path) -> bool:
    """Tell whether the files of a checkpoint were noted; earlier versions did not."""
    return (folder / SEAL).exists()


def check(folder: pathlib.Path, items: Sequence[str] = ()) -> None:
    """Compare the files of a checkpoint with its seal, if it has one.

    `items`: only those below these sub-folders; default: all.

    Raises:
      Damaged: files are missing or differ, with the first of them.
    """
    if not any(path.is_dir() for path in folder.glob("*")):
        raise Damaged(f"{folder}: damaged: it is empty.")
    if not is_sealed(folder):
        return
    try:
        files = json.loads((folder / SEAL).read_bytes())
        wanted = {name: (int(size), int(crc)) for name, (size, crc) in files.items()}
    except (ValueError, TypeError, AttributeError):
        raise Damaged(f"{folder}: damaged: {SEAL} cannot be read.") from None
    for name, (size, crc) in wanted.items():
        if items and name.partition("/")[0] not in items:
            continue
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{folder}: damaged: {name} is missing.")
        if (found := path.stat().st_size) != size:
            raise Damaged(f"{folder}: damaged: {name} has {found} bytes, {size} were written.")
        if _crc(path) != crc:
            raise Damaged(f"{folder}: damaged: {name} holds other bytes than were written.")


def _crc(path: pathlib.Path) -> int:
    found = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            found = zlib.crc32(block, found)
    return found
