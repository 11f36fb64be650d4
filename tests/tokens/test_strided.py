"""Strided convolutions over time: sizes as published, and padding that no token hears."""

import jax
import jax.numpy as jnp
import numpy as np

from ssl_audio.data.entries import Group
from ssl_audio.tokens.conv_stem import Strided


def test_sizes_and_padding():
    made = Strided(width=6, channels=4)
    assert made.grid(1250, 128) == (1, 157)  # HTCL: two minutes, 96 ms apart
    spec = jnp.asarray(np.random.default_rng(0).normal(size=(2, 37, 5)), jnp.float32)
    count = jnp.asarray([37, 20], jnp.int32)
    tokens, variables = made.init_with_output(jax.random.key(0), spec, count)
    assert tokens.x.shape == (2, 5, 6) and tokens.grid == made.grid(37, 5) == (1, 5)
    assert tokens.valid.sum(1).tolist() == [5, 3]
    loud = spec.at[1, 20:].set(9.0)
    other = made.apply(variables, loud, count)
    np.testing.assert_array_equal(other.x[1, :3], tokens.x[1, :3])
    assert np.abs(made.apply(variables, loud).x[1, :3] - tokens.x[1, :3]).max() > 1e-3
    # As long as the clip is: what a shorter batch gives.
    alone = made.apply(variables, spec[1:, :20], count[1:])
    np.testing.assert_allclose(alone.x[0], tokens.x[1, :3], atol=1e-6)


def test_groups_are_texts():
    entry, rng = Group("user"), np.random.default_rng(0)
    draw = [
        entry.draw({"id": name, "columns": {"user": user}}, rng)["user"]
        for name, user in (("a", "x"), ("b", "x"), ("c", "y"), ("d", ""), ("e", None))
    ]
    assert draw[0] == draw[1] and len(set(map(int, draw))) == 4
    assert draw[0].dtype == np.int32 == entry.spec()["user"][1]
