"""Samplers against the exact solution for normal data; independence of examples; no noise, more noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.objectives.noise import Cosine
from ssl_audio.objectives.samplers import Ddim, Dpm2M, Dpm3M, Sampler, sample

DEVIATION = 0.7  # of the data
SCHEDULE = Cosine()


def velocity(x, time):
    """Return the best velocity for normal data."""
    signal, noise = SCHEDULE.shares(time)
    found = x * signal * DEVIATION**2 / ((signal * DEVIATION) ** 2 + noise**2)
    return signal * (x - signal * found) / noise - noise * found


def error(sampler: Sampler):
    """Return the greatest difference from the exact solution, of noise of size 1."""
    noise = jnp.asarray([[1.0], [-0.5], [2.0]])
    found = sample(velocity, SCHEDULE, noise, sampler, jax.random.split(jax.random.key(0), 3))
    variance = DEVIATION**2 + sampler.levels[[0, -2]] ** 2
    last = np.asarray(noise) * sampler.most * np.sqrt(variance[1] / variance[0])
    exact = last * DEVIATION**2 / variance[1]
    return np.max(np.abs(found - exact) / np.abs(np.asarray(noise)))


def test_each_order_is_nearer_than_the_one_below():
    third_order = Dpm3M(40, eta=0.0)
    first, second, third = map(error, (Ddim(40), Dpm2M(40), third_order))
    assert first > 5 * second > 5 * 2 * third
    assert third < 2e-3


# The third order begins with steps of the first and the second.
@pytest.mark.parametrize(("kind", "times"), [(Ddim, 1.8), (Dpm2M, 3.4), (Dpm3M, 5.5)])
def test_errors_fall_as_the_order_says(kind, times):
    more: Any = {"eta": 0.0} if kind is Dpm3M else {}
    few, many = (error(kind(steps, least=0.1, most=20.0, **more)) for steps in (15, 30))
    assert few / many > times


def test_the_noise_of_the_stochastic_sampler_keeps_the_spread_of_data():
    noise = jax.random.normal(jax.random.key(1), (4000, 1))
    keys = jax.random.split(jax.random.key(2), len(noise))
    found = sample(velocity, SCHEDULE, noise, Dpm3M(40), keys)
    assert float(jnp.std(found)) == pytest.approx(DEVIATION, rel=0.05)
    # What it began with is forgotten; without fresh noise it decides everything.
    assert abs(np.corrcoef(noise[:, 0], found[:, 0])[0, 1]) < 0.1
    plain = sample(velocity, SCHEDULE, noise, Dpm3M(40, eta=0.0), keys)
    assert np.corrcoef(noise[:, 0], plain[:, 0])[0, 1] > 0.999


def test_an_example_does_not_depend_on_the_others():
    noise = jax.random.normal(jax.random.key(1), (3, 4))
    keys = jax.random.split(jax.random.key(2), 3)
    whole = sample(velocity, SCHEDULE, noise, Dpm3M(8), keys)
    alone = sample(velocity, SCHEDULE, noise[1:2], Dpm3M(8), keys[1:2])
    np.testing.assert_allclose(whole[1:2], alone, rtol=1e-6)


def test_levels_and_times_belong_together():
    levels = Dpm2M(10).levels
    assert levels[0] == 500 and levels[-2] == pytest.approx(0.03) and levels[-1] == 0
    signal, noise = SCHEDULE.shares(SCHEDULE.time(jnp.asarray(levels[1:-1], jnp.float32)))
    np.testing.assert_allclose(noise / signal, levels[1:-1], rtol=1e-4)


@pytest.mark.parametrize("wrong", [dict(steps=1), dict(least=0.0), dict(least=2.0, most=1.0)])
def test_what_no_sampler_can_do_is_refused(wrong: Any):
    with pytest.raises(ValueError, match="Ddim"):
        Ddim(**wrong)
