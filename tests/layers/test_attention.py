"""The forms of attention: equal values and gradients, memory, choice, errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.layers import attention
from ssl_audio.layers.attention import Attention


def qkv(length=7, dtype=jnp.float32):
    g = np.random.default_rng(0)
    return tuple(jnp.asarray(g.standard_normal((2, length, 3, 4)), dtype) for _ in range(3))


@pytest.mark.parametrize("masked", [False, True])
def test_blockwise_equals_plain(masked):
    """Seven queries, three at a time."""
    valid = jnp.arange(7)[None] < jnp.array([[7], [4]]) if masked else None

    @partial(jax.jit, static_argnums=0)
    def run(form, *operands):
        y, pull = jax.vjp(lambda *x: form(*x, valid), *operands)
        return y, pull(jnp.sin(y))

    got = run(partial(attention.blockwise, block=3), *qkv())
    wanted = run(attention.plain, *qkv())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6), got, wanted)


def test_blockwise_memory_grows_with_the_length_not_its_square():
    def temp(form, length):
        x = jax.ShapeDtypeStruct((1, length, 2, 8), np.float32)
        gradient = jax.grad(lambda *x: jnp.sum(form(*x, None)), argnums=(0, 1, 2))
        return jax.jit(gradient).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    scores = 4 * 2 * 2048**2
    assert temp(attention.plain, 2048) > scores
    assert temp(partial(attention.blockwise, block=64), 2048) < scores / 4


def test_choice(monkeypatch, caplog):
    short, long = qkv(), qkv(attention.LONG)
    choose = attention._choose
    assert choose(*short, None) == "plain" and choose(*long, None) == "blockwise"
    attention._say.cache_clear()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose(*short, None) == "plain", "float32"
    low = qkv(dtype=jnp.bfloat16)
    with caplog.at_level("WARNING"):
        assert [choose(*low, None) for _ in range(2)] == ["plain"] * 2
    (record,) = caplog.records
    assert "not using cuDNN" in record.getMessage()
    monkeypatch.setattr(attention, "cudnn", attention.plain)
    assert choose(*low, None) == "cudnn"


def test_fields_and_errors():
    x = jnp.ones((1, 4, 6))
    for form in ("plain", "blockwise"):
        jax.eval_shape(Attention(2, implementation=form).init, jax.random.key(0), x)
    with pytest.raises(ValueError, match="got implementation 'flash'; wanted one of auto, plain"):
        Attention(2, implementation="flash")
    with pytest.raises(ValueError, match="'cudnn' for float32; wanted bfloat16 or float16"):
        Attention(2, implementation="cudnn").init(jax.random.key(0), x)
