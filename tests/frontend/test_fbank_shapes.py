import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.frontend.fbank import FLOOR, STATS, Fbank

SILENCE = np.log(FLOOR)
log_mel = jax.jit(Fbank.log_mel, static_argnums=0)
features = jax.jit(Fbank.__call__, static_argnums=0)


def noise(*shape, seed=0):
    return jnp.asarray(0.1 * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_frame_counts():
    fbank = Fbank()
    assert [fbank.count(n) for n in (400, 559, 560, 16_000, 160_000)] == [1, 1, 2, 98, 998]
    assert log_mel(fbank, noise(2, 4000)).shape == (2, fbank.count(4000), 128)
    assert Fbank(frames=7).count(160_000) == 7
    with pytest.raises(ValueError, match="399 samples, less than one window of 400"):
        fbank.count(399)


def test_padding_and_cropping_are_at_the_end_of_raw_log_mel():
    audio = noise(1, 4000)
    whole = log_mel(Fbank(), audio)[0]
    padded = log_mel(Fbank(frames=30), audio)[0]
    np.testing.assert_allclose(padded[:23], whole, atol=2e-4)
    assert not np.any(padded[23:]) and np.all(whole != 0)
    cropped = log_mel(Fbank(frames=5), audio)[0]
    np.testing.assert_allclose(cropped, whole[:5], atol=2e-4)


def test_call_normalises_after_padding():
    for name in ("esc50", "speech_commands"):
        stats = STATS[name]
        fbank = Fbank(**stats | {"frames": 4})
        got = features(fbank, noise(1, 400))[0]
        raw = log_mel(fbank, noise(1, 400))[0]
        np.testing.assert_allclose(got, (raw - stats["mean"]) / (2 * stats["std"]), rtol=1e-5)
        np.testing.assert_allclose(got[1:], -stats["mean"] / (2 * stats["std"]), rtol=1e-5)


def test_padding_of_the_batch_changes_nothing():
    audio = noise(1, 3000) + 0.3
    alone = features(Fbank(frames=20), audio)
    mate = jnp.concatenate([audio, 5 * noise(1, 2000, seed=1)], axis=1)
    both = jnp.concatenate([mate, noise(1, 5000)])
    together = features(Fbank(frames=20), both, jnp.array([3000, 5000], jnp.int32))
    np.testing.assert_allclose(together[0], alone[0], atol=2e-4)
    # 3000 samples hold 17 whole frames.
    valid = Fbank().valid(jnp.array([3000, 399, 0], jnp.int32), 20)
    assert valid.sum(1).tolist() == [17, 0, 0] and valid[0, :17].all()


@pytest.mark.parametrize("samples", [0, 399])
def test_clips_without_a_whole_frame_are_padding(samples):
    fbank = Fbank(frames=3)
    wanted = np.full((1, 3, 128), -fbank.mean / (2 * fbank.std), np.float32)
    inside = features(fbank, noise(1, 800), jnp.array([samples], jnp.int32))
    np.testing.assert_allclose(inside, wanted, rtol=1e-6)
    np.testing.assert_allclose(features(fbank, noise(1, samples)), wanted, rtol=1e-6)


def test_silence_and_its_gradient_are_finite():
    fbank = Fbank()
    np.testing.assert_allclose(log_mel(fbank, jnp.full((1, 800), 0.5)), SILENCE, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda audio: fbank(audio).sum()))(jnp.zeros((1, 800)))
    assert np.isfinite(gradient).all()


def test_a_tone_lights_up_its_band():
    seconds = jnp.arange(1600) / 16_000
    spec = log_mel(Fbank(), jnp.sin(2 * jnp.pi * 1000 * seconds)[None])[0]
    edges = np.linspace(*(1127 * np.log(1 + np.array([20, 8000]) / 700)), 130)
    wanted = np.argmin(np.abs(edges[1:-1] - 1127 * np.log(1 + 1000 / 700)))
    assert set(np.asarray(spec.argmax(1)).tolist()) == {int(wanted)}


def test_equal_options_share_one_trace():
    traces = []

    def run(fbank, audio):
        traces.append(1)
        return fbank(audio)

    for _ in range(2):
        jax.jit(run, static_argnums=0)(Fbank(frames=4), noise(1, 800))
    assert len(traces) == 1


def test_other_sizes():
    fbank = Fbank(rate=8000, bins=40, hop=80, window=256, high=-200.0)
    spec = features(fbank, noise(2, 1000))
    assert spec.shape == (2, 10, 40) and np.isfinite(spec).all()


@pytest.mark.parametrize(
    "options", [{"hop": 0}, {"std": 0.0}, {"frames": 0}, {"low": 9000.0}, {"high": 9000.0}]
)
def test_nonsense_is_refused(options):
    with pytest.raises(ValueError, match="Fbank"):
        Fbank(**options)
