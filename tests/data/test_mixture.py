import numpy as np
import pytest

from ssl_audio.data import mixture
from ssl_audio.data.clip_columns import distinct
from ssl_audio.data.mixture import Draws


def balanced(*labels):
    """Return the weights of the clips of some sources with these labels."""
    return mixture.balanced([(codes, values) for values, codes in map(distinct, labels)])


def test_each_pass_visits_every_clip_once_in_a_new_order():
    draws = Draws((5, 8), seed=3)
    first, second = ([draws[k] for k in range(13 * p, 13 * (p + 1))] for p in (0, 1))
    assert sorted(first) == sorted(second) == list(range(13))
    assert first != second != sorted(second)
    assert [Draws((5, 8), seed=4)[k] for k in range(13)] != first


def test_a_draw_depends_on_its_position_alone():
    forward = [Draws((7, 9), (0.3, 0.7), seed=1)[k] for k in range(3000)]
    again = Draws((7, 9), (0.3, 0.7), seed=1)
    assert [again[k] for k in reversed(range(3000))] == forward[::-1]


def test_without_shuffling_the_order_is_the_sources():
    draws = Draws((2, 3), shuffle=False)
    assert [draws[k] for k in range(7)] == [0, 1, 2, 3, 4, 0, 1]


@pytest.mark.parametrize("shuffle", [True, False])
def test_weights_hold_and_each_source_is_visited_evenly(shuffle):
    sizes, weights = (10, 50, 3), (1.0, 2.0, 5.0)
    draws = Draws(sizes, weights, seed=0, shuffle=shuffle)
    drawn = np.array([draws[k] for k in range(8192)])
    source = np.searchsorted(np.cumsum(sizes), drawn, "right")
    np.testing.assert_array_equal(np.bincount(source), [1024, 2048, 5120])
    for start, size in zip((0, 10, 60), sizes, strict=True):
        visits = np.bincount(drawn, minlength=63)[start : start + size]
        assert np.ptp(visits) <= 1
    if not shuffle:
        assert (np.bincount(source[:80]) == [10, 20, 50]).all()


def test_a_very_rare_source_still_gets_its_share():
    draws = Draws((4, 4, 4), (0.2132, 0.0002, 0.8506))
    drawn = [draws[k] for k in range(40_000)]
    rare = [clip for clip in drawn if 4 <= clip < 8]
    assert len(rare) == pytest.approx(40_000 * 0.0002 / 1.064, abs=2)
    assert sorted(rare[:4]) == sorted(rare[4:8]) == [4, 5, 6, 7]


def test_balanced_weights_follow_the_rule():
    weights = balanced([0, 0, 0, (0, 1), None])
    common, rare = 1000 / 4.01, 1000 / 1.01
    np.testing.assert_allclose(weights, [common, common, common, common + rare, 0])
    # Clips that are known to have no label are trained on, too.
    none = 1000 / 2.01
    np.testing.assert_allclose(
        balanced([(0,), (), (), None, (0, 1)]), [1000 / 2.01, none, none, 0, 1000 / 2.01 + rare]
    )


def test_balanced_draws_make_rare_labels_as_frequent_as_common_ones():
    labels = [0] * 90 + [1] * 10
    draws = Draws((100,), chances=balanced(labels), seed=0)
    drawn = [labels[draws[k]] for k in range(4000)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.03)
    other = Draws((100,), chances=balanced(labels), seed=1)
    assert [labels[other[k]] for k in range(4000)] != drawn


def test_faulty_weights_are_refused():
    with pytest.raises(ValueError, match="2 positive numbers"):
        Draws((1, 1), (1.0, 0.0))
    with pytest.raises(ValueError, match="no clip has a label"):
        balanced([None, ()])
