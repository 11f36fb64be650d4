"""Long short-term memory in both directions: padding is not there, and a reversed list is read backwards."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.layers.lstm import Lstm


def apply(layer: Any, params: Any, *given: Any, **options: Any) -> Any:
    return layer.apply(params, *given, **options)


def test_padding_does_not_change_a_state_in_either_direction():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((2, 6, 4)), jnp.float32)
    length = np.array([4, 6])
    valid = jnp.asarray(np.arange(6)[None] < length[:, None])
    params = Lstm(3).init(jax.random.key(0), x)
    for reverse in (False, True):
        layer = Lstm(3, reverse=reverse)
        outputs, (state, cell) = apply(layer, params, x, valid=valid)
        for row, n in enumerate(length):
            alone, (out, c) = apply(layer, params, x[row : row + 1, :n])
            assert np.allclose(outputs[row, :n], alone[0], atol=1e-6), (reverse, row)
            assert np.allclose(state[row], out[0], atol=1e-6) and np.allclose(cell[row], c[0])


def test_backwards_is_forwards_over_the_reversed_list():
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, 5, 4)), jnp.float32)
    params = Lstm(3).init(jax.random.key(0), x)
    ahead, last = apply(Lstm(3), params, x[:, ::-1])
    back, first = apply(Lstm(3, reverse=True), params, x)
    assert np.allclose(back, ahead[:, ::-1], atol=1e-6) and np.allclose(first[0], last[0])
