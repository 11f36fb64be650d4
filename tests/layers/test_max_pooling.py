"""Maxima of windows and over an axis, and their gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.layers.pooling import greatest, max_pooled


@pytest.mark.parametrize(
    "shape, size, stride, around",
    [((7, 8), (2, 2), None, 0), ((7, 6), (3, 3), (2, 2), 1), ((9, 5), (4, 1), None, 0)],
)
def test_values_and_gradients_are_those_of_a_window_reduction(shape, size, stride, around):
    x = np.random.default_rng(0).standard_normal((2, *shape, 3)).astype(np.float32)

    def other(x):
        return nn.max_pool(x, size, stride or size, ((around, around),) * 2)

    weight = np.random.default_rng(1).standard_normal(other(x).shape).astype(np.float32)
    found, back = jax.vjp(lambda x: max_pooled(x, size, stride, around), x)
    want, other_back = jax.vjp(other, x)
    assert np.array_equal(found, want)
    assert np.allclose(back(weight)[0], other_back(weight)[0], atol=1e-6)


def test_a_side_shorter_than_the_window_stays_and_ties_share_the_gradient():
    assert max_pooled(jnp.zeros((1, 1, 6, 1)), (2, 2)).shape == (1, 1, 3, 1)
    gradient = jax.grad(lambda x: jnp.sum(max_pooled(x, (2, 2))))(jnp.ones((1, 2, 2, 1)))
    assert float(gradient.sum()) == 1 and float(gradient.max()) < 1


@pytest.mark.parametrize("axis", [0, 1])
def test_the_gradient_of_a_maximum_goes_to_one_place_however_it_is_compiled(axis):
    x, scale, shift = np.random.default_rng(0).standard_normal((3, 8, 200, 4)).astype(np.float32)

    def loss(x, most=greatest):
        # Compiled without optimisations x * scale + shift is computed twice, and rounded in two ways:
        # the gradient of jnp.max is then infinite.
        return jnp.sum(most(x * scale + shift, axis) ** 2)

    got = jax.jit(jax.grad(loss))(x)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, jax.grad(loss)(x, jnp.max), atol=1e-4)
    assert (np.count_nonzero(got, axis) == 1).all()
