from typing import Any

import encoders
import flax.linen as nn
import jax
import numpy as np
import pytest

from ssl_audio import config
from ssl_audio.distributed import sharding
from ssl_audio.eval import base
from ssl_audio.structs import TrainState


@pytest.fixture(scope="module")
def setting():
    encoder = encoders.encoder(frames=24)
    mesh = sharding.Sharding().mesh()
    put = jax.device_put(encoder.params, sharding.replicated(mesh))
    state = TrainState(np.int32(0), put, {}, {}, jax.random.key(0))
    return encoder.objective, state, mesh


def evaluator(**options):
    source = dict(kind="synthetic", size=24, seconds=0.3)
    data: dict[str, Any] = dict(kind="pipeline", sources=dict(a=source), batch_size=8, threads=0)
    data["entries"] = dict(audio=dict(kind="entries:Audio", samples=4000))
    return config.build(dict(kind="held_out", data=data, **options), "eval")


def run(evaluator, setting):
    objective, state, mesh = setting
    with jax.set_mesh(mesh), nn.logical_axis_rules(sharding.ACTIVATIONS):
        return evaluator.run(objective, state, mesh)


def test_it_is_the_mean_of_the_objectives_loss(setting):
    held_out = evaluator(batches=2)
    found = run(held_out, setting)
    objective, state, _ = setting
    loss = jax.jit(lambda *a: objective.loss(*a, train=False))
    params = jax.tree.map(np.asarray, state.params)
    totals = []
    batches = held_out.data.batches()
    for number in range(2):
        batch = {k: jax.numpy.asarray(v) for k, v in next(batches).items() if k != "index"}
        totals.append(loss(params, {}, batch, jax.random.fold_in(jax.random.key(0), number)))
    batches.close()
    assert found["loss"] == pytest.approx(np.mean([t.total for t in totals]), rel=1e-5)
    mse = np.sum([t.metrics["mse"][0] for t in totals]) / 16
    assert found["mse"] == pytest.approx(mse, rel=1e-5)
    assert set(found) == {"loss", "mse", "nce", "accuracy"}
    assert all(type(value) is float for value in found.values())


def test_it_repeats_itself_and_compiles_once(setting):
    from ssl_audio.eval import held_out

    objective, state, mesh = setting
    first = run(evaluator(batches=2), setting)
    assert run(evaluator(batches=2), setting) == first
    assert held_out._program(objective, mesh)._cache_size() == 1
    other = state.replace(params=jax.tree.map(lambda p: p * 1.1, state.params))
    assert run(evaluator(batches=2), (objective, other, mesh))["loss"] != first["loss"]
    assert held_out._program(objective, mesh)._cache_size() == 1


def test_mistakes_are_refused(setting):
    with pytest.raises(ValueError, match="batches is 0"):
        evaluator(batches=0)


def test_classes_that_training_lacks_are_found():
    split = base.Split({"test": np.array([False, False, True, True])}, np.zeros(4, int))
    assert base.untaught(np.array([0, 1, 1, 2]), split) == {"test": [2]}
    assert base.untaught(np.array([0, 1, 1, 0]), split) == {}
