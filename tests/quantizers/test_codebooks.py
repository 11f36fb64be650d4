"""Codes: nearest entries, k-means, moving averages, Gumbel draws, sums of several codebooks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.quantizers import codebooks
from ssl_audio.quantizers.multi_codebook import MultiCodebook


def test_nearest_and_closest_are_brute_force():
    rng = np.random.default_rng(0)
    x, book = rng.normal(size=(2, 5, 3)), rng.normal(size=(7, 3))
    distance = np.linalg.norm(x[:, :, None] - book, axis=-1)
    cosine = (x @ book.T) / np.linalg.norm(book, axis=-1)
    x, book = jnp.asarray(x, jnp.float32), jnp.asarray(book, jnp.float32)
    assert np.array_equal(codebooks.nearest(x, book), distance.argmin(-1))
    assert np.array_equal(codebooks.closest(x, book), cosine.argmax(-1))


def test_perplexity_counts_codes_in_use():
    even = codebooks.usage(jnp.asarray([[0, 1], [2, 3]]), 8)
    assert np.allclose(even, [0.25] * 4 + [0] * 4)
    assert float(codebooks.perplexity(even)) == pytest.approx(4, rel=1e-4)


def test_kmeans_of_a_model_in_bfloat16_counts_beyond_256():
    """A count kept in bfloat16 stops at 256, and a sum of threes at 1024: their mean would be 4."""
    x = jnp.repeat(jnp.array([[3.0, 0.0], [-1.0, 0.0]], jnp.bfloat16), 2048, axis=0)
    found = codebooks.kmeans(jax.random.key(0), x, 2)
    assert np.allclose(np.sort(np.asarray(found, np.float32)[:, 0]), [-1, 3], atol=0.01)
    assert codebooks.dot_kmeans(jax.random.key(1), x, 2)[0].dtype == jnp.float32


def test_kmeans_finds_what_is_apart():
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [9, 0], [0, 9]])
    x = np.repeat(centres, 20, axis=0) + rng.normal(0, 0.1, (60, 2))
    x = jnp.asarray(rng.permutation(x), jnp.float32)
    found = codebooks.kmeans(jax.random.key(1), x, 3)
    found = np.asarray(found)[np.argsort(np.asarray(found) @ [1, 2])]
    assert np.allclose(found, centres, atol=0.2)
    with pytest.raises(ValueError, match="60 vectors are less than 61 codes"):
        codebooks.kmeans(jax.random.key(0), x, 61)


def test_a_codebook_moves_only_where_it_is_used():
    book = codebooks.unit(jnp.asarray([[1.0, 0], [0, 1], [1, 1]]))
    z = codebooks.unit(jnp.asarray([[1.0, 0.2], [1, 0.4]]))
    moved = codebooks.moved(book, z, jnp.asarray([0, 0]), 0.9)
    assert np.array_equal(moved[1:], book[1:])
    mean = codebooks.unit(z.mean(0))
    assert np.allclose(moved[0], codebooks.unit(0.9 * book[0] + 0.1 * mean), atol=1e-6)
    gradient = jax.grad(lambda z: codebooks.straight_through(z, book[:2][None])[0, 0, 1])(z[None])
    assert np.array_equal(gradient, [[[0, 1], [0, 0]]])


def test_random_projection_uses_its_codes_if_patches_are_standardised():
    rng = np.random.default_rng(0)
    loudness = rng.normal(-5, 3, (1, 400, 1))  # what most patches differ in
    x = jnp.asarray(loudness + rng.normal(size=(1, 400, 64)), jnp.float32)
    used = {}
    for standardise in (True, False):
        module = codebooks.RandomProjection(codes=32, width=8, standardise=standardise)
        codes, _ = module.init_with_output(jax.random.key(0), x)
        used[standardise] = float(codebooks.perplexity(codebooks.usage(codes, 32)))
    assert used[True] > 20 > 2 * used[False]


def test_gumbel_draws_in_training_and_takes_the_best_otherwise():
    module = codebooks.Gumbel(groups=2, codes=4, width=6)
    x = jax.random.normal(jax.random.key(0), (2, 3, 5))
    (fixed, hard), variables = module.init_with_output(jax.random.key(1), x)
    assert fixed.shape == (2, 3, 6) and hard.shape == (2, 3, 2, 4)
    assert np.array_equal(hard.sum(-1), np.ones((2, 3, 2))) and set(np.unique(hard)) == {0, 1}
    parts = np.asarray(fixed).reshape(-1, 2, 3)
    books = np.asarray(variables["params"]["book"])
    assert all((books[q] == part[q]).all(-1).any() for part in parts for q in range(2))

    # To the last bit, or negatives of the same code would not be known as such.
    drawn = jax.jit(lambda key: module.apply(variables, x, key, 2.0)[0])
    parts = np.concatenate(
        [np.asarray(drawn(jax.random.key(i))).reshape(-1, 2, 3) for i in range(9)]
    )
    assert all((books[q] == part[q]).all(-1).any() for part in parts for q in range(2))

    def total(params, key):
        return jnp.sum(module.apply({"params": params}, x, key, 2.0)[0] ** 2)

    gradient = jax.grad(total)(variables["params"], jax.random.key(2))
    assert float(jnp.abs(gradient["choose"]["kernel"]).max()) > 0
    with pytest.raises(ValueError, match="width 5 is not divisible by 2"):
        codebooks.Gumbel(groups=2, width=5)


def test_search_improves_codes_and_decoding_is_a_sum():
    module = MultiCodebook(books=4, codes=8, width=6)
    x = jax.random.normal(jax.random.key(0), (30, 6))
    variables = module.init(jax.random.key(1), x)

    @jax.jit
    def found(x):
        codes = [module.apply(variables, x, n, method="encode") for n in (0, 1, 3)]
        return codes, [module.apply(variables, c, method="decode") for c in codes]

    codes, decoded = found(x)
    errors = [float(jnp.mean((d - x) ** 2)) for d in decoded]
    assert errors[2] <= errors[1] < errors[0]
    books = np.asarray(variables["params"]["centers"])
    direct = sum(books[q][np.asarray(codes[1])[:, q]] for q in range(4))
    assert np.allclose(decoded[1], direct, atol=1e-5)
    with pytest.raises(ValueError, match="books is 3; wanted a power of 2"):
        MultiCodebook(books=3)
