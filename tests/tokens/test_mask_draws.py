import functools
import random

import jax
import numpy as np
import pytest

from ssl_audio.tokens.masking import Cluster, Groups, Random


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def compiled(masking, key, batch, grid):
    return masking(key, batch, grid)


def draw(masking, batch, grid, seed=0):
    return np.asarray(compiled(masking, jax.random.key(seed), batch, grid))


@pytest.mark.parametrize("grid, count", [((8, 16), 60), ((2, 3), 4), ((5, 4), 1)])
def test_cluster_is_sorted_and_distinct_and_spares_the_corners(grid, count):
    index = draw(Cluster(count), 300, grid)
    assert index.shape == (300, count) and index.dtype == np.int32
    assert (np.diff(index, axis=1) > 0).all()
    assert index.min() >= 1 and index.max() <= grid[0] * grid[1] - 2


def test_cluster_draws_like_the_loop_it_replaces():
    rows, columns, count, sizes = 4, 5, 9, (2, 3)
    generator, seen = random.Random(0), np.zeros((3000, rows * columns))
    for clip in seen:
        side, hidden = generator.choice(sizes), set()
        while len(hidden) <= count:
            corner = generator.randrange(rows * columns)
            for i in range(side):
                for j in range(side):
                    if 0 < corner + columns * i + j < rows * columns:
                        hidden.add(corner + columns * i + j)
        clip[sorted(hidden)[:count]] = 1
    ours = np.zeros((8000, rows * columns))
    np.put_along_axis(ours, draw(Cluster(count, sizes), 8000, (rows, columns)), 1, axis=1)
    # Singles and pairs of positions; the standard error of a difference is at most 0.011.
    assert np.abs(ours.mean(0) - seen.mean(0)).max() < 0.045
    assert np.abs(ours.T @ ours / len(ours) - seen.T @ seen / len(seen)).max() < 0.045


def test_cluster_sides_are_equally_likely():
    # Squares of side 1 on a wide grid almost never give three hidden patches side by side.
    hidden = np.zeros((1000, 1600))
    np.put_along_axis(hidden, draw(Cluster(8, (1, 3)), 1000, (40, 40)), 1, axis=1)
    hidden = hidden.reshape(-1, 40, 40)
    threes = (hidden[:, :, :-2] * hidden[:, :, 1:-1] * hidden[:, :, 2:]).any((1, 2))
    assert threes.mean() == pytest.approx(0.5, abs=0.06)


def test_random_is_uniform_without_replacement():
    index = draw(Random(5), 2000, (3, 4))
    assert index.shape == (2000, 5) and index.dtype == np.int32
    assert all(len(set(row)) == 5 for row in index.tolist())
    for column in (index, index[:, 0]):  # any order is as likely: the first is uniform, too
        share = np.bincount(column.ravel(), minlength=12) / 2000
        np.testing.assert_allclose(share, column.size / 2000 / 12, atol=0.055)
    assert (np.diff(index, axis=1) < 0).any()


@pytest.mark.parametrize("kind", [Cluster, Random])
def test_keys_decide_and_clips_differ(kind):
    first, again, other = (draw(kind(20), 4, (8, 8), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len({tuple(sorted(row)) for row in first.tolist()}) == 4


def test_counts():
    assert Cluster(400).number((8, 64)) == 400
    assert Cluster(400).number((8, 16)) == 126
    assert Random(400).number((8, 16)) == 128
    assert Cluster(0.75).number((8, 64)) == 384
    assert Random(0.99).number((2, 5)) == 10
    assert draw(Cluster(400), 2, (8, 16)).tolist() == [list(range(1, 127))] * 2
    assert sorted(draw(Random(400), 1, (1, 6))[0].tolist()) == list(range(6))


@pytest.mark.parametrize("kind", [Cluster, Random])
@pytest.mark.parametrize("count", [0, -3, 0.0, 1.0, 1.5, True])
def test_counts_that_make_no_sense_are_refused(kind, count):
    with pytest.raises(ValueError, match="masking: count is"):
        kind(count)


def test_grids_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="1 x 2 leaves nothing to hide"):
        Cluster(3).number((1, 2))
    with pytest.raises(ValueError, match="nothing to hide with count=0.1"):
        Random(0.1).number((1, 4))
    with pytest.raises(ValueError, match="sizes"):
        Cluster(3, sizes=())


def test_groups_of_adjacent_tokens_are_hidden_together():
    grid, masking = (1, 250), Groups(count=0.75, size=2)
    hidden = np.asarray(jax.jit(lambda key: masking(key, 64, grid))(jax.random.key(0)))
    assert hidden.shape == (64, 188) == (64, masking.number(grid))  # 62 visible, as published
    shown = np.array([np.setdiff1d(np.arange(250), row) for row in hidden])
    assert shown.shape == (64, 62)
    assert (shown[:, 0::2] % 2 == 0).all() and (shown[:, 1::2] == shown[:, 0::2] + 1).all()
    share = np.bincount(shown.ravel(), minlength=250) / 64
    assert share.max() < 0.55 and abs(share.mean() - 62 / 250) < 1e-9 and (share > 0).all()
    # A number that cuts a group, and a grid that does.
    odd = np.asarray(Groups(count=4, size=3)(jax.random.key(1), 8, (1, 7)))
    for row in odd:
        assert len(set(row)) == 4 and row.max() < 7
    with pytest.raises(ValueError, match="size is 0; wanted 1 or more"):
        Groups(count=3, size=0)
