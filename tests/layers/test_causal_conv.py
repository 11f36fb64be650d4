"""The depthwise causal convolution: its definition, its mirror image and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ssl_audio.layers.conv import causal_conv


def inputs(length, channels=3, width=4):
    g = np.random.default_rng(length)
    return tuple(
        jnp.asarray(g.standard_normal(shape), jnp.float32)
        for shape in ((2, length, channels), (width, channels), (channels,))
    )


@pytest.mark.parametrize("length", [1, 3, 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_equals_the_sum_over_taps(length, reverse):
    x, kernel, bias = map(np.asarray, inputs(length))
    wanted = np.broadcast_to(bias, x.shape).copy()
    for t in range(length):
        for tap in range(4):
            s = t + (3 - tap) if reverse else t - (3 - tap)
            if 0 <= s < length:
                wanted[:, t] += kernel[tap] * x[:, s]
    got = causal_conv(*map(jnp.asarray, (x, kernel, bias)), reverse=reverse)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)


def test_reverse_is_the_flipped_convolution():
    x, kernel, _ = inputs(9)
    flipped = jnp.flip(causal_conv(jnp.flip(x, 1), kernel), 1)
    np.testing.assert_array_equal(causal_conv(x, kernel, reverse=True), flipped)


def test_gradient_equals_that_of_a_grouped_convolution():
    x, kernel, bias = inputs(9)

    def grouped(x, kernel, bias):
        numbers = ("NWC", "WIO", "NWC")
        y = lax.conv_general_dilated(
            x, kernel[:, None], (1,), [(3, 0)], dimension_numbers=numbers, feature_group_count=3
        )
        return y + bias[None, None]

    got, wanted = (
        jax.grad(lambda *p, f=f: jnp.sum(jnp.sin(f(*p))), argnums=(0, 1, 2))(x, kernel, bias)
        for f in (causal_conv, grouped)
    )
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_low_precision_is_summed_in_float32():
    x, kernel, bias = (a.astype(jnp.bfloat16) for a in inputs(9))
    got = causal_conv(x, kernel, bias)
    exact = causal_conv(*(a.astype(jnp.float32) for a in (x, kernel, bias)))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, exact.astype(jnp.bfloat16))
