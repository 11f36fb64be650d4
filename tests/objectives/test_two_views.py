"""Objectives on two views: their formulas one number at a time, and what goes where in a step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.backbones.audio_ntt import AudioNtt
from ssl_audio.frontend.mel import Mel
from ssl_audio.frontend.mixed_crops import LogMixup, MixedCrops
from ssl_audio.heads.pools import TimeMaxMean
from ssl_audio.heads.projectors import BarlowTwins, Byol, OneLayer
from ssl_audio.objectives import two_views
from ssl_audio.objectives.decorrelate import Decorrelate
from ssl_audio.objectives.decorrelate_layers import DecorrelateLayers
from ssl_audio.objectives.instance_cluster import InstanceCluster, cluster_contrast
from ssl_audio.tokens.bins import Bins

PARTS: dict[str, Any] = dict(
    frontend=Mel(
        rate=16_000, bins=16, hop=160, window=256, low=60.0, high=7800.0, frames=16, mean=-40.0,
        std=20.0,
    ),
    tokenizer=Bins(norm=None),
    encoder=AudioNtt(width=12, channels=3, blocks=2),
    pool=TimeMaxMean(),
    views=MixedCrops(LogMixup(clips=8)),
)  # fmt: skip
TAUGHT: dict[str, Any] = PARTS | dict(
    projector=OneLayer(out=5), queue=9, temperature=0.2, momentum=0.9
)
METHODS = {
    "decorrelate": Decorrelate(**PARTS, projector=BarlowTwins(out=10)),
    "layers": DecorrelateLayers(**TAUGHT, shallow=BarlowTwins(out=7), layers=(0, 1), cross=0.2),
    "clusters": InstanceCluster(**TAUGHT, clusters=Byol(out=4, hidden=6, norm=False)),
}
STATISTICS = ("'mean']", "'var']")


def random(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_correlation_and_redundancy():
    x, y = random(0, 6, 3), random(1, 6, 3)
    matrix = two_views.correlation(jnp.asarray(x), jnp.asarray(y))
    for i in range(3):
        for j in range(3):
            a, b = x[:, i] - x[:, i].mean(), y[:, j] - y[:, j].mean()
            wanted = (a * b).mean() / np.sqrt(((a**2).mean() + 1e-5) * ((b**2).mean() + 1e-5))
            assert matrix[i, j] == pytest.approx(wanted, abs=1e-6)
    diagonal, cross = two_views.redundancy(jnp.asarray([[0.5, 2.0], [3.0, -1.0]]))
    assert (diagonal, cross) == (0.25 + 4.0, 4.0 + 9.0)
    total, terms = METHODS["decorrelate"].compared(jnp.asarray(x), jnp.asarray(x))
    wanted = np.corrcoef(x.T)
    assert total == pytest.approx(0.0051 * ((wanted**2).sum() - 3), abs=1e-4)
    assert terms["agreement"] == pytest.approx(1, abs=1e-4)
    assert terms["redundancy"] == pytest.approx(np.sqrt(((wanted**2).sum() - 3) / 6), abs=1e-4)


def test_contrast_with_a_queue():
    q, k, queue = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(random, *QUEUES))
    made, hit = two_views.queue_nce(*map(jnp.asarray, (q, k, queue)), 0.07)
    for i in range(4):
        right = np.exp(q[i] @ k[i] / 0.07)
        wrong = np.exp(queue @ q[i] / 0.07).sum()
        assert made[i] == pytest.approx(-np.log(right / (right + wrong)), rel=1e-4)
        assert hit[i] == (q[i] @ k[i] > (queue @ q[i]).max())


QUEUES = (range(3), (4, 4, 7), (5, 5, 5))


def test_contrast_of_clusters():
    first, second = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in map(random, *SHARES))
    columns = [x[:, i] / np.linalg.norm(x[:, i]) for x in (first, second) for i in range(3)]
    total = 0.0
    for i, column in enumerate(columns):
        cosines = [float(column @ other) / 0.5 for other in columns]
        others = [np.exp(c) for j, c in enumerate(cosines) if j != i]
        total += -np.log(np.exp(cosines[(i + 3) % 6]) / sum(others)) / 6
    made = cluster_contrast(jnp.asarray(first), jnp.asarray(second), 0.5)
    assert made == pytest.approx(total, rel=1e-4)


SHARES = (range(2), (5, 5), (3, 3))


@pytest.fixture(scope="module")
def batch():
    audio = random(3, 6, 2500) * np.linspace(0.02, 0.5, 6)[:, None]
    return {"audio": jnp.asarray(audio, jnp.float32), "length": jnp.full(6, 2500, jnp.int32)}


@pytest.fixture(scope="module", params=METHODS)
def method(request, batch):
    """Return an objective, its state after a batch, what a pass makes of the next, and the pass."""
    objective = METHODS[request.param]
    shapes = jax.eval_shape(objective.init, jax.random.key(0), batch)
    params, extra = jax.tree_util.tree_map_with_path(drawn, shapes)
    if "queue" in extra:
        extra["queue"] /= np.linalg.norm(extra["queue"], axis=1, keepdims=True)

    def whole(params, extra, key):
        def total(params, teacher):
            loss = objective.loss(params, extra | teacher, batch, key, train=True)
            return loss.total, loss

        teacher = {"teacher": extra.get("teacher", {})}
        (_, loss), slopes = jax.value_and_grad(total, (0, 1), has_aux=True)(params, teacher)
        return loss, slopes, objective.refresh(params, loss.extra, 0)

    whole = jax.jit(whole)
    _, _, extra = whole(params, extra, jax.random.key(1))
    return objective, params, extra, whole(params, extra, jax.random.key(2)), whole


def drawn(path, leaf):
    """Return weights far from 0, which costs less than to compile how they begin."""
    name = jax.tree_util.keystr(path)
    if leaf.dtype == jnp.int32:
        return np.zeros(leaf.shape, np.int32)
    if name.endswith("'var']"):
        return np.ones(leaf.shape, np.float32)
    return random(len(name), *leaf.shape) * np.float32(0.5)


def named(tree):
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def test_every_weight_of_the_student_learns_and_nothing_else(method):
    _, _, _, (loss, (slope, teacher), _), _ = method
    largest = {name: float(jnp.abs(value).max()) for name, value in named(slope).items()}
    statistics = {name for name in largest if name.endswith(STATISTICS)}
    # A bias before a batch normalisation changes nothing but by rounding.
    free = {name for name in largest if "_conv" in name and "bias" in name}
    assert all((largest[name] > 0) != (name in statistics) for name in set(largest) - free)
    assert not any(value.any() for value in named(teacher).values())
    assert statistics and set(named(loss.renewed)) == statistics
    assert np.isfinite(loss.total)


def test_clips_are_remembered_as_they_are(method, batch):
    objective, _, extra, (loss, _, _), _ = method
    spec = jax.jit(objective.frontend)(batch["audio"], batch["length"])
    place = (6 + np.arange(6)) % 8
    np.testing.assert_allclose(loss.extra["views"]["clips"][place], spec, atol=1e-5)
    assert loss.extra["views"]["count"] == 12 and extra["views"]["count"] == 6


def test_the_teacher_follows_and_its_vectors_enter_the_queue(method):
    objective, params, extra, (loss, _, after), _ = method
    if "teacher" not in extra:
        return
    passed, weights = named(loss.extra["teacher"]), named(params)
    for name, old in named(extra["teacher"]).items():
        moved = name.endswith(STATISTICS)
        assert bool(jnp.any(passed[name] != old)) == moved, name  # statistics of its own passes
        wanted = 0.9 * passed[name] + 0.1 * weights[name]
        np.testing.assert_allclose(named(after["teacher"])[name], wanted, atol=1e-6)
    if "queue" not in extra:
        return
    new = min(6 * (2 if isinstance(objective, InstanceCluster) else 1), 9)
    queue = np.asarray(loss.extra["queue"])
    np.testing.assert_array_equal(queue[new:], extra["queue"][: 9 - new])
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1, atol=1e-5)
    assert not np.isclose(queue[:new] @ np.asarray(extra["queue"]).T, 1).any()


def test_the_loss_is_the_sum_of_what_is_reported(method):
    objective, _, extra, (loss, _, _), _ = method
    mean = {name: float(total / weight) for name, (total, weight) in loss.metrics.items()}
    if isinstance(objective, InstanceCluster):
        total = mean["contrast"] + mean["cluster_contrast"]
        assert float(loss.total) == pytest.approx(total, rel=1e-5)
        assert 1 <= mean["clusters"] <= 4
    elif isinstance(objective, DecorrelateLayers):
        assert float(loss.total) > mean["contrast"]
    assert 0 < mean["spread"] < 1.5


def test_no_clip_is_its_own_negative(method):
    """Against a queue that all clips point away from, nothing is left to tell a clip from."""
    objective, params, extra, (loss, _, _), whole = method
    if "queue" not in extra:
        return
    away = -1e4 * jnp.mean(loss.extra["queue"][:6], axis=0, keepdims=True)
    again, _, _ = whole(params, extra | {"queue": jnp.tile(away, (9, 1))}, jax.random.key(2))
    assert float(loss.metrics["contrast"][0]) > 1
    assert float(again.metrics["contrast"][0]) == pytest.approx(0, abs=1e-4)


def test_wrong_settings_are_refused(batch):
    with pytest.raises(ValueError, match="temperature 0"):
        InstanceCluster(**TAUGHT | dict(temperature=0.0), clusters=Byol(out=4, norm=False))
    deep = DecorrelateLayers(**TAUGHT, shallow=BarlowTwins(out=7))
    with pytest.raises(ValueError, match=r"got \(0, 1, 2\), but AudioNtt returns 2 layers"):
        jax.eval_shape(deep.init, jax.random.key(0), batch)
