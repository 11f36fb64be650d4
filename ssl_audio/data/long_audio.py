"""Sound that is too long to hold: it has a length, and decodes the slices that are asked for.

`source.py` gives it to `pipeline.py`, whose entries cut clips out of it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


class LongAudio(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands for float32 mono [S]: a slice is an array; whatever else wants an array gets all of it.

    Args:
      samples: S.
      read: (first, stop) → samples [stop - first]; what decoding all of it would give there.
    """

    ndim = 1
    dtype = np.dtype(np.float32)

    def __init__(self, samples: int, read: Callable[[int, int], np.ndarray]):
        self._samples, self._read = samples, read

    @property
    def shape(self) -> tuple[int]:
        """(S,)."""
        return (self._samples,)

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return self[index : index + 1][0] if index != -1 else self[index:][0]
        start, stop, step = index.indices(self._samples)
        if step != 1:
            return np.asarray(self)[index]
        return self._read(start, stop) if stop > start else np.zeros(0, np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = self._read(0, self._samples)
        return found if dtype is None else found.astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **more: Any) -> Any:
        arrays = [np.asarray(x) if isinstance(x, LongAudio) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **more)
