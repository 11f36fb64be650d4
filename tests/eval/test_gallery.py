"""Recall, rank and precision in a gallery against plain loops; shares of branches; merged queries."""

import dataclasses

import numpy as np
import pytest

from ssl_audio.eval import gallery
from ssl_audio.inference import branches


def test_scores_by_hand():
    scores = np.array([[3.0, 2, 1], [3, 1, 2], [1, 2, 3]])
    groups = np.array([0, 0, 1])
    found = gallery.gallery(scores, groups[:, None] == groups[None])
    assert found["R@1"] == pytest.approx(2 / 3) and found["R@5"] == 1
    assert found["median_rank"] == 1  # of the ranks 1, 3, 1
    # First ten of three: 2, 2 and 1 of them fit.
    assert found["precision@10"] == pytest.approx((2 + 2 + 1) / 9) and found["hit@10"] == 1
    first, second, third = 1 / np.log2([2, 3, 4])
    want = [1, (first + third) / (first + second), 1]
    assert found["NDCG@10"] == pytest.approx(np.mean(want))


def test_a_clip_does_not_find_itself():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 15)
    z = np.eye(4)[groups] + 0.3 * rng.normal(size=(60, 4))
    scores = z @ z.T
    found = gallery.gallery(scores, groups[:, None] == groups[None], itself=True)
    right = []
    for i in range(60):
        others = sorted((j for j in range(60) if j != i), key=lambda j: -scores[i, j])
        right.append(np.mean([groups[j] == groups[i] for j in others[:10]]))
    assert found["precision@10"] == pytest.approx(np.mean(right)) and "R@1" not in found
    assert 0.25 < found["precision@10"] < 1


def test_perfect_random_and_constant():
    groups = np.arange(200) % 10
    fits = groups[:, None] == groups[None]
    assert gallery.gallery(np.eye(200), fits)["R@1"] == 1
    random = gallery.gallery(np.random.default_rng(0).normal(size=(200, 200)), fits)
    assert random["R@10"] == pytest.approx(0.05, abs=0.04)
    assert random["precision@10"] == pytest.approx(0.1, abs=0.03)
    constant = gallery.gallery(np.zeros((200, 200)), None)
    assert constant["R@10"] == pytest.approx(10 / 200) and constant["median_rank"] == 100  # chance
    assert set(constant) == {"R@1", "R@5", "R@10", "median_rank"}


def test_one_index_serves_every_share():
    rng = np.random.default_rng(1)

    def whole(n):
        parts = rng.normal(size=(n, 2, 5))
        parts /= np.linalg.norm(parts, axis=-1, keepdims=True)
        return (parts / 2**0.5).reshape(n, 10), parts

    asked, (a, b) = (x := whole(4))[0], (x[1][:, 0], x[1][:, 1])
    keys, inner = whole(30)
    for alpha in (0.0, 0.3, 1.0):
        share = branches.shares(["class", "pair"], "class", alpha)
        assert share == [alpha, 1 - alpha]
        mixed = alpha * a + (1 - alpha) * b
        items = alpha * inner[:, 0] + (1 - alpha) * inner[:, 1]
        np.testing.assert_allclose(branches.mixed(asked, share), mixed, atol=1e-6)
        got = branches.query(asked, share)
        np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-6)
        want = mixed @ items.T
        factor = (got @ keys.T) / want
        np.testing.assert_allclose(factor, np.broadcast_to(factor[:, :1], factor.shape), rtol=2e-4)
        assert (factor > 0).all()
    with pytest.raises(ValueError, match="0 to 1"):
        branches.shares(["class", "pair"], "class", 1.5)
    with pytest.raises(ValueError, match="a branch 'class'"):
        branches.shares([], "class", 0.5)


def test_merged_vectors():
    one, other = np.array([1.0, 0]), np.array([0.0, 1])
    both = {"text": one, "audio": other}
    np.testing.assert_allclose(branches.merged(both, {}), [0.5**0.5] * 2, rtol=1e-6)
    np.testing.assert_allclose(branches.merged(both, {"text": 0}), other, rtol=1e-6)
    for weights, match in (({"image": 1}, "weight of 'image'"), ({"text": -1}, "0 or more")):
        with pytest.raises(ValueError, match=match):
            branches.merged(both, weights)


class Merging:
    """A tower of video and text."""

    towers = {"video": None, "text": None}


@dataclasses.dataclass(frozen=True)
class Fake:
    """Records what each tower is given."""

    towers: dict

    def embed(self, name, params, batch):
        del params
        seen = sorted(k for k in batch if k in ("video", "text"))
        return np.array([[1.0, 0.0]]) if name == "audio" else np.array([[len(seen), 1.0]])


def test_queries_go_through_the_tower_that_merges_them():
    batch = {"video": 0, "text": 0, "audio": 0}
    made = Fake({"audio": None, "query": Merging()})
    assert gallery.embed(made, {}, batch, "video+text").tolist() == [[2, 1]]
    assert gallery.embed(made, {}, batch, "text").tolist() == [[1, 1]]
    apart = Fake({"audio": None, "text": None})
    got = gallery.embed(apart, {}, {"text": 0, "audio": 0}, "text+audio")
    np.testing.assert_allclose(got, [[2 / 5**0.5, 1 / 5**0.5]], rtol=1e-6)
    assert gallery.modalities(made) == ["audio", "query", "video", "text"]
    evaluator = gallery.Gallery(None, {}, ("image",))
    with pytest.raises(ValueError, match="modality 'image': the towers are of audio, query"):
        evaluator.check(made, None)


@pytest.mark.parametrize("itself", [False, True])
def test_items_that_repeat_count_as_in_random_order(itself):
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(3), 8)
    scores = rng.normal(size=(6, 6))[np.arange(24) % 6][:, np.arange(24) % 6]  # each four times
    fits = labels[:, None] == labels[None]
    found = gallery.gallery(scores, fits, itself=itself)
    some = []
    for _ in range(4000):  # in any order, with ties told apart by chance
        order = rng.permutation(24)
        both = scores + 1e-9 * rng.permutation(24)[None]
        some.append(gallery.gallery(both[order][:, order], fits[order][:, order], itself=itself))
    for name in ("precision@10", "hit@10", "NDCG@10"):
        mean, error = np.mean([s[name] for s in some]), np.std([s[name] for s in some]) / 60
        assert found[name] == pytest.approx(mean, abs=5 * error + 1e-9)
    turned = rng.permutation(24)
    again = gallery.gallery(scores[turned][:, turned], fits[turned][:, turned], itself=itself)
    assert again == pytest.approx(found)
