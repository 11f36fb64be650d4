"""Synthetic sounds, and an index of given vectors, for the tests of the page."""

import numpy as np

from ssl_audio.inference import index

RATE = 16_000


def sound(kind, i):
    """Return a second of sound: of low or high tones, or of noise."""
    t, rng = np.arange(RATE) / RATE, np.random.default_rng(i)
    if kind == "noise":
        return 0.1 * rng.normal(size=RATE)
    pitch = {"low": 200, "high": 2000}[kind] * (1 + 0.1 * i)
    return 0.4 * np.sin(2 * np.pi * pitch * t) + 0.01 * rng.normal(size=RATE)


def write_index(folder, rows, vectors, **about):
    """Write an index of rows (path, start, end), those of a file one after the other."""
    paths = list(dict.fromkeys(str(path) for path, _, _ in rows))
    file = np.array([paths.index(str(path)) for path, _, _ in rows], np.int32)
    starts, ends = (np.array([float(row[k]) for row in rows]) for k in (1, 2))
    said = {"checkpoint": str(folder / "gone"), "digest": "", "words": False, "settings": {}}
    said |= {"token": "0", **about}
    found = index.Rows([f"{path}|0|0" for path in paths], file, starts, ends)
    folder.mkdir(parents=True, exist_ok=True)
    return index.write(folder, said, found, vectors.shape[1], [vectors])


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
