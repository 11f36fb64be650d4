"""DeepCluster: the bank and the clusters of an epoch; what is learned; the step; resuming in an epoch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.quantizers.codebooks import dot_kmeans
from ssl_audio.train.optim import Optim
from ssl_audio.train.run import Run
from ssl_audio.train.step import init_state, make_train_step

CLIPS, BATCH, K = 12, 4, 3
OPTIONS = dict(
    kind="deep_cluster",
    frontend=dict(kind="fbank", bins=16, frames=16),
    tokenizer=dict(kind="bins"),
    encoder=dict(kind="cnn", channels=(4,), convolutions=1, norm=dict(kind="norms:BatchNorm")),
    pool=dict(kind="pools:Mean"),
    projector=dict(kind="projectors:Swav", out=5, hidden=6),
    views=dict(kind="mixed_crops", mixup=dict(kind="mixed_crops:LogMixup", clips=8)),
    clips=CLIPS,
    every=CLIPS // BATCH,
    clusters=K,
)


@pytest.fixture(scope="module")
def made():
    """Return the objective, a state at its start, the step, and a function step → batch."""
    objective = config.build(OPTIONS, "objectives")
    audio = np.random.default_rng(0).normal(0, 0.1, (CLIPS, 2800)).astype(np.float32)

    def batch(step, clips=None):
        clips = np.arange(BATCH) + BATCH * (step % 3) if clips is None else np.array(clips)
        length = jnp.full(len(clips), 2800, jnp.int32)
        return dict(
            audio=jnp.asarray(audio[clips]), length=length, clip=jnp.asarray(clips, jnp.int32)
        )

    txs = Optim(lr=0.01).make(objective.phases, 100)
    state = init_state(objective, txs, jax.random.key(0), batch(0))
    return objective, state, jax.jit(make_train_step(objective, txs)), batch


@pytest.fixture(scope="module")
def states(made):
    """Return the states after 0 to 4 steps, and the metrics of each step."""
    _, state, step, batch = made
    found, reports = [state], []
    for number in range(4):
        state, report = step(state, batch(number))
        found.append(state)
        reports.append(report)
    return found, reports


def same(a, b):
    return all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def learned(params):
    """Return what gradients change: no running statistics, which every pass renews."""
    named = jax.tree_util.tree_leaves_with_path(params)
    return [x for path, x in named if path[-1].key not in ("mean", "var")]


def test_the_first_epoch_fills_the_bank_and_teaches_nothing(states):
    found, reports = states
    for number in range(3):
        assert reports[number]["loss"][0] == 0 and reports[number]["known"][0] == 0
        assert found[number + 1].extra["seen"].sum() == BATCH * (number + 1)
    assert same(learned(found[0].params), learned(found[3].params))
    assert not same(found[0].params, found[3].params)  # statistics see the audio
    assert (found[2].extra["target"] == -1).all() and not found[2].extra["prototypes"].any()
    assert np.abs(found[3].extra["bank"]).sum(1).all()


def test_clusters_are_those_of_the_bank_at_the_epochs_end_and_learned_after_it(made, states):
    found, reports = states
    extra = found[3].extra
    key = jax.random.fold_in(jax.random.key(0), 2)
    book, target = dot_kmeans(key, extra["bank"], K, 10, extra["seen"])
    np.testing.assert_allclose(extra["prototypes"], book, atol=1e-5)
    np.testing.assert_array_equal(extra["target"], target)
    np.testing.assert_array_equal(target, np.argmax(extra["bank"] @ extra["prototypes"].T, 1))
    assert reports[3]["loss"][0] > 0 and reports[3]["known"][0] == BATCH
    assert not same(learned(found[3].params), learned(found[4].params))
    # Gradients never move them, and they stand until the next epoch's end.
    for name in ("prototypes", "target"):
        assert same(found[4].extra[name], found[3].extra[name])


def test_the_bank_holds_the_first_view_and_the_second_is_classified(made, states):
    objective, _, _, batch = made
    state, now = states[0][3], batch(0)
    key = jax.random.key(7)
    loss = objective.loss(state.params, state.extra, now, key, train=True)
    keys = jax.random.split(key, 4)
    spec = objective.frontend(now["audio"], now["length"])
    first, second = (objective.views(spec, state.extra["views"], k) for k in keys[:2])
    z, after = objective._project(state.params, first, keys[2], True)
    other, after = objective._project(after, second, keys[3], True)
    np.testing.assert_allclose(loss.extra["bank"][:BATCH], z, atol=1e-6)
    assert same(loss.extra["bank"][BATCH:], state.extra["bank"][BATCH:])
    logp = jax.nn.log_softmax(other @ state.extra["prototypes"].T)
    want = -np.mean([logp[i, c] for i, c in enumerate(state.extra["target"][:BATCH].tolist())])
    np.testing.assert_allclose(loss.total, want, rtol=1e-5)
    norm = loss.renewed["encoder"]["block0_conv0_norm"]["mean"]
    np.testing.assert_allclose(norm, after["encoder"]["block0_conv0_norm"]["mean"], rtol=1e-5)


def test_clips_without_a_cluster_do_not_count(made, states):
    objective, _, _, batch = made
    state = states[0][3]
    extra = state.extra | {"target": state.extra["target"].at[1].set(-1)}
    report = objective.loss(state.params, extra, batch(0), jax.random.key(7), train=True)
    assert report.metrics["known"][0] == BATCH - 1
    unknown = extra | {"target": jnp.full(CLIPS, -1)}
    assert objective.loss(state.params, unknown, batch(0), jax.random.key(7), train=True).total == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(clusters=13), "clips 12, clusters 13"),
        (dict(every=0), "every is 0"),
        (dict(temperature=0.0), "temperature is 0"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config.build(OPTIONS | changes, "objectives")


def test_a_batch_without_clip_numbers_is_refused(made):
    objective, _, _, batch = made
    given = {name: x for name, x in batch(0).items() if name != "clip"}
    with pytest.raises(ValueError, match="entries:ClipNumber"):
        objective.loss({}, {}, given, jax.random.key(0), train=True)


def test_unit_vectors_are_those_of_length_one(made, states):
    objective, _, _, batch = made
    state, now = states[0][3], batch(0)
    spec = objective.frontend(now["audio"], now["length"])
    plain, _ = objective._project(state.params, spec, jax.random.key(0), False)
    unit = dataclasses.replace(objective, unit=True)
    found, _ = unit._project(state.params, spec, jax.random.key(0), False)
    want = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_clips_that_were_never_heard_are_in_no_cluster(made, states):
    objective, _, _, batch = made
    state = states[0][3]
    target = jnp.array([0, 1] + [-1] * (CLIPS - 2))
    args = state.extra | {"target": target}, batch(0), jax.random.key(0)
    total, weight = objective.loss(state.params, *args, train=True).metrics["clusters"]
    assert float(total / weight) == pytest.approx(2, abs=1e-4)


def test_data_of_more_clips_than_the_memory_is_refused_before_the_first_step():
    source = dict(kind="synthetic", size=CLIPS + 1, seconds=0.2)
    audio = dict(kind="entries:Audio", samples=2800)
    entries = dict(audio=audio, clip=dict(kind="entries:ClipNumber"))
    data = dict(kind="pipeline", sources=dict(some=source), batch_size=BATCH, entries=entries)
    run = config.make(Run, dict(objective=OPTIONS, data=data, optim=dict(lr=0.1), steps=1))
    with pytest.raises(ValueError, match=r"objective.clips: got 12, but config.data has 13 clips"):
        run.check()
    enough = dataclasses.replace(run.objective, clips=CLIPS + 1)
    dataclasses.replace(run, objective=enough).check()
