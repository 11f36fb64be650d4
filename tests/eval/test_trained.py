"""Heads trained on frozen features learn what pooled features cannot tell."""

import dataclasses

import numpy as np
import pytest

from ssl_audio.eval.trained import Trained, classifiers
from ssl_audio.heads.probes import Attentive

CLIPS, ROWS, COLUMNS, WIDTH = 48, 2, 4, 8
LABELS = np.arange(CLIPS) % 3 + 5
TRAIN = np.arange(CLIPS) < 36


def maps(seed=0):
    """Return noise in which one token of each clip points along its class; clips end at times."""
    rng = np.random.default_rng(seed)
    x = 0.5 * rng.standard_normal((CLIPS, ROWS, COLUMNS, WIDTH))
    column = rng.integers(2, size=CLIPS)
    x[np.arange(CLIPS), rng.integers(ROWS, size=CLIPS), column] += 6 * np.eye(WIDTH)[LABELS - 5]
    x[::3, :, 2:] = np.nan
    return x.astype(np.float16)


@pytest.mark.parametrize("name", ["attentive", "prototypical", "weighted"])
def test_they_learn_and_repeat_themselves(name):
    model = dataclasses.replace(classifiers()[name], epochs=20, batch_size=16, choices=(1e-2,))
    x = maps()
    if name == "weighted":  # layer 1 knows, layer 0 does not
        x = np.nanmean(x.astype(np.float32), axis=(1, 2))
        x = np.stack([np.zeros_like(x), x], axis=1)
    found = model.predict(x, LABELS, TRAIN)
    assert found.shape == (1, CLIPS)
    assert np.mean(found[0, ~TRAIN] == LABELS[~TRAIN]) >= 0.9
    assert np.array_equal(found, model.predict(x, LABELS, TRAIN))
    # Labels of clips that are not trained on play no part.
    assert np.array_equal(found, model.predict(x, np.where(TRAIN, LABELS, 5), TRAIN))


def test_one_program_serves_folds_of_all_sizes():
    from ssl_audio.eval import trained

    model = Trained("tokens", Attentive, epochs=1, batch_size=16)
    for clips in (30, 36):
        model.predict(maps(), LABELS, np.arange(CLIPS) < clips)
    assert [program._cache_size() for program in trained._programs(model, 3)] == [1, 1, 1]
