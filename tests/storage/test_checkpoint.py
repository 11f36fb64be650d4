"""Checkpoints: averaged parameters, warm starts and their reports, metrics that a resume repeats."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.objectives.base import Phase
from ssl_audio.storage import checkpoint
from ssl_audio.structs import TrainState
from ssl_audio.train import changes, record
from ssl_audio.train.optim import Optim


def run(folder, optim, params):
    """Save a run's second step, as the trainer would, and return the state."""
    tx = optim.make((Phase(),), 10)["main"]
    opt_state = tx.init(params)
    grads = jax.tree.map(jnp.ones_like, params)
    for _ in range(2):
        updates, opt_state = tx.update(grads, opt_state, params, value=jnp.float32(1))
        params = jax.tree.map(lambda p, u: p + u, params, updates)
    state = TrainState(jnp.int32(2), params, {"main": opt_state}, {}, jax.random.key(0))
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"optim": {"average": optim.average}}))
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.save(state, {})
    checkpoints.close()
    return state


PARAMS = {"encoder": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}, "head": jnp.ones(2)}


def test_the_average_is_loaded_where_one_is_kept(tmp_path):
    state = run(tmp_path / "plain", Optim(lr=0.1), PARAMS)
    loaded, _ = checkpoint.load_params(tmp_path / "plain")
    np.testing.assert_array_equal(loaded["head"], state.params["head"])

    state = run(tmp_path / "mean", Optim(lr=0.1, average=0.5), PARAMS)
    loaded, _ = checkpoint.load_params(tmp_path / "mean")
    # Adam moves by the rate each step: 1, 0.9, 0.8 average to 0.5 (0.5 · 1 + 0.5 · 0.9) + 0.5 · 0.8.
    np.testing.assert_allclose(loaded["head"], 0.875, atol=1e-5)
    np.testing.assert_allclose(state.params["head"], 0.8, atol=1e-5)


def test_warm_start_takes_what_is_asked_and_reports_both_sides(tmp_path):
    source = run(tmp_path / "run", Optim(lr=0.1), PARAMS)
    fresh = jax.tree.map(jnp.zeros_like, PARAMS)
    warm = checkpoint.warm_start(fresh, tmp_path / "run", "^encoder/")
    np.testing.assert_array_equal(warm["encoder"]["kernel"], source.params["encoder"]["kernel"])
    np.testing.assert_array_equal(warm["head"], np.zeros(2))

    other = {"encoder": {"kernel": jnp.zeros((4, 5)), "gate": jnp.zeros(3)}}
    with pytest.raises(ValueError) as error:
        checkpoint.warm_start(other, tmp_path / "run", "^encoder/")
    for part in ("encoder/gate", "encoder/bias", r"encoder/kernel (4, 3) for (4, 5)"):
        assert part in str(error.value)
    same = {"encoder": {"kernel": jnp.zeros((4, 3)), "gate": jnp.zeros(3)}}
    warm = checkpoint.warm_start(same, tmp_path / "run", "^encoder/", leave="gate|bias")
    np.testing.assert_array_equal(warm["encoder"]["kernel"], source.params["encoder"]["kernel"])
    np.testing.assert_array_equal(warm["encoder"]["gate"], np.zeros(3))
    with pytest.raises(ValueError, match="matches no parameter"):
        checkpoint.warm_start(fresh, tmp_path / "run", "^decoder/")


def test_warm_start_into_a_tower_and_out_of_one(tmp_path):
    source = run(tmp_path / "run", Optim(lr=0.1), PARAMS)
    fresh = jax.tree.map(jnp.zeros_like, {"audio": PARAMS, "text": PARAMS})
    warm = checkpoint.warm_start(fresh, tmp_path / "run", "^encoder/", into="audio/")
    np.testing.assert_array_equal(
        warm["audio"]["encoder"]["kernel"], source.params["encoder"]["kernel"]
    )
    for untouched in (warm["audio"]["head"], *jax.tree.leaves(warm["text"])):
        np.testing.assert_array_equal(untouched, np.zeros_like(untouched))

    source = run(tmp_path / "both", Optim(lr=0.1), {"audio": PARAMS, "text": PARAMS})
    fresh = jax.tree.map(jnp.zeros_like, PARAMS)
    warm = checkpoint.warm_start(fresh, tmp_path / "both", "^encoder/", out_of="audio/")
    np.testing.assert_array_equal(
        warm["encoder"]["kernel"], source.params["audio"]["encoder"]["kernel"]
    )


