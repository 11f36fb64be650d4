"""The generic step on toy objectives whose losses do not depend on the key."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import load
from reference import ROOT

from ssl_audio import config
from ssl_audio.objectives.base import Objective, Phase
from ssl_audio.structs import Loss
from ssl_audio.train import preview
from ssl_audio.train.optim import Optim
from ssl_audio.train.step import init_state, make_train_step

TRACES: list[str] = []


@dataclasses.dataclass(frozen=True)
class Regression(Objective):
    """Least squares, counting its forward passes and keeping an average of the weights in extra."""

    width: int = 3

    def init(self, key, batch):
        kernel = jax.random.normal(key, (batch["x"].shape[1], self.width), jnp.float32)
        return {"kernel": kernel, "bias": jnp.zeros(self.width)}, {
            "passes": jnp.zeros((), jnp.int32),
            "teacher": {"kernel": kernel},
        }

    def loss(self, params, extra, batch, key, *, train):
        assert train
        TRACES.append("loss")
        error = batch["x"] @ params["kernel"] + params["bias"][None] - batch["y"]
        each = jnp.mean(error**2, axis=1)
        return Loss(
            total=jnp.mean(each),
            metrics={"error": (jnp.sum(jnp.abs(error)), float(error.size))},
            extra=extra | {"passes": extra["passes"] + 1},
        )

    def refresh(self, params, extra, step):
        teacher = 0.9 * extra["teacher"]["kernel"] + 0.1 * params["kernel"]
        return extra | {"teacher": {"kernel": teacher}}


class Coupled(Regression):
    couples_examples = True


class Adversarial(Regression):
    phases: ClassVar = (Phase("first", "^kernel$"), Phase("second", "^bias$", loss="doubled"))

    def doubled(self, params, extra, batch, key, *, train):
        loss = self.loss(params, extra, batch, key, train=train)
        return loss.replace(total=2 * loss.total, metrics=loss.metrics | {"doubled": (1.0, 1.0)})


def data(size=8):
    g = np.random.default_rng(0)
    return {
        "x": jnp.asarray(g.standard_normal((size, 4)), jnp.float32),
        "y": jnp.asarray(g.standard_normal((size, 3)), jnp.float32),
    }


def start(objective, optim=None, total=100):
    txs = (optim or Optim(lr=0.1)).make(objective.phases, total, None)
    state = jax.jit(lambda: init_state(objective, txs, jax.random.key(1), data()))()
    return txs, state


def distance(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b)))


def test_accumulation_equals_the_full_batch():
    objective = Regression()
    txs, state = start(objective, Optim(lr=0.1, clip=0.5))
    whole, told = jax.jit(make_train_step(objective, txs))(state, data())
    parts, told_parts = jax.jit(make_train_step(objective, txs, accumulate=4))(state, data())
    assert distance(whole.params, state.params) > 0.01
    assert distance(whole.params, parts.params) < 1e-6
    assert distance(whole.opt_state, parts.opt_state) < 1e-6
    mean = {name: float(total / weight) for name, (total, weight) in told.items()}
    mean_parts = {name: float(total / weight) for name, (total, weight) in told_parts.items()}
    assert mean == pytest.approx(mean_parts, abs=1e-6)
    assert (int(whole.extra["passes"]), int(parts.extra["passes"])) == (1, 4)


@dataclasses.dataclass(frozen=True)
class Means(Regression):
    """A mean over the rows that `known` counts, and another one over the books of `counts` [B, 2]."""

    def loss(self, params, extra, batch, key, *, train):
        each = jnp.mean((batch["x"] @ params["kernel"] - batch["y"]) ** 2, axis=1)
        known, counts = batch["known"], batch["counts"]
        first = jnp.sum(each * known) / jnp.maximum(jnp.sum(known), 1)
        second = jnp.sum(each[:, None] ** 2 * counts, 0) / jnp.maximum(jnp.sum(counts, 0), 1)
        means = {"first": (first, jnp.sum(known)), "second": (second, jnp.sum(counts, 0))}
        return Loss(first + jnp.sum(second), {"first": means["first"]}, extra, means=means)


def test_parts_count_by_what_their_means_are_over():
    objective = Means()
    known = jnp.array([1.0, 0, 0, 0, 1, 1, 0, 1])  # one of four parts of two has none
    counts = jnp.asarray(np.random.default_rng(1).integers(0, 4, (8, 2)), jnp.float32)
    batch = {**data(), "known": known, "counts": counts}
    txs, state = start(objective)
    whole, told = jax.jit(make_train_step(objective, txs))(state, batch)
    parts, told_parts = jax.jit(make_train_step(objective, txs, accumulate=4))(state, batch)
    assert distance(whole.params, state.params) > 0.01
    assert distance(whole.params, parts.params) < 1e-6
    np.testing.assert_allclose(told["loss"][0], told_parts["loss"][0], rtol=1e-6)
    batch = {**batch, "known": jnp.zeros(8)}  # nothing of it in any part
    parts, _ = jax.jit(make_train_step(objective, txs, accumulate=4))(state, batch)
    whole, _ = jax.jit(make_train_step(objective, txs))(state, batch)
    assert distance(whole.params, parts.params) < 1e-6


def test_the_gradient_norm_is_of_what_learns():
    optim, objective = Optim(lr=0.1, rates={"^bias$": 0.0}), Regression()
    txs, state = start(objective, optim)
    step = make_train_step(objective, txs, learns=optim.learns)
    after, told = jax.jit(step)(state, data())

    def loss(params):
        return objective.loss(params, state.extra, data(), None, train=True).total

    grads = jax.grad(loss)(state.params)
    assert float(told["gradient_norm"][0]) == pytest.approx(float(jnp.linalg.norm(grads["kernel"])))
    assert float(jnp.linalg.norm(grads["bias"])) > 0.1
    np.testing.assert_array_equal(after.params["bias"], state.params["bias"])


def test_a_run_tells_its_step_what_learns(monkeypatch):
    made = config.plain(load(ROOT / "configs/ssast.py", "runlocal"))
    made["optim"]["rates"] = {"^encoder/": 0.0}
    told = []
    monkeypatch.setattr(
        "ssl_audio.train.run.make_train_step",
        lambda *_, **how: told.append(how["learns"]) or (lambda state, batch: (state, {})),
    )
    preview.preview(made, compiled=False)
    learns = told[0]
    assert not learns((jax.tree_util.DictKey("encoder"), jax.tree_util.DictKey("norm")))
    assert learns((jax.tree_util.DictKey("tokenizer"),))


def test_accumulation_is_refused_when_examples_are_coupled():
    txs, _ = start(Coupled())
    with pytest.raises(ValueError, match="config.accumulate: Coupled compares the examples"):
        make_train_step(Coupled(), txs, accumulate=2)
    make_train_step(Coupled(), txs)


@pytest.mark.parametrize(
    "optim",
    [
        Optim(lr=0.1, schedule="cosine", warmup=10, clip=1.0, average=0.9, weight_decay=0.1),
        Optim(lr=0.1, plateau=2, rates={"^bias$": 0.5}, coupled=True, weight_decay=0.1),
    ],
    ids=["cosine", "plateau"],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_step_is_traced_once(optim, accumulate):
    objective = Regression()
    txs, state = start(objective, optim)
    step = jax.jit(make_train_step(objective, txs, accumulate=accumulate), donate_argnums=0)
    state, _ = step(state, data())
    TRACES.clear()
    for _ in range(3):
        state, _ = step(state, data())
    assert not TRACES and step._cache_size() == 1
    assert int(state.step) == 4


def test_it_descends():
    objective = Regression()
    txs, state = start(objective)
    step = jax.jit(make_train_step(objective, txs))
    losses = []
    for _ in range(60):
        state, metrics = step(state, data())
        losses.append(float(metrics["loss"][0]))
    assert losses[-1] < 0.4 * losses[0]
    assert float(metrics["finite"][0]) == 1


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_non_finite_loss_changes_nothing_but_the_count(poison, accumulate):
    objective = Regression()
    txs, state = start(objective)
    step = jax.jit(make_train_step(objective, txs, accumulate=accumulate))
    state, _ = step(state, data())
    bad = data() | {"y": data()["y"].at[5, 1].set(poison)}
    after, metrics = step(state, bad)
    assert float(metrics["finite"][0]) == 0
    assert int(after.step) == int(state.step) + 1
    for name in ("params", "opt_state", "extra"):
        assert distance(getattr(after, name), getattr(state, name)) == 0, name
    _, metrics = step(after, data())
    assert float(metrics["finite"][0]) == 1


def test_a_finite_loss_with_a_non_finite_gradient_is_caught():
    class Root(Regression):
        def loss(self, params, extra, batch, key, *, train):
            return Loss(total=jnp.sqrt(jnp.sum(params["bias"] ** 2)), metrics={}, extra=extra)

    txs, state = start(Root())
    after, metrics = jax.jit(make_train_step(Root(), txs))(state, data())
    assert float(metrics["loss"][0]) == 0 and float(metrics["finite"][0]) == 0
    assert distance(after.params, state.params) == 0


def test_refresh_sees_the_new_parameters_and_extra_is_carried():
    objective = Regression()
    txs, state = start(objective)
    step = jax.jit(make_train_step(objective, txs))
    teacher = state.extra["teacher"]["kernel"]
    for _ in range(3):
        state, _ = step(state, data())
        teacher = 0.9 * teacher + 0.1 * state.params["kernel"]
    np.testing.assert_allclose(state.extra["teacher"]["kernel"], teacher, atol=1e-6)
    assert int(state.extra["passes"]) == 3


def test_a_phase_trains_its_parameters_only():
    objective = Adversarial()
    txs, state = start(objective, Optim(lr=0.1, weight_decay=0.1, decay=".*"))
    assert set(txs) == set(state.opt_state) == {"first", "second"}
    after, metrics = jax.jit(make_train_step(objective, txs))(state, data())
    assert distance(after.params["kernel"], state.params["kernel"]) > 1e-3
    assert distance(after.params["bias"], state.params["bias"]) > 1e-3
    assert {"first/loss", "second/loss", "first/error", "second/gradient_norm"} <= set(metrics)
    assert "second/doubled" in metrics and "first/doubled" not in metrics  # each has its own loss
    # The second phase's gradient is taken where the first one ended.
    assert float(metrics["second/error"][0]) < float(metrics["first/error"][0])

    class OnlyFirst(Adversarial):
        phases = Adversarial.phases[:1]

    txs, state = start(OnlyFirst(), Optim(lr=0.1, weight_decay=0.1, decay=".*"))
    after, _ = jax.jit(make_train_step(OnlyFirst(), txs))(state, data())
    assert distance(after.params["bias"], state.params["bias"]) == 0
    assert distance(after.params["kernel"], state.params["kernel"]) > 1e-3


def test_every_step_has_its_own_key_and_the_stored_one_stays():
    class Noise(Regression):
        def loss(self, params, extra, batch, key, *, train):
            loss = super().loss(params, extra, batch, key, train=train)
            return loss.replace(metrics={"draw": (jax.random.uniform(key), 1.0)})

    txs, state = start(Noise())
    step = jax.jit(make_train_step(Noise(), txs))
    key = jax.random.key_data(state.key)
    draws = []
    for _ in range(3):
        state, metrics = step(state, data())
        draws.append(float(metrics["draw"][0]))
    assert len(set(draws)) == 3
    np.testing.assert_array_equal(jax.random.key_data(state.key), key)
