import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.frontend.augment import NoiseRoll, SpecAugment


def spans(hidden):
    """Return first and count of the True of each row; fail if they are not one piece."""
    pieces = np.diff(np.pad(hidden, ((0, 0), (1, 1))).astype(int), axis=1)
    assert (np.abs(pieces).sum(1) <= 2).all()
    return hidden.argmax(1), hidden.sum(1)


def test_specaugment_hides_one_band_and_one_span_per_clip():
    spec = jnp.ones((500, 20, 16))
    hidden = np.asarray(jax.jit(SpecAugment(freq=8, time=10))(spec, jax.random.key(0))) == 0
    bins, frames = hidden.all(1), hidden.all(2)
    np.testing.assert_array_equal(hidden, bins[:, None, :] | frames[:, :, None])
    for axis, size, most in ((bins, 16, 8), (frames, 20, 10)):
        first, count = spans(axis)
        assert np.bincount(count, minlength=most).min() > 20 and count.max() == most - 1
        assert count.mean() == pytest.approx((most - 1) / 2, abs=0.6)
        last = (first + count)[count > 0]
        assert first[count > 0].min() == 0 and size - 1 <= last.max() <= size
        # The middle is hidden more often than the edges: positions are uniform over what fits.
        assert axis.mean(0)[size // 2] > axis.mean(0)[0]
    assert np.corrcoef(bins.sum(1), frames.sum(1))[0, 1] < 0.2


def test_specaugment_off_changes_nothing():
    spec = jnp.ones((3, 20, 16))
    np.testing.assert_array_equal(SpecAugment()(spec, jax.random.key(0)), spec)


def test_specaugment_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="time=21 do not fit"):
        SpecAugment(time=21)(jnp.ones((1, 20, 16)), jax.random.key(0))
    with pytest.raises(ValueError, match="below 0"):
        SpecAugment(freq=-1)


def test_noise_is_uniform_with_one_strength_per_clip():
    spec = jnp.zeros((400, 30, 16))
    noise = np.asarray(jax.jit(NoiseRoll(roll=0))(spec, jax.random.key(0)))
    assert noise.min() >= 0 and noise.max() < 0.1
    strength = 2 * noise.mean((1, 2))
    assert strength.mean() == pytest.approx(0.05, abs=0.006)
    assert strength.std() == pytest.approx(0.1 / 12**0.5, rel=0.1)
    relative = noise / strength[:, None, None]
    assert np.quantile(relative, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.02)


def test_roll_shifts_each_clip_from_minus_ten_to_nine():
    ramp = jnp.broadcast_to(jnp.arange(32.0)[None, :, None], (1000, 32, 2))
    rolled = np.asarray(jax.jit(NoiseRoll(noise=0.0))(ramp, jax.random.key(0)))
    shift = rolled[:, :, 0].argmin(1)
    for clip, by in zip(rolled, shift, strict=True):
        np.testing.assert_array_equal(clip, np.roll(ramp[0], by, axis=0))
    shift = (shift + 16) % 32 - 16
    values, counts = np.unique(shift, return_counts=True)
    assert values.tolist() == list(range(-10, 10))
    assert counts.min() > 20
    with pytest.raises(ValueError, match="below 0"):
        NoiseRoll(roll=-1)
