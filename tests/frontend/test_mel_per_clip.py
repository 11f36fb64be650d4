"""Log-mels scaled per clip: against librosa; level, padding and silence."""

import dataclasses

import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from ssl_audio.frontend.mel import Mel

RATE, SAMPLES = 16_000, 8000
MEL = Mel(
    rate=RATE, bins=32, hop=160, window=1024, low=0.0, high=8000.0, scale="htk", area=False,
    top_db=80.0, per_clip=True, frames=64,
)  # fmt: skip


def sound(seed=0):
    rng, t = np.random.default_rng(seed), np.arange(SAMPLES) / RATE
    burst = np.sin(2 * np.pi * 700 * t) * np.exp(-((t - 0.25) ** 2) / 0.003)
    return (0.4 * burst + 1e-4 * rng.normal(size=SAMPLES)).astype(np.float32)


def scaled(audio, length=None):
    length = None if length is None else jnp.asarray([length])
    return np.asarray(MEL(jnp.asarray(audio)[None], length))[0]


def test_it_is_librosas_in_decibels_and_then_from_0_to_1():
    power = librosa.feature.melspectrogram(
        y=sound(), sr=RATE, n_fft=1024, hop_length=160, n_mels=32, fmin=0, fmax=8000, htk=True,
        norm=None, center=True, pad_mode="reflect",
    )  # fmt: skip
    level = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=80.0).T
    wanted = (level - level.min()) / (level.max() - level.min() + 1e-8)
    found = scaled(sound())
    assert found.shape == (64, 32) and len(wanted) == 51
    np.testing.assert_allclose(found[:51], wanted, atol=2e-4)
    assert found.min() == 0 and found.max() == pytest.approx(1, abs=1e-6)
    assert not found[51:].any()  # padded afterwards
    loud = MEL.decibels(found)
    assert loud.max() == pytest.approx(0, abs=1e-4) and loud.min() == -80


def test_level_does_not_matter_until_the_floor_bites():
    found = scaled(sound())
    np.testing.assert_allclose(scaled(0.1 * sound()), found, atol=1e-4)
    assert np.abs(scaled(1e-5 * sound()) - found).max() > 0.05
    assert not scaled(0 * sound()).any()


def test_what_lies_after_a_clips_end_does_not_matter():
    audio = sound()
    audio[6000:] = 0.9
    short = scaled(audio, 6000)
    audio[6000:] = 0
    np.testing.assert_array_equal(short, scaled(audio, 6000))
    there = 1 + 6000 // 160
    assert short[:there].max() == pytest.approx(1, abs=1e-6) and not short[there:].any()
    assert not scaled(audio, 0)[1:].any()
    alone = np.asarray(dataclasses.replace(MEL, frames=None)(jnp.asarray(audio[:6000])[None]))[0]
    # Only the last frames differ: alone, the end of the clip is mirrored.
    np.testing.assert_allclose(short[: there - 4], alone[: there - 4], atol=1e-4)
