"""K-means by dot products: assignments, means of length 1, what is not valid, empty clusters, the seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.quantizers import codebooks
from ssl_audio.quantizers.codebooks import dot_kmeans


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    centres = np.eye(4, 6)[rng.integers(0, 4, 60)]
    return jnp.asarray(centres + 0.1 * rng.standard_normal((60, 6)), jnp.float32)


def objective(x, book, which):
    return float(np.sum(np.asarray(book)[np.asarray(which)] * np.asarray(x)))


def test_every_vector_goes_to_the_greatest_dot_product_and_books_are_means(x):
    book, which = dot_kmeans(jax.random.key(1), x, 4, 30)
    np.testing.assert_array_equal(which, np.argmax(np.asarray(x) @ np.asarray(book).T, 1))
    for n in range(4):
        mean = np.asarray(x)[np.asarray(which) == n].mean(0)
        np.testing.assert_allclose(book[n], mean / np.linalg.norm(mean), atol=1e-5)
    again = dot_kmeans(jax.random.key(1), x, 4, 30)
    assert all(map(np.array_equal, again, (book, which)))


def test_of_unit_vectors_the_objective_never_falls(x):
    unit = codebooks.unit(x)
    found = [
        objective(unit, *dot_kmeans(jax.random.key(3), unit, 4, iterations))
        for iterations in (1, 3, 9)
    ]
    assert all(b >= a - 1e-4 for a, b in zip(found, found[1:], strict=False)), found


def test_without_iterations_the_book_is_vectors_as_long_as_they_are(x):
    book, _ = dot_kmeans(jax.random.key(2), x, 5, 0)
    rows = {tuple(row) for row in np.asarray(x).tolist()}
    assert len({tuple(row) for row in np.asarray(book).tolist()} & rows) == 5


def test_what_is_not_valid_has_no_say_and_no_cluster(x):
    valid = np.arange(60) % 2 == 0
    wild = jnp.where(jnp.asarray(valid)[:, None], x, 1e3)
    book, which = dot_kmeans(jax.random.key(1), x, 3, 5, jnp.asarray(valid))
    other, same = dot_kmeans(jax.random.key(1), wild, 3, 5, jnp.asarray(valid))
    np.testing.assert_array_equal(book, other)
    np.testing.assert_array_equal(which, same)
    assert (np.asarray(which)[~valid] == -1).all() and (np.asarray(which)[valid] >= 0).all()


def test_an_entry_that_loses_all_stays(x):
    doubled = jnp.concatenate([x[:1], 2 * x[:1], 3 * x[:1]])  # all go to the longest
    book, which = dot_kmeans(jax.random.key(0), doubled, 3, 1)
    assert len(set(np.asarray(which).tolist())) == 1
    lengths = sorted(np.linalg.norm(np.asarray(book), axis=1))
    one = float(np.linalg.norm(np.asarray(x[0])))
    np.testing.assert_allclose(lengths, sorted([1.0, one, 2 * one]), rtol=1e-5)


def test_blocks_change_nothing(x, monkeypatch):
    book, which = dot_kmeans(jax.random.key(1), x, 4, 3)
    monkeypatch.setattr(codebooks, "_BLOCK", 7)
    other, same = dot_kmeans(jax.random.key(1), x, 4, 3)
    np.testing.assert_allclose(book, other, atol=1e-6)
    np.testing.assert_array_equal(which, same)


def test_more_codes_than_vectors_are_refused(x):
    with pytest.raises(ValueError, match="60 vectors are less than 61 codes"):
        dot_kmeans(jax.random.key(0), x, 61)
