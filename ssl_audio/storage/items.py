"""The items of a checkpoint as Orbax reads them, and its errors as ours; called by `checkpoint.py`."""

import contextlib
import errno
import gc
import logging
import math
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssl_audio.distributed.sharding import path_name
from ssl_audio.storage import sealed

log = logging.getLogger(__name__)

FULL = ("No space left", "RESOURCE_EXHAUSTED", "Disk quota exceeded")  # in messages of a full disk


@contextlib.contextmanager
def library(folder: pathlib.Path) -> Iterator[None]:
    """Turn any error in the body into Damaged, without the hundreds of lines that the library prints.

    Unless the checkpoint has a seal, which was checked before: then its files are as they were written.
    """
    if sealed.is_sealed(folder):
        yield
        return
    hush()
    reason = ""
    try:
        yield
    except Exception as error:
        reason = f"{folder}: damaged: {_first_line(error)}"
    if reason:
        gc.collect()  # what is left of a failed reading complains when it goes
        raise sealed.Damaged(reason)


@contextlib.contextmanager
def writing(workdir: pathlib.Path, size: int) -> Iterator[None]:
    """Turn the library's errors in writing about `size` bytes into one line with the cause."""
    hush()
    gone = FileNotFoundError(
        errno.ENOENT, "the workdir was removed while the run was under way", str(workdir)
    )
    if not workdir.is_dir():  # the library would make it again
        raise gone
    try:
        yield
    except Exception as error:
        said, found = _first_line(error), error
    else:
        return
    gc.collect()
    if not workdir.is_dir():
        raise gone from found
    free = shutil.disk_usage(workdir).free
    if free < size / 2 or any(word in str(found) for word in FULL):
        raise OSError(
            errno.ENOSPC,
            f"no space left for a checkpoint of about {size / 2**20:.0f} MiB: {free / 2**20:.0f} MiB are "
            "free. Make room, and run the same command again; it goes on from the last whole checkpoint",
            str(workdir),
        ) from found
    raise RuntimeError(f"{workdir}: a checkpoint could not be written: {said}") from found


def hush() -> None:
    """Leave out what Orbax and TensorStore print about errors that they also raise, in this process."""
    for name in ("absl", "asyncio"):
        logger = logging.getLogger(name)
        if _is_other not in logger.filters:
            logger.addFilter(_is_other)
    for name in ("excepthook", "unraisablehook"):
        hook = getattr(sys, name)
        if not getattr(hook, "hushed", False):
            setattr(sys, name, _hushed(hook))


def _hushed(hook: Any) -> Any:
    def only_others(first: Any, *rest: Any) -> None:  # (args,), or (type, error, trace)
        error, what = (rest[0], "") if rest else (first.exc_value, str(first.object))
        if str(error) != "Event loop is closed" and "_read_array_index" not in what:
            hook(first, *rest)

    only_others.hushed = True
    return only_others


def _is_other(record: logging.LogRecord) -> bool:
    """Tell whether a message is none of Orbax's about an error, which come with their traces."""
    text = str(record.msg)
    return record.levelno < logging.ERROR or not (text.startswith("[process=") or "/orbax/" in text)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]


def shapes(folder: pathlib.Path) -> Any:
    """Return the tree of an item, with the shapes and types of its arrays."""
    return jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), _metadata(folder))


def sizes(folder: pathlib.Path) -> dict[str, int]:
    """Return path → number of values of all arrays of an item."""
    named = jax.tree_util.tree_leaves_with_path(shapes(folder))
    return {path_name(path): math.prod(leaf.shape) for path, leaf in named}


def load(folder: pathlib.Path) -> Any:
    """Return the tree of an item as numpy arrays.

    Raises:
      Damaged: it cannot be read.
    """
    import orbax.checkpoint as ocp

    found: Any = None
    numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    with library(folder.parent), ocp.PyTreeCheckpointer() as checkpointer:
        args = ocp.args.PyTreeRestore(restore_args=jax.tree.map(lambda _: numpy, _metadata(folder)))
        found = checkpointer.restore(folder, args=args)
    return found


def newest(
    folder: pathlib.Path,
    found: Sequence[int],
    step: int | str | None,
    read: Callable[[pathlib.Path], Any],
) -> Any:
    """Return what `read` gives of a step's checkpoint, or of the newest that is whole.

    Args:
      folder: of the checkpoints.
      found: the steps there, in order.
      step: a number: that one and no other.
      read: reads a checkpoint; raises Damaged where it is.

    Raises:
      Damaged: that of the step is.
      ValueError: all are.
    """
    if isinstance(step, int):
        return read(folder / str(step))
    for number in reversed(found):
        try:
            result = read(folder / str(number))
        except sealed.Damaged as error:
            log.warning("%s", error)
            continue
        if number != found[-1]:
            log.warning("%s: taking step %d, the newest that is whole.", folder.parent, number)
        return result
    raise ValueError(f"{folder}: none of the checkpoints is whole: {[*found]}.")


def check_shapes(found: Any, wanted: Any, where: str) -> None:
    """Raise ValueError, listing both sides, unless two trees have the same paths and shapes."""

    def table(tree):
        return {path_name(p): tuple(v.shape) for p, v in jax.tree_util.tree_leaves_with_path(tree)}

    have, want = table(found), table(wanted)
    missing = sorted(want.keys() - have.keys())
    surplus = sorted(have.keys() - want.keys())
    differ = [
        f"{n} {have[n]} for {want[n]}"
        for n in sorted(have.keys() & want.keys())
        if have[n] != want[n]
    ]
    if missing or surplus or differ:
        raise ValueError(
            f"{where}: a checkpoint of another model. Missing there: {_few(missing)}. "
            f"Only there: {_few(surplus)}. Other shapes: {_few(differ)}."
        )


def _few(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def _metadata(folder: pathlib.Path) -> Any:
    # The handler itself: a Checkpointer warns that one item is not a whole checkpoint.
    import orbax.checkpoint as ocp
    from etils import epath

    return ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree


def steps(path: pathlib.Path, kind: str = "checkpoints") -> list[int]:
    """Return the steps of which a workdir holds checkpoints, in order."""
    return sorted(int(p.name) for p in (path / kind).glob("*") if p.name.isdigit())


def chosen(
    path: pathlib.Path, step: int | str | None, config: Mapping[str, Any]
) -> tuple[str, list[int]]:
    """Return the folder of checkpoints that a step of `load` means, and the steps that lie there.

    A number means one of them; None and "best" the last one.

    Args:
      path: the workdir.
      step: a number, "best", or None: as `Checkpoint.load_best` says.
      config: of the run.
    """
    by_config = step is None and config.get("checkpoint", {}).get("load_best")
    best = step == "best" or (by_config and steps(path, "best"))
    kind = "best" if best else "checkpoints"
    return kind, steps(path, kind)
