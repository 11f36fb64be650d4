import numpy as np
import pytest

from ssl_audio.data import transforms


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_crop_keeps_the_first_samples_or_any(rng):
    audio = np.arange(100, dtype=np.float32)
    first, length = transforms.crop(audio, 10, "first", rng)
    np.testing.assert_array_equal(first, audio[:10])
    starts = {transforms.crop(audio, 10, "random", rng)[0][0] for _ in range(2000)}
    assert length == 10 and starts == set(range(91))


def test_crop_pads_at_the_end_and_says_how_much_is_sound(rng):
    padded, length = transforms.crop(np.ones(3, np.float32), 5, "random", rng)
    np.testing.assert_array_equal(padded, [1, 1, 1, 0, 0])
    assert length == 3 and padded.dtype == np.float32


def test_fill(rng):
    del rng
    short = np.array([1.0, 2.0], np.float32)
    more = iter([np.array([3.0], np.float32), np.array([4.0, 5.0, 6.0], np.float32)])
    fill = transforms.fill
    np.testing.assert_array_equal(fill(short, 5, "zeros", lambda: next(more)), short)
    np.testing.assert_array_equal(fill(short, 5, "repeat", lambda: next(more)), [1, 2, 1, 2, 1])
    np.testing.assert_array_equal(fill(short, 5, "join", lambda: next(more)), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(fill(short, 1, "join", lambda: next(more)), short)


def test_unknown_modes_are_refused(rng):
    with pytest.raises(ValueError, match="crop: got 'middle'"):
        transforms.crop(np.ones(3), 2, "middle", rng)
    with pytest.raises(ValueError, match="fill: got 'loop'"):
        transforms.fill(np.ones(3), 9, "loop", lambda: np.ones(1))


def test_gain_is_in_decibels():
    np.testing.assert_allclose(transforms.gain(np.ones(2, np.float32), -20), 0.1, rtol=1e-6)


def test_speed_raises_the_pitch_and_shortens(rng):
    del rng
    tone = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype("f")
    fast = transforms.speed(tone, 1.25)
    spectrum = np.abs(np.fft.rfft(fast * np.hanning(len(fast))))
    assert len(fast) == 12_800 and fast.dtype == np.float32
    assert abs(spectrum.argmax() * 16_000 / len(fast) - 550) < 2


def test_mixup_is_the_weighted_sum_of_centred_clips(rng):
    one, two = rng.normal(1, 1, 50).astype("f"), rng.normal(-2, 1, 50).astype("f")
    mixed = transforms.mixup(one, two, 0.3)
    wanted = 0.3 * (one - one.mean()) + 0.7 * (two - two.mean())
    np.testing.assert_allclose(mixed, wanted, atol=1e-6)
    assert mixed.dtype == np.float32


@pytest.mark.parametrize("length", [20, 80])
def test_mixup_fits_the_partner_to_the_first_clip(rng, length):
    one, two = np.zeros(50, np.float32), rng.normal(3, 1, length).astype("f")
    mixed = transforms.mixup(one, two, 0.5)
    wanted = np.zeros(50)
    wanted[: min(length, 50)] = 0.5 * (two - two.mean())[:50]
    np.testing.assert_allclose(mixed, wanted - wanted.mean(), atol=1e-6)
