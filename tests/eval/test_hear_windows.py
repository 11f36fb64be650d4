"""HEAR by windows: where they lie, and that a clip's embedding is its own."""

import numpy as np
import pytest
from encoders import encoder

from ssl_audio.eval.hear_windows import Windows, vectors


def test_scenes_and_timestamps():
    model, rng = encoder(), np.random.default_rng(0)
    cut = Windows(scene=300, scene_hop=150, moment=300, moment_hop=150)
    audio = rng.normal(0, 0.1, (3, 12_000)).astype(np.float32)
    found, times = cut.timestamps(model, audio)
    assert found.shape == (3, 6, cut.size(model)) and cut.size(model) == 32
    assert np.allclose(times, np.arange(6) * 150.0)
    scenes = cut.scenes(model, audio)
    assert np.allclose(scenes, found.mean(1), atol=1e-5)
    assert np.allclose(cut.scenes(model, audio[1:2]), scenes[1:2], atol=1e-5)
    short = cut.scenes(model, audio[:, :4800])
    assert np.array_equal(short, vectors(model, audio[:, :4800]))
    with pytest.raises(ValueError, match="scene_hop is 0 ms"):
        Windows(scene_hop=0)
