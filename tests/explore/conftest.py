"""An index of synthetic sounds, made without a model."""

import numpy as np
import pytest
import soundfile
from pages import RATE, sound, unit, write_index


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
