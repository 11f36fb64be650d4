"""The gate on attention's output: open it is plain attention, closed it lets nothing through."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.layers.attention import Attention

X = jax.random.normal(jax.random.key(0), (2, 5, 8))


def test_a_gate_multiplies_channels_before_the_output_map():
    gated, plain = Attention(2, gate=True), Attention(2)
    params = gated.init(jax.random.key(1), X)["params"]
    assert params["gate"]["kernel"].shape == (8, 8) and params["gate"]["bias"].shape == (8,)
    rest = {name: params[name] for name in ("qkv", "out")}
    assert jax.tree.map(jnp.shape, rest) == jax.tree.map(
        jnp.shape, plain.init(jax.random.key(1), X)["params"]
    )
    still = jnp.zeros((8, 8))

    def out(kernel, bias, **other):
        gate = dict(kernel=kernel, bias=jnp.full(8, bias))
        return gated.apply({"params": rest | dict(gate=gate) | other}, X)

    # Wide open, shut, and half open.
    whole = plain.apply({"params": rest}, X)
    np.testing.assert_allclose(out(still, 50.0), whole, atol=1e-6)
    shut = jnp.broadcast_to(rest["out"]["bias"][None, None], X.shape)
    np.testing.assert_allclose(out(still, -50.0), shut, atol=1e-6)
    identity = dict(out=dict(kernel=jnp.eye(8), bias=jnp.zeros(8)))
    mixed = plain.apply({"params": rest | identity}, X)
    np.testing.assert_allclose(out(still, 0.0, **identity), mixed / 2, atol=1e-6)
    # It depends on the token itself, element by element.
    kernel = jax.random.normal(jax.random.key(2), (8, 8))
    share = 1 / (1 + np.exp(-(np.asarray(X) @ np.asarray(kernel) + 0.3)))
    np.testing.assert_allclose(out(kernel, 0.3, **identity), share * mixed, atol=1e-5)
