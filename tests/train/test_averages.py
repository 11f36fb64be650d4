"""Averages of the parameters: where they begin, and that what is scored is what is kept and loaded."""

import contextlib
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.objectives.base import Phase
from ssl_audio.storage import checkpoint
from ssl_audio.structs import TrainState
from ssl_audio.train import loop, record
from ssl_audio.train.optim import Optim
from ssl_audio.train.run import WarmStart, warm_started

ONE = {"encoder": {"a": jnp.zeros(2)}, "judge": {"b": jnp.zeros(2)}}
PHASES = Phase("judge", "^judge/"), Phase(trains="^encoder/")  # as an adversarial codec's


def begun(params):
    """Return the state of a run that has not begun and keeps an average of half the newest."""
    txs = Optim(lr=0.1, average=0.5).make(PHASES, 10)
    states = {phase.name: txs[phase.name].init(phase.part(params)) for phase in PHASES}
    return TrainState(jnp.int32(0), params, states, {}, jax.random.key(0)), txs


def stepped():
    """Return the state after a step by 0.1, of which the average has made half."""
    state, txs = begun(ONE)
    params, states = state.params, dict(state.opt_state)
    for phase in PHASES:
        part = phase.part(params)
        gradients = jax.tree.map(jnp.ones_like, part)
        updates, states[phase.name] = txs[phase.name].update(
            gradients, states[phase.name], part, value=jnp.float32(1)
        )
        params = phase.replaced(params, jax.tree.map(jnp.add, part, updates))
    return state.replace(step=jnp.int32(1), params=params, opt_state=states)


class Sees:
    """An evaluator that scores what it is given."""

    def run(self, objective, state, mesh):
        return {"a": float(state.params["encoder"]["a"][0])}


def test_what_is_scored_is_what_is_kept_as_the_best_and_loaded(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"optim": {"average": 0.5}}))
    checkpoints = checkpoint.Checkpoints(tmp_path, best="sees/a")
    recorder = types.SimpleNamespace(
        spent=types.SimpleNamespace(during=lambda what: contextlib.nullcontext()),
        log=lambda *_, **__: None,
    )
    run = types.SimpleNamespace(evals={"sees": Sees()}, objective=None)
    session = types.SimpleNamespace(run=run, recorder=recorder, checkpoints=checkpoints, mesh=None)
    results = loop._evaluate(session, state := stepped(), {})
    checkpoints.save(state, {})
    checkpoints.close()
    np.testing.assert_allclose(results["sees/a"], -0.05, rtol=1e-4)
    for step in (1, "best"):
        params = checkpoint.load_params(tmp_path, step)[0]
        np.testing.assert_allclose(params["encoder"]["a"], -0.05, rtol=1e-4, err_msg=str(step))
        np.testing.assert_allclose(params["judge"]["b"], -0.1, rtol=1e-4, err_msg=str(step))


def test_an_evaluator_runs_whatever_the_metrics_of_the_objective_are_called(tmp_path):
    """As of one of several teachers or targets, whose metrics begin with its name."""
    spent = types.SimpleNamespace(during=lambda what: contextlib.nullcontext())
    recorder = types.SimpleNamespace(spent=spent, log=lambda *_, **__: None)
    kept = []
    checkpoints = types.SimpleNamespace(
        save_best=lambda state, results: kept.append(results["sees/a"])
    )
    run = types.SimpleNamespace(evals={"sees": Sees()}, objective=None)
    session = types.SimpleNamespace(run=run, recorder=recorder, checkpoints=checkpoints, mesh=None)
    trained = {"sees/a": 9.0, "loss": 1.0}
    found = loop._evaluate(session, stepped(), trained)
    assert found["sees/a"] == kept[0] == pytest.approx(-0.05, rel=1e-4)

    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 2, **trained}, {"step": 1, "sees/a": 1.0}, {"step": 2, "other/b": 1.0}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert record.known(path, 2, ("sees", "other")) == ({**trained, "other/b": 1.0}, {"other"})
    assert record.known(path, 1, ("sees", "other"))[1] == {"sees"}
    assert loop._evaluate(session, stepped(), {"sees/a": 3.0}, {"sees"})["sees/a"] == 3


def test_an_average_begins_at_the_parameters_of_another_run(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    checkpoints = checkpoint.Checkpoints(tmp_path)
    there = {"encoder": {"a": jnp.full(2, 7.0)}}
    some = {"main": jnp.ones(1)}
    checkpoints.save(TrainState(jnp.int32(1), there, some, {}, jax.random.key(0)), {})
    checkpoints.close()
    run = types.SimpleNamespace(warm_start={"other": WarmStart(str(tmp_path), take="^encoder/")})
    found = warm_started(run, begun(ONE)[0])
    (average,) = (s["average"] for s in found.opt_state["main"] if isinstance(s, dict))
    np.testing.assert_array_equal(average["encoder"]["a"], [7.0, 7.0])
    assert jax.tree.structure(found) == jax.tree.structure(begun(ONE)[0])
    ours, theirs = average["encoder"]["a"], found.params["encoder"]["a"]
    assert ours.unsafe_buffer_pointer() != theirs.unsafe_buffer_pointer()  # a step donates both
