"""SGD with momentum, as PyTorch's, and LARC: the scale of each gradient, of each stacked layer by itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_audio.objectives.base import Phase
from ssl_audio.train.sgd import Sgd

SHAPES = {"encoder": {"layers": {"kernel": (3, 4, 5)}}, "head": {"kernel": (5, 2), "bias": (2,)}}


def arrays(seed) -> Any:
    rng = np.random.default_rng(seed)
    shapes, tree = jax.tree.flatten(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    return tree.unflatten([jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes])


def after(optim, params, gradients) -> Any:
    tx = optim.make((Phase(),), 100, None)["main"]
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params, value=1.0)
        params = optax.apply_updates(params, updates)
    return params


def by_hand(p, gradients, lr, momentum, decay=0.0, trust=0.0):
    """Return one array after some steps: PyTorch's SGD, its gradient scaled by LARC first."""
    p, m = np.asarray(p, np.float64), 0.0
    for g in gradients:
        g = np.asarray(g, np.float64) + decay * p
        sizes = np.linalg.norm(p), np.linalg.norm(g)
        g = g * (trust * sizes[0] / sizes[1] if trust and min(sizes) else 1)
        m = momentum * m + g
        p = p - lr * m
    return p


def test_momentum_and_coupled_decay():
    params, gradients = arrays(0), [arrays(n) for n in (1, 2, 3)]
    found = after(Sgd(lr=0.1, momentum=0.8, weight_decay=0.3, coupled=True), params, gradients)
    want = by_hand(
        params["head"]["kernel"], [g["head"]["kernel"] for g in gradients], 0.1, 0.8, 0.3
    )
    np.testing.assert_allclose(found["head"]["kernel"], want, rtol=1e-5)
    want = by_hand(params["head"]["bias"], [g["head"]["bias"] for g in gradients], 0.1, 0.8)
    np.testing.assert_allclose(found["head"]["bias"], want, rtol=1e-5)


def test_every_array_and_every_stacked_layer_is_scaled_to_its_own_norm():
    params, gradients = arrays(0), [arrays(n) for n in (1, 2, 3)]
    found = after(Sgd(lr=0.5, momentum=0.9, trust=0.01), params, gradients)
    for name in ("kernel", "bias"):
        some = [g["head"][name] for g in gradients]
        want = by_hand(params["head"][name], some, 0.5, 0.9, trust=0.01)
        np.testing.assert_allclose(found["head"][name], want, rtol=1e-5)
    layers = lambda tree: tree["encoder"]["layers"]["kernel"]  # noqa: E731
    for n in range(3):
        want = by_hand(layers(params)[n], [layers(g)[n] for g in gradients], 0.5, 0.9, trust=0.01)
        np.testing.assert_allclose(layers(found)[n], want, rtol=1e-5)


def test_where_a_norm_is_zero_the_gradient_stays_as_it_is():
    zero = jax.tree.map(jnp.zeros_like, arrays(0))
    found = after(Sgd(lr=1.0, momentum=0.0, trust=0.01), zero, [arrays(1)])
    np.testing.assert_allclose(found["head"]["bias"], -np.asarray(arrays(1)["head"]["bias"]))
    same = after(Sgd(lr=1.0, trust=0.01), arrays(0), [zero])
    assert all(map(np.array_equal, jax.tree.leaves(same), jax.tree.leaves(arrays(0))))


@pytest.mark.parametrize("wrong", [dict(momentum=1.0), dict(trust=-0.1), dict(lr=-1.0)])
def test_options_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sgd(**(dict(lr=0.1) | wrong))
