"""Augmentation of waveforms, padding with the least energy, the centred transform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.frontend.fbank import Fbank
from ssl_audio.frontend.stft import Stft
from ssl_audio.frontend.waves import Mixture, RollGain


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    length = np.array([4000, 2500, 4000, 1], np.int32)
    audio = rng.normal(0, 1, (4, 4000)).astype(np.float32) * [[1], [0.1], [3], [1]]
    inside = np.arange(4000)[None] < length[:, None]
    return jnp.asarray(np.where(inside, audio, 0), jnp.float32), jnp.asarray(length), inside


def test_roll_and_gain_keep_the_valid_samples_up_to_one_factor(clips):
    audio, length, inside = clips
    made = np.asarray(jax.jit(RollGain())(audio, length, jax.random.key(0)))
    factors = []
    for row, new, there in zip(np.asarray(audio), made, inside, strict=True):
        assert (new[~there] == 0).all()
        old, new = np.sort(row[there]), np.sort(new[there])
        factor = new[0] / old[0] if old[0] else 1.0
        assert np.allclose(new, factor * old, rtol=1e-4, atol=1e-6)
        factors.append(factor)
    assert min(factors) > 0.5 and max(factors) < 1.5 and len(set(factors)) > 2


def test_mixtures_add_something_softer_and_only_where_the_clip_is(clips):
    audio, length, inside = clips
    mixture = Mixture(share=1.0, most=1, low=10.0, high=10.0)
    added = np.asarray(jax.jit(mixture)(audio, length, jax.random.key(0)) - audio)
    assert (added[~inside] == 0).all()
    for i in (0, 2):  # as long as their partners, or longer
        softer = 10 * np.log10((np.asarray(audio[i]) ** 2).mean() / (added[i] ** 2).mean())
        assert softer > 9.5
    none = jax.jit(Mixture(share=0.0))(audio, length, jax.random.key(0))
    assert np.array_equal(none, audio)


def test_padding_with_the_least_energy_of_the_clip(clips):
    audio, length, _ = clips
    spec = np.asarray(Fbank(bins=16, frames=30, padding="lowest").log_mel(audio, length))
    assert (spec[1, 14:] == spec[1, :14].min()).all() and spec[1, :14].min() < -1
    assert (spec[3] == 0).all()  # not one whole frame
    with pytest.raises(ValueError, match="padding 'min'; wanted zero or lowest"):
        Fbank(padding="min")


def test_the_centred_transform_counts_frames_and_takes_the_rest_for_silence(clips):
    audio, length, _ = clips
    frontend = Stft(bins=16, frames=14)
    spec = np.asarray(frontend.log_mel(audio, length))
    assert spec.shape == (4, 14, 16) and frontend.count(10**6) == 14
    assert Stft().count(32_000) == 100 and Stft().count(1) == 1
    assert np.allclose(spec[1, 11:], np.log(1e-5)) and np.allclose(spec[0, 13], np.log(1e-5))
    assert np.array_equal(frontend.valid(length, 14).sum(1), [13, 8, 13, 1])
    with pytest.raises(ValueError, match="the bands go from 0.0 to 20000"):
        Stft(high=20_000.0)
