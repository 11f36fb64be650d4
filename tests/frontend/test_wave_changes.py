"""Polarity, gain, noise by ratio and colour, filters: what they do to waves, in dB and Hz."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.frontend import waves

RATE, SAMPLES = 16_000, 16_000
LENGTH = jnp.asarray([16_000, 16_000, 9_000, 16_000])
KEY = jax.random.key(3)
ALL = (
    waves.Polarity(1.0),
    waves.Gain(),
    waves.Noise(),
    waves.Noise(slope=(-6.0, 0.0)),
    waves.Filters((waves.HighPass(), waves.BandStop(), waves.LowPass(), waves.BandPass())),
)


@pytest.fixture(scope="module")
def clips():
    """Return noise, a tone, noise that ends early, and silence."""
    rng = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 1000 * np.arange(SAMPLES) / RATE)
    audio = 0.1 * rng.normal(size=(4, SAMPLES))
    audio[1], audio[2, 9_000:], audio[3] = tone, 0, 0
    return jnp.asarray(audio, jnp.float32)


def power(x, axis=-1):
    return 10 * np.log10(np.mean(np.asarray(x, np.float64) ** 2, axis))


@pytest.mark.parametrize("change", ALL, ids=lambda c: type(c).__name__)
def test_each_keeps_shape_type_padding_and_silence_and_depends_on_the_key_alone(change, clips):
    made = jax.jit(change)(clips, LENGTH, KEY)
    assert made.shape == clips.shape and made.dtype == jnp.float32
    assert np.array_equal(made, jax.jit(change)(clips, LENGTH, KEY))
    assert np.isfinite(made).all() and not np.array_equal(made[0], clips[0])
    assert not np.asarray(made[2, 9_000:]).any() and not np.asarray(made[3]).any()


@pytest.mark.parametrize("change", ALL[1:], ids=lambda c: type(c).__name__)
def test_clips_draw_for_themselves_and_other_keys_draw_otherwise(change, clips):
    same = jnp.repeat(clips[:1], 4, axis=0)
    length = jnp.full(4, SAMPLES)
    first, second = (np.asarray(change(same, length, key)) for key in jax.random.split(KEY))
    assert len({row.tobytes() for row in (*first, *second)}) == 8


def test_a_chance_is_the_share_of_clips_that_change(clips):
    many = jnp.ones((2000, 16)) * jnp.linspace(-1, 1, 16)[None]
    length = jnp.full(2000, 16)
    for change in (
        waves.Polarity(0.3),
        waves.Gain(3.0, 12.0, chance=0.3),
        waves.Noise(5.0, 40.0, chance=0.3),
        waves.Filters((waves.HighPass(chance=0.3),)),
    ):
        made = np.asarray(change(many, length, KEY))
        moved = np.abs(made - np.asarray(many)).max(1) > 1e-4
        assert abs(moved.mean() - 0.3) < 0.04, change
    for none in (waves.Polarity(0.0), waves.Gain(chance=0.0), waves.Noise(chance=0.0)):
        assert np.array_equal(none(clips, LENGTH, KEY), clips)


def test_polarity_and_gain_are_what_they_say(clips):
    assert np.array_equal(waves.Polarity(1.0)(clips, LENGTH, KEY), -clips)
    made = waves.Gain(-6.0, -6.0)(clips, LENGTH, KEY)
    assert np.allclose(power(made[:3]), power(clips[:3]) - 6, atol=1e-3)
    many = jnp.ones((1000, 1))
    level = 20 * np.log10(np.asarray(waves.Gain(-12.0, 12.0)(many, jnp.ones(1000, int), KEY)))
    assert -12 <= level.min() < -11 and 11 < level.max() <= 12


@pytest.mark.parametrize("slope", [0.0, -3.0, -6.0, 3.0])
def test_noise_has_its_ratio_to_the_valid_samples_and_its_colour(clips, slope):
    change = waves.Noise(10.0, 10.0, slope=(slope, slope))
    added = np.asarray(change(clips, LENGTH, KEY) - clips)
    for row, noise, length in zip(np.asarray(clips)[:3], added, LENGTH, strict=False):
        assert abs(power(row[:length]) - power(noise[:length]) - 10) < 0.01
    spectrum = np.abs(np.fft.rfft(added[0])) ** 2
    octaves = [
        10 * np.log10(spectrum[low : 2 * low].mean()) for low in (250, 500, 1000, 2000, 4000)
    ]
    assert np.allclose(np.diff(octaves), slope, atol=1.0)


def response(filter, frequency):
    """Return what a filter of a fixed edge does to frequencies, dB."""
    gain = filter.gain(jnp.asarray(frequency, jnp.float32), 1, KEY)
    return 20 * np.log10(np.asarray(gain[0]))


def test_filters_have_the_gain_of_butterworth_filters():
    scipy = pytest.importorskip("scipy.signal")
    frequency = np.asarray([50.0, 250, 500, 1000, 2000, 4000, 7000])
    for slope in (6, 12, 24):
        same = (slope, slope)
        edges = (500.0, 1500.0)  # centre 1000 Hz, width 1000 Hz
        cases = {
            "highpass": (waves.HighPass(1000.0, 1000.0, same), 1000.0),
            "lowpass": (waves.LowPass(1000.0, 1000.0, same), 1000.0),
            "bandpass": (waves.BandPass(1000.0, 1000.0, same, width=(1.0, 1.0)), edges),
            "bandstop": (waves.BandStop(1000.0, 1000.0, same, width=(1.0, 1.0)), edges),
        }
        for kind, (filter, edge) in cases.items():
            made = scipy.butter(slope // 6, edge, kind, analog=True)
            _, wanted = scipy.freqs(*made, worN=frequency)
            wanted = np.maximum(20 * np.log10(np.abs(wanted)), -120)
            assert np.allclose(np.maximum(response(filter, frequency), -120), wanted, atol=0.01)


def test_a_filtered_tone_keeps_its_phase_and_its_place(clips):
    high = waves.Filters((waves.HighPass(2000.0, 2000.0, slope=(12, 12)),))
    made = np.asarray(high(clips, LENGTH, KEY)[1])
    middle = slice(4000, 12_000)
    wanted = 1 / np.sqrt(1 + 2.0**4)
    assert np.allclose(made[middle], wanted * np.asarray(clips[1])[middle], atol=1e-4)
    click = jnp.zeros((1, SAMPLES)).at[0, 15_990].set(1.0)
    low = waves.Filters((waves.LowPass(2000.0, 2000.0),))
    answer = np.asarray(low(click, jnp.asarray([SAMPLES]), KEY))[0]
    assert np.argmax(answer) == 15_990
    assert np.abs(answer[:8000]).max() < 1e-4  # the end is not heard at the beginning


def test_edges_lie_between_their_bounds_on_the_mel_scale():
    frequency = jnp.linspace(1.0, 8000.0, 8000)
    gain = np.asarray(waves.HighPass(20.0, 2400.0, slope=(24, 24)).gain(frequency, 500, KEY))
    edge = np.argmin(np.abs(gain - 0.5**0.5), axis=1) + 1.0
    assert 18 <= edge.min() < 60 and 2200 < edge.max() <= 2401
    mel = 1127 * np.log1p(edge / 700)
    share = (mel - mel.min()) / (mel.max() - mel.min())
    assert abs(np.median(share) - 0.5) < 0.06


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: waves.Polarity(1.5), "Polarity: chance is 1.5; wanted 0 to 1."),
        (lambda: waves.Gain(3.0, -3.0), r"Gain: low, high: got \(3.0, -3.0\), wanted low <= high"),
        (lambda: waves.Noise(slope=(0.0, -3.0)), r"Noise: slope: got \(0.0, -3.0\)"),
        (lambda: waves.HighPass(0.0, 100.0), "HighPass: low, high: got .* wanted 1 <= low"),
        (lambda: waves.LowPass(slope=(10, 12)), "LowPass: slope is .* multiples of 6 dB"),
        (lambda: waves.BandStop(width=(0.5, 2.0)), "BandStop: width: got .* high <= 1.999"),
        (lambda: waves.Filters(()), "Filters: 0 members, .* at least one"),
    ],
)
def test_wrong_options_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_every_option_can_be_built_from_a_config():
    from ssl_audio.config import build

    members = (dict(kind="waves:HighPass", chance=0.3), dict(kind="waves:BandStop", chance=0.5))
    made = build(dict(kind="waves:Filters", members=members), "frontend")
    assert made == waves.Filters((waves.HighPass(chance=0.3), waves.BandStop(chance=0.5)))
