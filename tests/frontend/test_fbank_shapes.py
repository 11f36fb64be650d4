import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.frontend.fbank import FLOOR, STATS, Fbank

SILENCE = np.log(FLOOR)


def noise(*shape, seed=0):
    return jnp.asarray(0.1 * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_frame_counts():
    fbank = Fbank()
    assert [fbank.count(n) for n in (400, 559, 560, 16_000, 160_000)] == [1, 1, 2, 98, 998]
    assert fbank.log_mel(noise(2, 4000)).shape == (2, fbank.count(4000), 128)
    assert Fbank(frames=7).count(160_000) == 7
    with pytest.raises(ValueError, match="399 samples, less than one window of 400"):
        fbank.count(399)


def test_padding_and_cropping_are_at_the_end_of_raw_log_mel():
    audio = noise(1, 4000)
    whole = Fbank().log_mel(audio)[0]
    padded = Fbank(frames=30).log_mel(audio)[0]
    np.testing.assert_allclose(padded[:23], whole, atol=1e-5)
    assert not np.any(padded[23:]) and np.all(whole != 0)
    cropped = Fbank(frames=5).log_mel(audio)[0]
    np.testing.assert_allclose(cropped, whole[:5], atol=1e-5)


def test_call_normalises_after_padding():
    for stats in STATS.values():
        fbank = Fbank(**stats | {"frames": 4})
        got = fbank(noise(1, 400))[0]
        raw = fbank.log_mel(noise(1, 400))[0]
        np.testing.assert_allclose(got, (raw - stats["mean"]) / (2 * stats["std"]), rtol=1e-5)
        np.testing.assert_allclose(got[1:], -stats["mean"] / (2 * stats["std"]), rtol=1e-5)


def test_padding_of_the_batch_changes_nothing():
    audio = noise(1, 3000) + 0.3
    alone = Fbank(frames=20)(audio)
    mate = jnp.concatenate([audio, 5 * noise(1, 2000, seed=1)], axis=1)
    together = Fbank(frames=20)(
        jnp.concatenate([mate, noise(1, 5000)]), jnp.array([3000, 5000], jnp.int32)
    )
    np.testing.assert_allclose(together[0], alone[0], atol=1e-5)
    # 3000 samples hold 17 whole frames.
    valid = Fbank().valid(jnp.array([3000, 399, 0], jnp.int32), 20)
    assert valid.sum(1).tolist() == [17, 0, 0] and valid[0, :17].all()


@pytest.mark.parametrize("samples", [0, 399])
def test_clips_without_a_whole_frame_are_padding(samples):
    fbank = Fbank(frames=3)
    wanted = np.full((1, 3, 128), -fbank.mean / (2 * fbank.std), np.float32)
    inside = fbank(noise(1, 800), jnp.array([samples], jnp.int32))
    np.testing.assert_allclose(inside, wanted, rtol=1e-6)
    np.testing.assert_allclose(fbank(noise(1, samples)), wanted, rtol=1e-6)


def test_silence_and_its_gradient_are_finite():
    fbank = Fbank()
    np.testing.assert_allclose(fbank.log_mel(jnp.full((1, 800), 0.5)), SILENCE, rtol=1e-6)
    gradient = jax.grad(lambda audio: fbank(audio).sum())(jnp.zeros((1, 800)))
    assert np.isfinite(gradient).all()


def test_a_tone_lights_up_its_band():
    seconds = jnp.arange(1600) / 16_000
    spec = Fbank().log_mel(jnp.sin(2 * jnp.pi * 1000 * seconds)[None])[0]
    edges = np.linspace(*(1127 * np.log(1 + np.array([20, 8000]) / 700)), 130)
    wanted = np.argmin(np.abs(edges[1:-1] - 1127 * np.log(1 + 1000 / 700)))
    assert set(np.asarray(spec.argmax(1)).tolist()) == {int(wanted)}


def test_hashes_and_traces_once():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def run(fbank, audio):
        traces.append(1)
        return fbank(audio)

    for _ in range(2):
        run(Fbank(frames=4), noise(1, 800))
    assert len(traces) == 1


def test_other_sizes():
    spec = Fbank(rate=8000, bins=40, hop=80, window=256, high=-200.0)(noise(2, 1000))
    assert spec.shape == (2, 10, 40) and np.isfinite(spec).all()


@pytest.mark.parametrize(
    "options", [{"hop": 0}, {"std": 0.0}, {"frames": 0}, {"low": 9000.0}, {"high": 9000.0}]
)
def test_nonsense_is_refused(options):
    with pytest.raises(ValueError, match="Fbank"):
        Fbank(**options)
