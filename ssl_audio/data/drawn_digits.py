"""scikit-learn's 1797 handwritten digits as pictures: what toys of sound beside pictures show.

Called by `experiments/vatt`, `vipant`, `viml` and `terrain`; `sets/spoken_digit.py` has the sounds.
"""

import pathlib
from typing import Any

import numpy as np

from ssl_audio.arrays import Float, Int


def load() -> tuple[Float[np.ndarray, "n 8 8"], Int[np.ndarray, " n"]]:
    """Return the pictures, 0 (paper) to 1, and the digit of each."""
    from sklearn.datasets import load_digits

    found: Any = load_digits()
    return found.images / 16, found.target


def write(pictures: Float[np.ndarray, "n rows columns"], folder: pathlib.Path) -> list[str]:
    """Write pictures, 0 to 1, as 0000.png, 0001.png, … into a folder; return their paths, absolute."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(folder.absolute() / f"{i:04d}.png") for i in range(len(pictures))]
    for path, picture in zip(paths, np.asarray(pictures), strict=True):
        Image.fromarray((picture * 255).astype(np.uint8)).save(path)
    return paths
