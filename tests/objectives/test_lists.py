"""Skip-gram and the sequence autoencoder against their formulas; padding is nobody's neighbour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.backbones.recurrent import Recurrent
from ssl_audio.heads.sequence import SequenceDecoder
from ssl_audio.objectives.sequence_autoencoder import SequenceAutoencoder
from ssl_audio.objectives.skip_gram import SkipGram
from ssl_audio.structs import Tokens
from ssl_audio.tokens.lookup import Lookup

LISTS = [[1, 2, 3, 4, 5], [6, 7, 6]]


def batch(lists, length):
    items = np.full((len(lists), length), 8)  # padding that is an item, too
    for row, one in enumerate(lists):
        items[row, : len(one)] = one
    return {
        "items": jnp.asarray(items, jnp.int32),
        "items_length": jnp.asarray([len(one) for one in lists], jnp.int32),
    }


def autoencoder(**options):
    return SequenceAutoencoder(
        Lookup(9, 4), Recurrent(5, options.pop("both", True)), SequenceDecoder(6), **options
    )


def test_neighbours_are_those_within_the_window_and_the_list():
    given = batch(LISTS, 6)
    valid = given["items"] != 8
    other, there = SkipGram(Lookup(9, 4), window=2).neighbours(given["items"], valid)
    for row, one in enumerate(LISTS):
        for place in range(6):
            found = sorted(np.asarray(other[row, place])[np.asarray(there[row, place])].tolist())
            around = [i for i in range(place - 2, place + 3) if i != place and 0 <= i < len(one)]
            near = [one[i] for i in around]
            assert found == (sorted(near) if place < len(one) else [])
    reach = [
        int(SkipGram(Lookup(9, 4), window=2).neighbours(given["items"], valid, key)[1].sum())
        for key in jax.random.split(jax.random.key(0), 20)
    ]
    assert min(reach) < int(there.sum()) and max(reach) <= int(there.sum())


def test_items_are_drawn_by_their_counts_to_the_power():
    counts = jnp.asarray([0.0, 1.0, 16.0, 81.0])
    drawn = SkipGram(Lookup(4, 2)).drawn(counts, jax.random.key(0), (20_000,))
    share = np.bincount(np.asarray(drawn), minlength=4) / 20_000
    assert np.allclose(share, np.array([0, 1, 8, 27]) / 36, atol=0.01)


def test_skip_gram_learns_who_stands_beside_whom():
    objective = SkipGram(Lookup(8, 4), window=1, negatives=4)
    given = batch([[0, 1] * 3, [2, 3] * 3, [4, 5] * 3, [6, 7] * 3], 6)
    params, extra = objective.init(jax.random.key(0), given)

    @jax.jit
    def step(params, extra, key):
        def total(params):
            found = objective.loss(params, extra, given, key, train=True)
            return found.total, found

        gradient, found = jax.grad(total, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 2.0 * g, params, gradient), found

    for key in jax.random.split(jax.random.key(1), 200):
        params, found = step(params, extra, key)
        extra = found.extra
    scores = np.asarray(params["items"]["table"] @ params["context"]["table"].T)
    assert (scores.argmax(1) == np.array([1, 0, 3, 2, 5, 4, 7, 6])).all()
    right, pairs = found.metrics["told_apart"]
    assert right / pairs > 0.95
    assert float(extra["counts"].sum()) == 8 + 200 * 24  # each once at first, and all that was seen


@pytest.mark.parametrize("both", [True, False])
def test_padding_and_batch_mates_change_nothing(both):
    objective = autoencoder(both=both)
    params, _ = objective.init(jax.random.key(0), batch(LISTS, 5))
    alone = objective.embed(params, {}, batch([LISTS[1]], 3))
    beside = objective.embed(params, {}, batch(LISTS, 9))
    assert np.allclose(alone[0], beside[1], atol=1e-6)
    key = jax.random.key(0)
    given = [batch(LISTS, n) for n in (5, 8)]
    totals = [objective.loss(params, {}, one, key, train=False).total for one in given]
    assert np.allclose(*totals, atol=1e-6)


def test_the_loss_is_the_cross_entropy_of_items_and_ends():
    objective = autoencoder()
    given = batch(LISTS, 5)
    params, _ = objective.init(jax.random.key(0), given)
    params["output"] = jax.tree.map(jnp.zeros_like, params["output"])
    params["output"]["bias"] = jnp.log(jnp.arange(1.0, 11.0))
    found = objective.loss(params, {}, given, jax.random.key(0), train=False)
    said = [*LISTS[0], 9, *LISTS[1], 9]  # 9: the end
    expected = -np.mean(np.log([(n + 1) / 55 for n in said]))
    assert np.allclose(found.total, expected, atol=1e-6)
    assert found.metrics["accuracy"] == (2, 10)  # the end is the likeliest everywhere


def test_what_comes_later_is_not_seen_by_the_decoder():
    objective = autoencoder()
    given = batch([[1, 2, 3, 4]], 4)
    params, _ = objective.init(jax.random.key(0), given)
    tokens, encoded = objective._encoded(params, given)

    def out(x):
        x = objective._before(params, Tokens(x, tokens.index, tokens.grid), None)
        return objective.decoder.apply({"params": params["decoder"]}, encoded, x)[0]

    moved = jax.jacobian(out)(tokens.x)[:, :, 0]  # [places, H, N, D]
    seen = np.abs(np.asarray(moved)).max((1, 3)) > 0
    assert (seen == np.tril(np.ones((5, 4), bool), -1)).all()


def test_few_false_items_stand_for_all():
    given = batch(LISTS, 5)
    all_of, some = autoencoder(), autoencoder(sampled=4000)
    params, _ = all_of.init(jax.random.key(0), given)
    params["output"] = jax.tree.map(lambda x: 30 * x, params["output"])
    key = jax.random.key(2)
    totals = [one.loss(params, {}, given, key, train=True).total for one in (all_of, some)]
    assert np.allclose(*totals, rtol=0.02) and not np.allclose(*totals, rtol=1e-6)
    exact = some.loss(params, {}, given, key, train=False).total  # judged on all
    assert np.allclose(exact, totals[0], atol=1e-6)


def test_hidden_inputs_are_drawn_in_training_only():
    given = batch(LISTS, 5)
    objective = autoencoder(drop=1.0)
    params, _ = objective.init(jax.random.key(0), given)

    def gradient(train):
        def total(params):
            return objective.loss(params, {}, given, jax.random.key(0), train=train).total

        return float(jnp.abs(jax.grad(total)(params)["hidden"]).max())

    assert gradient(True) > 0 and gradient(False) == 0
