"""Heads trained on frozen features learn what pooled features cannot tell."""

import dataclasses

import jax
import numpy as np
import pytest

from ssl_audio.eval import trained
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


@pytest.mark.parametrize("name", ["attentive", "prototypical", "convex", "weighted"])
def test_they_learn_and_repeat_themselves(name):
    model = dataclasses.replace(classifiers()[name], epochs=20, batch_size=16, choices=(1e-2,))
    x = maps()
    if name == "weighted":  # layer 1 knows, layer 0 does not
        x = np.nanmean(x.astype(np.float32), axis=(1, 2))
        x = np.stack([np.zeros_like(x), x], axis=1)
    if name == "convex":  # only layer 1 knows; the special token, a row of its own, does not
        row = np.ones((CLIPS, 1, COLUMNS, WIDTH), np.float16)
        x = np.stack([np.concatenate([y, row], axis=1) for y in (0 * x, x)], axis=3)
    found = model.predict(x, LABELS, TRAIN)
    assert found.shape == (1, CLIPS)
    assert np.mean(found[0, ~TRAIN] == LABELS[~TRAIN]) >= 0.9
    assert np.array_equal(found, model.predict(x, LABELS, TRAIN))
    # Labels of clips that are not trained on play no part.
    assert np.array_equal(found, model.predict(x, np.where(TRAIN, LABELS, 5), TRAIN))


def test_the_rate_rises_and_falls_and_only_matrices_decay():
    model = Trained("tokens", Attentive, warmup=0.25)
    shares = [model._share(done, 40) for done in range(40)]
    assert shares[:2] == [0.1, 0.2] and shares[9] == shares[10] == 1 and shares[39] < 0.01
    assert Trained("tokens", Attentive)._share(0, 40) == 1
    x, still = maps(), Trained("tokens", Attentive, choices=(1.0,), epochs=1, batch_size=16)
    shrinking = dataclasses.replace(still, decay={"linear": 0.5, "norm": 0.5})
    rows = [trained._programs(m, 3) for m in (still, shrinking)]
    centre, gain = still._read(x, np.flatnonzero(TRAIN))
    params, state = rows[0][0](jax.random.key(0), x[:1], centre, gain)
    y = np.eye(3, dtype=np.float32)[LABELS[:16] - 5]
    a, b = (
        step(params, state, np.float32(0.1), jax.random.key(0), x[:16], y, centre, gain)[0]
        for _, step, _ in rows
    )
    kernel = params["linear"]["dense"]["kernel"]
    gap = a["linear"]["dense"]["kernel"] - b["linear"]["dense"]["kernel"]
    np.testing.assert_allclose(gap, 0.05 * kernel, atol=1e-6)
    for part in (("linear", "dense", "bias"), ("norm", "scale"), ("pool", "query")):
        one, other = a, b
        for key in part:
            one, other = one[key], other[key]
        np.testing.assert_array_equal(one, other)


def test_one_program_serves_folds_of_all_sizes():
    model = Trained("tokens", Attentive, epochs=1, batch_size=16)
    for clips in (30, 36):
        model.predict(maps(), LABELS, np.arange(CLIPS) < clips)
    assert [program._cache_size() for program in trained._programs(model, 3)] == [1, 1, 1]
