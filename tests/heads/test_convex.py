"""BAT's probe: by hand, without special tokens, padding, what starts how."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.heads.probes import Convex
from ssl_audio.structs import Encoded, Tokens

LAYERS, WIDTH = 3, 8
HEAD: Any = Convex(4, prototypes=5)


def encoded(valid=None, specials=True) -> Any:
    x = jax.random.normal(jax.random.key(0), (LAYERS, 2, 6, WIDTH))
    special = jax.random.normal(jax.random.key(1), (LAYERS, 2, 1, WIDTH)) if specials else None
    index = jnp.broadcast_to(jnp.arange(6)[None], (2, 6))
    return Encoded(Tokens(x[-1], index, (2, 3), valid), layers=x, specials=special)


def start():
    return HEAD.init(jax.random.key(2), encoded())["params"]


def by_hand(params, x, special):
    """Return the three values of each prototype, of one clip's tokens [L, N, D] and special [L, D]."""
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    share = np.exp(params["mix"]) / np.exp(params["mix"]).sum()
    z = np.tensordot(share, unit(x), 1)
    w = unit(np.asarray(params["prototypes"]))
    low, high = (z @ w.T).min(0), (z @ w.T).max(0)
    middle = (z @ w.T).mean(0) if special is None else np.tensordot(share, unit(special), 1) @ w.T
    return np.concatenate([low, middle, high])


def test_it_is_the_formula_with_and_without_special_tokens():
    params = start() | dict(mix=jnp.array([0.3, -1.0, 2.0]))
    linear = params["linear"]["dense"]
    for some in (encoded(), encoded(specials=False)):
        found = HEAD.apply({"params": params}, some)
        for clip in range(2):
            special = None if some.specials is None else np.asarray(some.specials)[:, clip, 0]
            values = by_hand(params, np.asarray(some.layers)[:, clip], special)
            wanted = values @ linear["kernel"] + linear["bias"]
            np.testing.assert_allclose(found[clip], wanted, atol=1e-5)
    # Kept features say that there is none by NaN.
    none = dataclasses.replace(encoded(), specials=jnp.full((LAYERS, 2, 1, WIDTH), jnp.nan))
    absent = HEAD.apply({"params": params}, none)
    np.testing.assert_allclose(absent, HEAD.apply({"params": params}, encoded(specials=False)))


def test_one_layer_needs_no_weights_and_length_does_not_count():
    params = start()
    assert params["mix"].tolist() == [1] * LAYERS and params["prototypes"].shape == (5, WIDTH)
    assert 0.01 < float(params["prototypes"].std()) < 0.03
    assert params["linear"]["dense"]["kernel"].shape == (15, 4)
    whole = HEAD.apply({"params": params}, encoded())
    louder = dataclasses.replace(encoded(), layers=9 * encoded().layers)
    np.testing.assert_allclose(HEAD.apply({"params": params}, louder), whole, atol=1e-5)
    longer = params | dict(prototypes=7 * params["prototypes"])
    np.testing.assert_allclose(HEAD.apply({"params": longer}, encoded()), whole, atol=1e-5)
    only = jnp.array([-1e9, 0.0, -1e9])
    one = dataclasses.replace(
        encoded(), layers=encoded().layers[1:2], specials=encoded().specials[1:2]
    )
    np.testing.assert_allclose(
        HEAD.apply({"params": params | dict(mix=only)}, encoded()),
        HEAD.apply({"params": params | dict(mix=jnp.ones(1))}, one),
        atol=1e-5,
    )


@pytest.mark.parametrize("specials", [True, False])
def test_padding_is_no_token(specials):
    params, valid = start(), jnp.array([[1, 1, 0, 1, 1, 0], [1] * 6], bool)
    whole = encoded(valid, specials)

    def logits(noise):
        x = jnp.where(valid[None, ..., None], whole.layers, noise)
        return HEAD.apply({"params": params}, dataclasses.replace(whole, layers=x))

    noise = 9 * jax.random.normal(jax.random.key(3), whole.layers.shape)
    np.testing.assert_allclose(logits(noise), logits(0 * noise), atol=1e-5)
    slope = jax.grad(lambda n: jnp.sum(logits(n) ** 2))(0 * noise)
    assert not slope.any()
    assert np.isfinite(jax.grad(lambda n: jnp.sum(logits(n) ** 2))(noise)).all()
    with pytest.raises(ValueError, match="prototypes is 0"):
        Convex(4, prototypes=0)
