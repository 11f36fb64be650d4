"""The gated recurrent unit against its equations, one token after another."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.layers.gru import Gru


def expected(params, x):
    """Follow PyTorch's equations: r, z, then n = tanh(W x + b + r (U h + c))."""

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    size = params["kernel"].shape[0]
    state, states = np.zeros((len(x), size)), []
    for token in x.swapaxes(0, 1):
        given = token @ params["input"]["kernel"] + params["input"]["bias"]
        own = state @ params["kernel"] + params["bias"]
        reset, keep = (
            sigmoid(given[:, part] + own[:, part]) for part in (slice(size), slice(size, 2 * size))
        )
        new = np.tanh(given[:, 2 * size :] + reset * own[:, 2 * size :])
        state = (1 - keep) * new + keep * state
        states.append(state)
    return np.stack(states, axis=1)


def test_both_directions_are_the_equations():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, 4)), jnp.float32)
    params = jax.tree.map(np.asarray, Gru(6).init(jax.random.key(1), x)["params"])
    assert sum(v.size for v in jax.tree.leaves(params)) == 3 * 6 * (4 + 6 + 2)
    for reverse in (False, True):
        found = Gru(6, reverse=reverse).apply({"params": params}, x)
        turn = slice(None, None, -1 if reverse else 1)
        assert np.allclose(found, expected(params, np.asarray(x)[:, turn])[:, turn], atol=1e-6)
