"""Attentive and prototypical heads: padding, closed forms, starting values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import losses
from ssl_audio.heads.probes import Attentive, Prototypical, directions
from ssl_audio.structs import Encoded, Tokens

ROWS, COLUMNS, WIDTH = 2, 3, 8


def encoded(x, valid=None, special=None, columns=COLUMNS):
    index = jnp.broadcast_to(jnp.arange(x.shape[1])[None], x.shape[:2])
    return Encoded(Tokens(x, index, (ROWS, columns), valid), special)


def draw(columns=COLUMNS):
    return jax.random.normal(jax.random.key(0), (2, ROWS * columns, WIDTH))


@pytest.mark.parametrize(
    "head",
    [Attentive(5, heads=4), Prototypical(5, prototypes=3)],
    ids=["attentive", "prototypical"],
)
def test_padding_changes_nothing_and_gets_no_gradient(head):
    x = draw()
    params = head.init(jax.random.key(1), encoded(x))
    wide = jnp.pad(x.reshape(2, ROWS, COLUMNS, WIDTH), ((0, 0), (0, 0), (0, 2), (0, 0)))
    valid = jnp.broadcast_to((jnp.arange(COLUMNS + 2) < COLUMNS)[None, None], wide.shape[:3])

    def logits(noise):
        filled = jnp.where(valid[..., None], wide, noise)
        flat = filled.reshape(2, -1, WIDTH), valid.reshape(2, -1)
        return head.apply(params, encoded(*flat, columns=COLUMNS + 2))

    noise = 9 * jax.random.normal(jax.random.key(2), wide.shape)
    short = head.apply(params, encoded(x))
    if isinstance(head, Attentive):
        np.testing.assert_allclose(logits(noise), short, atol=1e-5)
    else:  # the last columns' far halves lean on the padding, so they are left out
        assert np.all(logits(noise) <= short + 1e-5)
    np.testing.assert_array_equal(logits(noise), logits(0 * noise))
    slope = jax.grad(lambda n: jnp.sum(logits(n)))(noise)
    assert not np.where(valid[..., None], 0, slope).any()


def test_a_query_of_zero_averages_the_values():
    x = draw()
    params = Attentive(5, heads=2).init(jax.random.key(1), encoded(x))["params"]
    pool = params["pool"] | {"query": jnp.zeros((2, 4))}
    pool["value"] = jnp.eye(WIDTH).reshape(WIDTH, 2, 4)
    mean = x.mean(1)
    scaled = (mean - mean.mean(-1, keepdims=True)) / mean.std(-1, keepdims=True)
    want = scaled @ params["linear"]["dense"]["kernel"] + params["linear"]["dense"]["bias"][None]
    found = Attentive(5, heads=2).apply({"params": params | {"pool": pool}}, encoded(x))
    np.testing.assert_allclose(found, want, atol=1e-4)
    with pytest.raises(ValueError, match="width 8 is not divisible by 3 heads"):
        Attentive(5, heads=3).init(jax.random.key(0), encoded(x))


def test_a_prototype_that_occurs_is_found():
    x, cls = draw(), jnp.ones((2, 1, WIDTH))
    head = Prototypical(2, prototypes=1, upsample=1)
    params = head.init(jax.random.key(1), encoded(x, special=cls))["params"]
    assert params["prototypes"].min() >= 0 and params["prototypes"].max() <= 1
    assert params["bias"].tolist() == [-2, -2] and params["weights"].tolist() == [[1], [1]]
    place = (x - cls)[:, 4]  # clip 0's for class 0, clip 1's for class 1
    found = head.apply({"params": params | {"prototypes": place[:, None]}}, encoded(x, special=cls))
    np.testing.assert_allclose(np.diag(found), 1 / 1.01 - 2, atol=1e-3)
    assert found[0, 1] < found[0, 0] and found[1, 0] < found[1, 1]
    # A negative weight counts as none.
    flat = params | {"weights": -params["weights"]}
    assert head.apply({"params": flat}, encoded(x)).tolist() == [[-2, -2]] * 2
    with pytest.raises(ValueError, match="upsample is 0"):
        Prototypical(2, upsample=0)


def test_orthogonality_by_hand():
    basis = jnp.eye(4)[None, :2] * 50
    assert losses.orthogonality(directions(basis)) == pytest.approx(0, abs=1e-5)
    # All the same: two ones beside the diagonal of each of 3 classes, 12 elements.
    same = jnp.full((3, 2, 4), 7.0)
    assert losses.orthogonality(directions(same)) == pytest.approx(6**0.5 / 12, rel=1e-4)
