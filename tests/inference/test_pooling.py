import numpy as np
import pytest

from ssl_audio.inference.pooling import OverlapMean, Pooled, Whole, pooling

FEATURES = np.random.default_rng(0).standard_normal((2, 11, 6)).astype(np.float32)


@pytest.mark.parametrize("pool", ["mean", "rows", "stats"])
def test_pooling_piece_by_piece_is_pooling_at_once(pool):
    pooled = Pooled(3, pool)
    for first, last in ((0, 1), (1, 6), (6, 6), (6, 11)):
        pooled.add(FEATURES[:, first:last])
    assert pooled.result().dtype == np.float32
    np.testing.assert_allclose(pooled.result(), pooling(FEATURES, 3, pool), atol=1e-7)


def test_a_constant_has_no_deviation():
    pooled = Pooled(3, "stats")
    for _ in range(100):
        pooled.add(np.full((1, 7, 3), 1234.567, np.float32))
    np.testing.assert_array_equal(pooled.result()[0, 3:], 0)
    np.testing.assert_allclose(pooled.result()[0, :3], 1234.567)


@pytest.mark.parametrize("starts", [(0,), (0, 2, 4), (0, 2, 4, 5), (0, 1, 2, 3, 7)])
def test_overlapping_windows_are_means_handed_on_in_order(starts):
    """Windows of 4 columns: what each brings is different, also where they overlap."""
    rng = np.random.default_rng(1)
    windows = {s: rng.standard_normal((2, 4, 6)).astype(np.float32) for s in starts}
    total = starts[-1] + 3  # the last column is padding
    sums, counts = np.zeros((2, total + 1, 6)), np.zeros((total + 1, 1))
    overlaps = OverlapMean(whole := Whole())
    for start, window in windows.items():
        sums[:, start : start + 4] += window
        counts[start : start + 4] += 1
        last = start == starts[-1]
        assert overlaps.add(start, window, total if last else None) == last
    np.testing.assert_allclose(whole.result(), (sums / counts[None])[:, :total], atol=1e-6)
