import pickle

import numpy as np
import pytest

from ssl_audio.data.synthetic import SOUNDS, Synthetic


def test_a_clip_depends_on_its_number_and_the_seed_alone():
    source = Synthetic(100, seconds=0.5)
    clip = source[17]
    np.testing.assert_array_equal(Synthetic(1200, seconds=0.5)[17]["audio"], clip["audio"])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[17]["audio"], clip["audio"])
    assert (Synthetic(100, seconds=0.5, seed=1)[17]["audio"] != clip["audio"]).any()


@pytest.mark.parametrize("rate", [8000, 16_000])
@pytest.mark.parametrize("seconds", [0.05, 2.0])
def test_every_class_sounds(rate, seconds):
    source = Synthetic(len(SOUNDS), seconds, rate)
    for i in range(len(source)):
        example = source[i]
        audio = example["audio"]
        assert audio.shape == (round(seconds * rate),) and audio.dtype == np.float32
        assert np.isfinite(audio).all() and 0.2 < np.abs(audio).max() <= 1.0
        assert example["label"] == i and example["rate"] == rate


def test_classes_and_folds_are_even():
    source = Synthetic(5 * len(SOUNDS) * 2)
    metas = [source.meta(i) for i in range(len(source))]
    pairs = {(meta["label"], meta["fold"]) for meta in metas}
    assert len(SOUNDS) >= 10 and len(pairs) == 5 * len(SOUNDS)
    assert len({meta["id"] for meta in metas}) == len(source)
    held_out = Synthetic(len(source), folds=(2, 4))
    assert {held_out.meta(i)["fold"] for i in range(len(held_out))} == {2, 4}
    assert len(held_out) == len(source) * 2 // 5


def test_rising_and_falling_differ_in_course_not_in_spectrum():
    source = Synthetic(2 * len(SOUNDS) * 20, seconds=1.0)

    def slope(i):
        audio = source[i]["audio"]
        frames = np.abs(np.fft.rfft(audio[: len(audio) // 512 * 512].reshape(-1, 512))) ** 2
        centre = (frames * np.arange(257)).sum(1) / frames.sum(1)
        strong = frames.sum(1) > 0.2 * frames.sum(1).max()
        return np.polyfit(np.flatnonzero(strong), centre[strong], 1)[0]

    rising = [slope(i) for i in range(0, len(source), len(SOUNDS))]
    falling = [slope(i) for i in range(1, len(source), len(SOUNDS))]
    assert np.mean(np.array(rising) > 0) > 0.9 and np.mean(np.array(falling) < 0) > 0.9


def test_faulty_options_are_refused():
    with pytest.raises(ValueError, match="size=0"):
        Synthetic(0)
    with pytest.raises(ValueError, match=r"Synthetic\.folds"):
        Synthetic(10, folds=(7,))
