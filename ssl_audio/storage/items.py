"""The items of a checkpoint as Orbax reads them, and its errors as ours; called by `checkpoint.py`."""

import contextlib
import gc
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from ssl_audio.distributed.sharding import path_name
from ssl_audio.storage import sealed


@contextlib.contextmanager
def library(folder: pathlib.Path) -> Iterator[None]:
    """Turn any error in the body into Damaged, without the hundreds of lines that the library prints.

    Unless the checkpoint has a seal, which was checked before: then its files are as they were written.
    """
    if sealed.is_sealed(folder):
        yield
        return
    hooks = sys.excepthook, sys.unraisablehook
    sys.excepthook = sys.unraisablehook = lambda *_: None
    reason = ""
    try:
        yield
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = f"{folder}: damaged: {said[:160]}"
    finally:
        if reason:
            gc.collect()  # what is left of a failed reading complains when it goes
        sys.excepthook, sys.unraisablehook = hooks
    if reason:
        raise sealed.Damaged(reason)


def shapes(folder: pathlib.Path) -> Any:
    """Return the tree of an item, with the shapes and types of its arrays."""
    return jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype), _metadata(folder))


def load(folder: pathlib.Path) -> Any:
    """Return the tree of an item as numpy arrays.

    Raises:
      Damaged: it cannot be read.
    """
    found: Any = None
    numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    with library(folder.parent), ocp.PyTreeCheckpointer() as checkpointer:
        args = ocp.args.PyTreeRestore(restore_args=jax.tree.map(lambda _: numpy, _metadata(folder)))
        found = checkpointer.restore(folder, args=args)
    return found


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
    return ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree
