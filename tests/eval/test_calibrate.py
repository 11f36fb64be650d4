from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ssl_audio.eval.calibrate import fit, probabilities, quality


def drawn(several, clips=400, classes=5, seed=0):
    """Logits of which sigmoid or softmax are the true probabilities, and labels drawn from these."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1 if several else 0, 2, (clips, classes))
    values = probabilities(logits, several=several)
    if several:
        return logits, (rng.random(values.shape) < values).astype(float)
    return logits, np.stack([rng.multinomial(1, v) for v in values]).astype(float)


def test_a_temperature_is_found_again():
    logits, labels = drawn(several=False, clips=2000)
    found = fit(3 * logits, labels, several=False)
    assert found.scale == pytest.approx(1 / 3, rel=0.07)
    assert (found.bias, found.thresholds, found.clips) == ((), (), 2000)
    before, after = (quality(x, labels, False) for x in (3 * logits, found(3 * logits)))
    assert after["ECE"] < 0.25 * before["ECE"]
    assert quality(logits, labels, False)["log loss"] == pytest.approx(after["log loss"], rel=0.01)


def test_scale_and_biases_are_found_again():
    logits, labels = drawn(several=True, clips=4000)
    moved = (logits - np.arange(5)[None]) / 0.5
    found = fit(moved, labels, several=True)
    assert found.scale == pytest.approx(0.5, rel=0.05)
    assert np.array(found.bias) == pytest.approx(np.arange(5), abs=0.25)
    before, after = (quality(x, labels, True)["ECE"] for x in (moved, found(moved)))
    assert after < 0.02 < before


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_never_worse_than_nothing_on_the_clips_it_was_fitted_to(several, seed):
    none: Any = 0
    logits, labels = drawn(several, clips=24, seed=seed)
    logits = logits * [0.1, 1.0, 40.0][seed % 3]
    found = fit(logits, labels, several)
    now, before = (quality(x, labels, several)["log loss"] for x in (found(logits), logits))
    assert now <= before
    if several:
        values = probabilities(found(logits), several=True)
        for mine, label, threshold in zip(values.T, labels.T, found.thresholds, strict=True):
            if label.sum() >= 3:
                ours, plain = (
                    f1_score(label, mine >= t, zero_division=none) for t in (threshold, 0.5)
                )
                assert ours >= plain


def test_clips_that_are_all_right_do_not_make_it_certain():
    labels = np.eye(4)[np.arange(40) % 4]
    assert fit(6 * labels, labels, several=False).scale < 3
    found = fit(6 * labels - 3, labels, several=True)
    assert found.scale < 3 and max(map(abs, found.bias)) < 3


def test_a_class_without_clips_keeps_the_usual_threshold():
    logits, labels = drawn(several=True, clips=60)
    labels[:, 2] = 0
    labels[2:, 3] = 0
    found = fit(logits, labels, several=True)
    assert found.thresholds[2] == found.thresholds[3] == 0.5
    assert found.bias[2] < 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:19], y[:19]), "got 19 clips, wanted at least 20"),
        (lambda x, y: (x, y[:, :3]), r"got logits \(40, 5\) and labels \(40, 3\)"),
        (lambda x, y: (x * np.nan, y), "NaN or infinite"),
        (lambda x, y: (x, 0 * y), "one label for each clip"),
        (lambda x, y: (x, np.eye(5)[[0] * 40]), "wanted clips of two classes"),
    ],
)
def test_what_it_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        fit(*change(*drawn(several=False, clips=40)), several=False)
