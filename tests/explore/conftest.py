"""An index of synthetic sounds, made without a model."""

import numpy as np
import pytest
import soundfile

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


@pytest.fixture
def place(tmp_path):
    """Return the folder of an index of twelve sounds of three kinds, each kind in a folder."""
    rng, rows, vectors = np.random.default_rng(0), [], []
    for k, kind in enumerate(("low", "high", "noise")):
        (tmp_path / "sounds" / kind).mkdir(parents=True)
        for i in range(4):
            path = tmp_path / "sounds" / kind / f"{kind}{i}.wav"
            soundfile.write(path, sound(kind, i), RATE)
            rows.append((path, 0.0, 1.0))
            vectors.append(np.eye(3)[k].repeat(4) + 0.05 * rng.normal(size=12))
    write_index(tmp_path / "index", rows, unit(np.array(vectors)))
    return tmp_path / "index"