def test_another_model_is_refused_by_name(tmp_path):
    run(tmp_path / "run", Optim(lr=0.1), PARAMS)
    wanted = TrainState(jnp.int32(0), {"encoder": jnp.zeros(3)}, {}, {}, jax.random.key(0))
    with pytest.raises(ValueError, match="another model.*head"):
        checkpoint.Checkpoints(tmp_path / "run").resume(wanted)
    with pytest.raises(FileNotFoundError, match="config.json"):
        checkpoint.load_params(tmp_path)


def test_a_kill_while_the_config_is_written_spoils_nothing(tmp_path, monkeypatch):
    options = {"objective": {"kind": "a"}, "seed": 0}
    changes.begin(options, tmp_path, {})
    before = (tmp_path / "config.txt").read_text()

    def killed(_):  # all is written, but not yet on disk
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        changes.begin(options, tmp_path, {})
    monkeypatch.undo()
    assert (tmp_path / "config.txt").read_text() == before
    changes.begin(options, tmp_path, {})


def test_records_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    record.keep_until(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize(("best", "kept"), [("test/accuracy", 2), ("-test/loss", 3)])
def test_the_best_parameters_are_kept_beside(tmp_path, best, kept):
    (tmp_path / "config.json").write_text("{}")
    results = {1: (0.5, 3.0), 2: (0.9, 2.0), 3: (0.7, 1.0)}  # accuracy, loss
    for steps in ([1, 2], [2, 3]):  # killed after 2, which is then scored again
        checkpoints = checkpoint.Checkpoints(tmp_path, keep=1, best=best)
        for step in steps:
            params = {"head": jnp.full(2, float(step))}
            state = TrainState(
                jnp.int32(step), params, {"main": jnp.ones(1)}, {}, jax.random.key(0)
            )
            accuracy, loss = results[step]
            checkpoints.save_best(state, {"test/accuracy": accuracy, "test/loss": loss})
            checkpoints.save(state, {})
        checkpoints.close()
    assert checkpoint.steps(tmp_path) == [3] and checkpoint.steps(tmp_path, "best") == [kept]
    np.testing.assert_array_equal(checkpoint.load_params(tmp_path, "best")[0]["head"], [kept, kept])
    checkpoints = checkpoint.Checkpoints(tmp_path, best="test/mAP")
    state = TrainState(jnp.int32(4), PARAMS, {}, {}, jax.random.key(0))
    with pytest.raises(ValueError, match="no result 'test/mAP'; there are test/accuracy"):
        checkpoints.save_best(state, {"test/accuracy": 1.0})
    checkpoints.close()


def small_state(step):
    return TrainState(jnp.int32(step), PARAMS, {"main": jnp.ones(1)}, {}, jax.random.key(0))


def test_a_checkpoint_of_a_newer_format_is_refused(tmp_path):
    run(tmp_path / "run", Optim(lr=0.1), PARAMS)
    meta = tmp_path / "run/checkpoints/2/meta/metadata"
    written = json.loads(meta.read_text())
    assert written["format"] == checkpoint.FORMAT
    meta.write_text(json.dumps(written | {"format": 99}))
    for read in (
        lambda: checkpoint.load_params(tmp_path / "run"),
        lambda: checkpoint.Checkpoints(tmp_path / "run").resume(small_state(0)),
    ):
        with pytest.raises(ValueError, match=r"checkpoints/2: written in format 99; .* up to 1"):
            read()
    del written["format"]  # as before formats had a number
    meta.write_text(json.dumps(written))
    checkpoint.load_params(tmp_path / "run")


def test_a_whole_checkpoint_is_there_at_any_moment(tmp_path, monkeypatch):
    """The old one goes when the new one is whole, not when its writing begins."""
    checkpoints = checkpoint.Checkpoints(tmp_path, keep=1)
    deleter = checkpoints.manager._checkpoint_deleter
    delete = type(deleter).delete_steps
    seen = []

    def watched(self, numbers):
        seen.append((list(numbers), checkpoint.steps(tmp_path)))
        return delete(self, numbers)

    monkeypatch.setattr(type(deleter), "delete_steps", watched)
    for step in (1, 2, 3):
        checkpoints.save(small_state(step), {})
    checkpoints.close()
    assert checkpoint.steps(tmp_path) == [3]
    removals = [(gone, there) for gone, there in seen if gone]
    assert [gone for gone, _ in removals] == [[1], [2]]
    assert all(max(there) > max(gone) for gone, there in removals)
    with pytest.raises(ValueError, match="keep: wanted at least 1"):
        checkpoint.Checkpoint(keep=0)
