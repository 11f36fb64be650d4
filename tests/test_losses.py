"""Losses against formulas written another way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import losses


def plain_asymmetric(z, y):
    p = 1 / (1 + np.exp(-z.astype(np.float64)))
    absent = np.minimum(1 - p + 0.05, 1)
    present = -np.log(p) * (1 - p)
    return np.where(y > 0, present, -np.log(absent) * (1 - absent) ** 4).mean(-1)


def test_asymmetric_loss_and_its_gradient():
    rng = np.random.default_rng(0)
    z = 3 * rng.standard_normal((4, 6)).astype(np.float32)
    y = (rng.random((4, 6)) < 0.4).astype(np.float32)
    found = losses.asymmetric(jnp.asarray(z), jnp.asarray(y))
    np.testing.assert_allclose(found, plain_asymmetric(z, y), atol=1e-6)
    slope = jax.grad(lambda z: jnp.sum(losses.asymmetric(z, jnp.asarray(y))))(jnp.asarray(z))
    step = 1e-5 * np.eye(z.size).reshape(-1, *z.shape)
    wanted = [(plain_asymmetric(z + s, y) - plain_asymmetric(z - s, y)).sum() / 2e-5 for s in step]
    np.testing.assert_allclose(np.ravel(slope), wanted, atol=1e-5)


def test_easy_negatives_cost_nothing_and_extremes_stay_finite():
    z = jnp.array([[-4.0, -40.0, 40.0, -300.0, 300.0]])
    slope = jax.grad(lambda z: jnp.sum(losses.asymmetric(z, 0 * z)))(z)
    assert np.isfinite(slope).all() and not slope[0, [0, 1, 3]].any()
    assert np.isfinite(jax.grad(lambda z: jnp.sum(losses.asymmetric(z, z * 0 + 1)))(z)).all()


def test_without_powers_and_margin_it_is_the_cross_entropy():
    rng = np.random.default_rng(1)
    z, y = jnp.asarray(rng.standard_normal((2, 3, 5)).astype(np.float32))
    found = losses.asymmetric(z, jnp.float32(y > 0), negative=0.0, positive=0.0, margin=0.0)
    want = losses.sigmoid_cross_entropy(z, jnp.float32(y > 0))
    assert np.asarray(found) == pytest.approx(np.asarray(want), abs=1e-6)
