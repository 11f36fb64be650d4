"""A layer's small parameters are taken out of the stack before its loops read them: on CPUs, and exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.backbones import stack
from ssl_audio.config import build
from ssl_audio.presets import patch_encoders
from ssl_audio.structs import Tokens


@functools.cache
def made(name):
    encoder = build(patch_encoders.encoder(name, "tiny", (2, 3), 4), "backbones")
    x = jax.random.normal(jax.random.key(1), (2, 6, encoder.width))
    params = jax.jit(lambda x: encoder.init(jax.random.key(0), tokens(x)))(x)["params"]
    return encoder, params, x


def tokens(x):
    index = jnp.broadcast_to(jnp.arange(6, dtype=jnp.int32), (2, 6))
    return Tokens(x, index, (3, 2))


def program(name, remat="dots"):
    encoder, params, x = made(name)
    encoder = encoder.copy(remat=remat)

    def loss(params, x):
        return jnp.sum(jnp.sin(encoder.apply({"params": params}, tokens(x)).tokens.x))

    return jax.jit(jax.value_and_grad(loss, (0, 1))).lower(params, x), params, x


@pytest.mark.parametrize("name", ["ssamba", "ssamba_rms"])
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_values_and_gradients_are_the_same(monkeypatch, name, remat):
    lowered, *operands = program(name, remat)
    assert "stablehlo.case" in lowered.as_text()
    got = lowered.compile()(*operands)
    monkeypatch.setattr(stack, "materialized", lambda params: params)
    lowered, *operands = program(name, remat)
    assert "stablehlo.case" not in lowered.as_text()
    wanted = lowered.compile()(*operands)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        size = np.abs(other).max() + 1e-30
        np.testing.assert_allclose(one / size, other / size, rtol=0, atol=2e-6)


def test_the_compiler_does_not_see_through_it(monkeypatch):
    after = program("ssamba")[0].compile().as_text()
    monkeypatch.setattr(stack, "materialized", lambda params: params)
    before = program("ssamba")[0].compile().as_text()
    assert " conditional(" in after and " conditional(" not in before


def test_other_devices_are_left_alone(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "stablehlo.case" not in program("ssamba")[0].as_text()


def test_large_parameters_and_vectors_stay_where_they_are(monkeypatch):
    seen = []
    monkeypatch.setattr(stack, "_materialized", lambda arrays: seen.extend(arrays) or arrays)
    small, large = jnp.ones((1, stack.SMALL // 4)), jnp.ones((1, stack.SMALL // 4 + 1))
    stack.materialized({"a": large, "b": small, "c": jnp.ones(2)})
    assert [x.size for x in seen] == [small.size]
    assert stack.materialized({"a": large}) == {"a": large} and len(seen) == 1
