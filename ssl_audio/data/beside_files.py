"""What lies beside a clip in files that a column of the user's table names: pictures, features, clips.

Called by the entries of `pictures.py`, `features.py` and `triplet.py`.
"""

import pathlib
from typing import Any

import numpy as np

from ssl_audio.data.containers import DecodeError
from ssl_audio.data.source import Example


def chosen(
    example: Example, column: str, root: str, pick: str, rng: np.random.Generator | None = None
) -> Any:
    """Return one of what an example or a column of its table has; paths absolute, arrays as they are.

    Args:
      example: of a source.
      column: key of the example itself, or of its `columns`.
      root: what paths are relative to; "": the folder of the source.
      pick: which of several: "random", by `rng`, or "middle".
      rng: source of randomness.

    Raises:
      DecodeError: there is no such column, or nothing in it; the clip is skipped as one whose sound cannot be
        read, and a run stops where too many are.
      ValueError: no folder that a path is relative to.
    """
    found = every(example, column, root)
    if pick == "random" and len(found) > 1:
        assert rng is not None
        return found[int(rng.integers(len(found)))]
    return found[len(found) // 2]


def every(example: Example, column: str, root: str) -> list[Any]:
    """Return all that `chosen` chooses from."""
    found = example.get(column)
    if found is None:
        found = (example.get("columns") or {}).get(column)
    if isinstance(found, str):
        found = [one.strip() for one in found.split(";") if one.strip()]
    if found is None or (isinstance(found, (list, tuple)) and not found):
        there = ", ".join(example.get("columns") or {}) or "none"
        raise DecodeError(
            f"clip {example.get('id')}: nothing in column '{column}'; its table's further columns: {there}"
        )
    several = list(found) if isinstance(found, (list, tuple)) else [found]
    return [_absolute(one, root or example.get("root", "")) for one in several]


def _absolute(one: Any, root: str) -> Any:
    if not isinstance(one, str):
        return one
    path = pathlib.Path(one).expanduser()
    if path.is_absolute():
        return str(path)
    if not root:
        raise ValueError(
            f"{one}: relative to which folder is not known for this source; set `root` of the entry"
        )
    return str(pathlib.Path(root).expanduser() / path)
