import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.frontend.fbank import Fbank
from ssl_audio.frontend.mel import Mel
from ssl_audio.frontend.raw import Raw
from ssl_audio.frontend.views import (
    CutOut,
    Occlusion,
    OneOf,
    SpeedPerturbation,
    augmented,
    floor,
    published,
)

BATCH, SAMPLES = 600, 400
RAMP = jnp.tile(jnp.arange(1.0, SAMPLES + 1), (BATCH, 1))
WHOLE = jnp.full(BATCH, SAMPLES)


def test_occlusion_hides_one_span_of_a_uniform_share():
    heard, length = jax.jit(Occlusion(0.0, 0.75).waves)(RAMP, WHOLE, jax.random.key(0))
    hidden = np.asarray(heard) == 0
    np.testing.assert_array_equal(np.asarray(heard)[~hidden], np.asarray(RAMP)[~hidden])
    np.testing.assert_array_equal(length, WHOLE)
    edges = np.diff(np.pad(hidden, ((0, 0), (1, 1))).astype(int), axis=1)
    assert np.abs(edges).sum(1).max() == 2
    share = hidden.mean(1)
    assert share.max() <= 0.75 and share.mean() == pytest.approx(0.375, abs=0.03)
    ends = np.flatnonzero(hidden[:, 0]), np.flatnonzero(hidden[:, -1])
    assert all(len(end) for end in ends)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (1.75, 1.75), (0.25, 1.75)])
def test_speed_perturbation_picks_the_nearest_sample_and_places_it_at_random(low, high):
    heard, length = jax.jit(SpeedPerturbation(low, high).waves)(RAMP, WHOLE, jax.random.key(1))
    heard, length = np.asarray(heard), np.asarray(length)
    begins, factors = [], []
    for clip, end in zip(heard, length, strict=True):
        there = np.flatnonzero(clip)
        np.testing.assert_array_equal(there, np.arange(there[0], there[0] + len(there)))
        factor = (there[-1] - there[0]) / max(1.0, clip[there[-1]] - clip[there[0]])
        begins.append(there[0] if len(there) < SAMPLES else clip[0])
        factors.append(factor)
        assert low - 0.05 <= factor <= high + 0.05
        assert end == there[-1] + 1
    assert len(set(begins)) > 50
    if low == 0.5 == high:
        assert (np.count_nonzero(heard, axis=1) == SAMPLES // 2).all()
        assert min(begins) < 5 and max(begins) > SAMPLES // 2 - 5
    if low < high:
        assert np.mean(factors) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5, 3.0])
def test_speed_perturbation_stretches_the_sound_and_not_the_padding(factor):
    size = SAMPLES // 2
    half = jnp.where(jnp.arange(SAMPLES)[None] < size, RAMP, 0)
    lengths = jnp.full(BATCH, size)
    view = SpeedPerturbation(factor, factor)
    heard, length = jax.jit(view.waves)(half, lengths, jax.random.key(1))
    heard, length = np.asarray(heard), np.asarray(length)
    begins = {np.flatnonzero(clip)[0] for clip in heard}
    for clip, end in zip(heard, length, strict=True):
        there = np.flatnonzero(clip)
        assert len(there) == min(round(factor * size), SAMPLES) and end == there[-1] + 1
        assert np.array_equal(there, np.arange(there[0], end))
    if factor == 0.5:  # somewhere in what was sound before
        assert min(begins) == 0 and max(begins) == size // 2 and len(begins) > 50
    else:
        assert begins == {0}
    if factor <= 1.5:  # all that was heard before is heard now
        assert (heard.max(1) >= size - 1).all()


def test_cut_out_fills_one_rectangle_with_the_given_value():
    spec = jnp.ones((BATCH, 40, 20))
    hidden = (
        np.asarray(
            jax.jit(lambda spec, key: CutOut(0.1, 0.5).spec(spec, key, -3.0))(
                spec, jax.random.key(2)
            )
        )
        == -3
    )
    time, freq = hidden.any(2), hidden.any(1)
    np.testing.assert_array_equal(hidden, time[:, :, None] & freq[:, None, :])
    for axis in (time, freq):
        share = axis.mean(1)
        assert share.min() >= 0.1 and share.max() <= 0.5
        assert share.mean() == pytest.approx(0.3, abs=0.02)
        assert axis[:, 0].any() and axis[:, -1].any()


@pytest.mark.parametrize(("strength", "chance"), [("weak", 0.5), ("strong", 1.0)])
def test_each_clip_gets_exactly_one_of_three_equally_often(strength, chance):
    view = config.build(published(strength), "frontend")
    assert [type(m) for m in view.members] == [Occlusion, SpeedPerturbation, CutOut]
    key = jax.random.key(3)
    noise = 1 + jax.random.uniform(key, (BATCH, SAMPLES))
    heard, _ = jax.jit(view.waves)(noise, WHOLE, key)
    seen = view.spec(jnp.ones((BATCH, 40, 20)), key, -1.0)
    heard, noise = np.asarray(heard), np.asarray(noise)
    zeros = heard == 0
    occluded = ((heard == noise) | zeros).all(1) & zeros.any(1)
    sped = ~((heard == noise) | zeros).all(1)
    cut = (np.asarray(seen) == -1).any((1, 2))
    assert not (occluded & sped | occluded & cut | sped & cut).any()
    expected = chance / 3
    sigma = (expected * (1 - expected) / BATCH) ** 0.5
    for acted in (occluded, sped, cut):
        # An occlusion of less than a sample, and a speed of nearly 1, cannot be seen.
        assert acted.mean() == pytest.approx(expected, abs=3 * sigma + 0.01)


def test_one_draw_decides_for_both_halves_of_a_view():
    both = OneOf((Occlusion(0.5, 0.5), CutOut(0.5, 0.5)))
    mel = Mel(rate=8000, hop=100, window=128, low=0.0, high=0.0, frames=4, bins=8)
    for number in range(3):
        key = jax.random.key(number)
        heard, _ = both.waves(RAMP, WHOLE, key)
        filled = both.spec(jnp.zeros((BATCH, 4, 8)), key, -80.0)
        np.testing.assert_array_equal(
            (np.asarray(heard) == 0).any(1), (np.asarray(filled) == 0).all((1, 2))
        )
    spec, _ = augmented(mel, both, RAMP, WHOLE, key)
    assert ((np.asarray(spec) == -80).any((1, 2)) == (np.asarray(filled) != 0).any((1, 2))).all()
    plain = mel(RAMP, WHOLE)
    for view, some in ((None, key), (both, None)):
        np.testing.assert_array_equal(augmented(mel, view, RAMP, WHOLE, some)[0], plain)


def test_the_floor_is_in_the_units_of_the_frontend():
    mel, fbank = Mel(mean=-20.0, std=10.0), Fbank()
    assert floor(mel) == pytest.approx(-6.0)
    assert fbank.decibels(np.asarray([floor(fbank, -30.0)])) == pytest.approx(-30.0, abs=1e-4)
    assert floor(Raw()) == 0.0


def test_views_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"low=0.5, high=0.25; wanted 0 <= low"):
        Occlusion(0.5, 0.25)
    with pytest.raises(ValueError, match=r"wanted 0.01 <= low"):
        SpeedPerturbation(0.0, 1.0)
    with pytest.raises(ValueError, match="chance is 2"):
        CutOut(chance=2.0)
    with pytest.raises(ValueError, match="members: got none"):
        OneOf(())
    with pytest.raises(ValueError, match="wanted weak or strong"):
        published("medium")
