"""AudioGen's mixtures: ratio, overlap and loudness over many draws, captions one after the other."""

import numpy as np
import pytest

from ssl_audio.data.compose import Mixed


def rms(x):
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def test_ratios_overlaps_and_loudness_over_1000_draws():
    rng = np.random.default_rng(0)
    n = np.arange(800)
    # Two tones that are told apart by projection; the second is 5 dB fainter to begin with.
    first, second = np.sin(2 * np.pi * n / 8), 0.56 * np.sin(2 * np.pi * n / 20)
    mixed, ratios, starts, levels = Mixed(share=1.0), [], [], []
    for _ in range(1000):
        found = mixed.mixture(first.astype(np.float32), second.astype(np.float32), rng)
        assert len(found) == 800 and np.abs(found).max() <= 1
        scale = 2 * np.mean(found[-400:] * first[-400:])  # the end always has both
        rest = found - scale * first
        start = int(np.nonzero(np.abs(rest) > 1e-3 * scale)[0][0])
        ratios.append(20 * np.log10(scale / np.sqrt(2) / rms(rest[start + 1 :])))
        starts.append(start)
        levels.append(20 * np.log10(rms(found)))
    # The second tone begins with a sine's 0, so its first sample is not heard.
    assert 0 <= min(starts) < 20 and 380 < max(starts) <= 402
    assert np.mean(starts) == pytest.approx(200, abs=15)
    whole = np.round(ratios)
    np.testing.assert_allclose(ratios, whole, atol=0.3)  # of pieces that are no whole periods
    assert set(whole) == set(range(-5, 5))
    assert min(levels) == pytest.approx(-35, abs=0.3) and max(levels) == pytest.approx(-15, abs=0.3)


def test_captions_and_single_clips():
    rng = np.random.default_rng(1)
    sound = rng.normal(size=100).astype(np.float32)
    dog = {"id": "a", "audio": sound, "text": ("a dog", "a dog barks")}
    rain = {"id": "b", "audio": sound[::-1], "names": ("rain",)}
    both = {Mixed(share=1.0)(dog, lambda: rain, rng)[""]["text"] for _ in range(20)}
    assert both == {"a dog rain", "a dog barks rain"}
    assert Mixed(share=0.0)(dog, lambda: rain, rng)[""] is dog
    share = np.mean([Mixed(share=0.3)(dog, lambda: rain, rng)[""] is dog for _ in range(500)])
    assert share == pytest.approx(0.7, abs=0.06)
    silent = {"id": "c", "audio": np.zeros(100, np.float32), "text": "nothing"}
    assert np.isfinite(Mixed(share=1.0)(silent, lambda: dog, rng)[""]["audio"]).all()
    for odd in (dict(share=2.0), dict(snr=(5, 5)), dict(level=(-10.0, -20.0))):
        with pytest.raises(ValueError, match=next(iter(odd))):
            Mixed(**odd)
