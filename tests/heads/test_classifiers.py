"""Pooling of the fine-tuning head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.heads.classify import Classifier
from ssl_audio.heads.readout import row_statistics
from ssl_audio.structs import Encoded, Tokens

ROWS, COLUMNS, WIDTH = 2, 5, 4


def encoded(x, valid=None):
    flat = x.reshape(len(x), ROWS * COLUMNS, WIDTH)
    index = jnp.broadcast_to(jnp.arange(ROWS * COLUMNS)[None], flat.shape[:2])
    return Encoded(Tokens(flat, index, (ROWS, COLUMNS), valid))


def test_statistics_of_rows_leave_padding_out():
    x = np.asarray(jax.random.normal(jax.random.key(0), (3, ROWS, COLUMNS, WIDTH)))
    valid = np.broadcast_to(np.arange(COLUMNS) < 3, (3, ROWS, COLUMNS))
    found = row_statistics(encoded(x, jnp.asarray(valid.reshape(3, -1))))
    heard = x[:, :, :3]
    want = np.concatenate([heard.mean(2), heard.std(2)], axis=-1).reshape(3, -1)
    np.testing.assert_allclose(found, want, atol=1e-4)


def test_statistics_of_a_constant_have_a_gradient():
    x = jnp.ones((1, ROWS, COLUMNS, WIDTH))
    slope = jax.grad(lambda x: jnp.sum(row_statistics(encoded(x))))(x)
    assert np.isfinite(slope).all()


def test_an_unknown_pool_is_refused():
    with pytest.raises(ValueError, match="pool 'max': wanted grouped or mean, special, stats"):
        Classifier(3, pool="max")
