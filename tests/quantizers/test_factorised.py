"""DAC's quantizer: codes and losses by loops, what gradients reach, fewer books for some clips."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.quantizers.factorised import Factorised

MADE = Factorised(books=3, codes=8, width=5, inner=2)
X = jax.random.normal(jax.random.key(1), (4, 6, 5))


@pytest.fixture(scope="module")
def params():
    params = MADE.init(jax.random.key(0), X)["params"]
    # Lengths that are not those of the directions, as after training.
    return jax.tree_util.tree_map_with_path(
        lambda path, v: v * (1.5 if path[-1].key == "gain" else 1), params
    )


def learn(params, made=MADE, x=X, train=False, key=2) -> Any:
    return made.apply({"params": params}, x, {}, jax.random.key(key), train=train, method="learn")


def by_loops(params):
    """Return codes, quantised vectors and both losses of each clip and book, one vector at a time."""

    def project(at, x):
        part = {k: np.asarray(v, np.float64) for k, v in params[at].items()}
        direction = part["kernel"][0]
        return x @ (direction / np.sqrt((direction**2).sum(0)) * part["gain"]) + part["bias"]

    codes, vectors = np.zeros((4, 6, 3), int), np.zeros((3, 4, 6, 5))
    losses = np.zeros((4, 3))
    for b, n in np.ndindex(4, 6):
        left = np.asarray(X[b, n], np.float64)
        for q in range(3):
            low, book = project(f"into_{q}", left), np.asarray(params["book"][q], np.float64)
            cosines = [e @ low / np.linalg.norm(e) / np.linalg.norm(low) for e in book]
            codes[b, n, q] = code = int(np.argmax(cosines))
            vectors[q, b, n] = project(f"out_{q}", book[code])
            left = left - vectors[q, b, n]
            losses[b, q] += np.mean((low - book[code]) ** 2) / 6
    return codes, vectors, losses


def test_codes_vectors_and_losses_are_those_of_loops(params):
    codes, vectors, losses = by_loops(params)
    assert len(np.unique(codes)) > 4
    weights = {"params": params}
    found: Any = MADE.apply(weights, X)
    assert np.array_equal(found, codes)
    for books in (1, 2, 3):
        found: Any = MADE.apply(weights, jnp.asarray(codes[..., :books]), method="vectors")
        np.testing.assert_allclose(found, vectors[:books].sum(0), rtol=1e-4, atol=1e-5)
    found = learn(params)
    assert np.array_equal(found.codes, codes) and found.renewed is None and found.state == {}
    np.testing.assert_allclose(found.vectors, vectors.sum(0), rtol=1e-4, atol=1e-5)
    wanted = losses.sum(1).mean()
    for name in ("commitment", "codebook"):
        np.testing.assert_allclose(found.metrics[name], wanted, rtol=1e-4)
    np.testing.assert_allclose(found.loss, 0.25 * wanted + wanted, rtol=1e-4)


@pytest.mark.parametrize(
    ("weights", "moved"),
    [
        (dict(commitment=0.0), {"book"}),
        (dict(codebook=0.0), {"into_0", "into_1", "into_2", "out_0", "out_1"}),
    ],
)
def test_each_loss_moves_its_own_side(params, weights, moved):
    made = MADE.copy(**weights)
    slopes = jax.grad(lambda p: learn(p, made).loss)(params)
    found = {name for name, part in slopes.items() if any(map(np.any, jax.tree.leaves(part)))}
    assert found == moved


def test_vectors_have_the_gradient_of_what_they_stand_for(params):
    def sum_of(params, x):
        return jnp.sum(learn(params, x=x).vectors * jnp.arange(5.0)[None, None])

    slopes, to_x = jax.grad(sum_of, (0, 1))(params, X)
    assert not slopes["book"].any() and to_x.any() and slopes["into_0"]["kernel"].any()


def test_some_clips_learn_with_fewer_books(params):
    _, vectors, losses = by_loops(params)
    sums = np.cumsum(vectors, 0)

    def used(found):
        """Return with how many books each clip was quantised."""
        far = np.abs(np.asarray(found.vectors)[None] - sums).max((2, 3))
        assert far.min(0).max() < 1e-4
        return far.argmin(0) + 1

    half = MADE.copy(drop=0.5)
    assert used(learn(params, half)).tolist() == [3, 3, 3, 3]
    counts = set()
    for key in range(8):
        found = learn(params, half, train=True, key=key)
        books = used(found)
        assert books[2:].tolist() == [3, 3]
        counts |= set(books[:2].tolist())
        wanted = np.mean([losses[b, :q].sum() for b, q in enumerate(books)])
        np.testing.assert_allclose(found.metrics["codebook"], wanted, rtol=1e-4)
    assert counts == {1, 2, 3}


def test_a_share_is_one():
    with pytest.raises(ValueError, match="drop is 1.5; wanted 0 to 1"):
        Factorised(drop=1.5)
