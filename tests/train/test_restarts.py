"""Runs that go on after something went wrong: with other numbers, after a failed evaluation."""

import json

import numpy as np
import pytest
from test_train import change_batches, options, records, saved_steps

from ssl_audio import config
from ssl_audio.eval.held_out import HeldOut
from ssl_audio.train.loop import NotFinite, train

pytestmark = pytest.mark.usefixtures("compiled_once", "no_pictures")


def held_out(**changes):
    made = options()
    data = {**made["data"], "seed": 1, **changes}
    return {"held_out": {"kind": "held_out", "data": data, "batches": 1}}


def test_what_the_error_of_a_loss_that_is_not_finite_advises_works(tmp_path, monkeypatch, caplog):
    def poison(number, batch):
        if number == 3:
            batch["audio"] = np.full_like(batch["audio"], np.nan)

    with monkeypatch.context() as patch:
        change_batches(patch, poison)
        with pytest.raises(NotFinite, match="lower optim.lr or set optim.clip, and run the same"):
            train(options(optim__clip=0.0), tmp_path)
    done = max(saved_steps(tmp_path))
    caplog.set_level("INFO")
    train(options(optim__lr=1e-4, optim__clip=0.1, data__max_bad_share=0.5), tmp_path)
    assert records(tmp_path)[-1]["step"] == 6 and records(tmp_path)[-1]["lr"] == pytest.approx(1e-4)
    for line in (
        f"changed at step {done}: optim.clip: 0.0, now 0.1",
        f"changed at step {done}: optim.lr: 0.001, now 0.0001",
        f"changed at step {done}: data.max_bad_share: 0.01, now 0.5",
    ):
        assert line in caplog.text
    (line,) = map(json.loads, (tmp_path / "history.jsonl").read_text().splitlines())
    assert line["changed"]["optim.clip"] == [0.0, 0.1]
    with pytest.raises(ValueError, match="config.steps: 4, but the run in .* is at step 6"):
        train(options(steps=4), tmp_path)


def test_the_rate_that_is_recorded_is_that_of_the_update_on_a_plateau_too(tmp_path):
    changed = dict(lr=1e-3, schedule="constant", plateau=1, patience=0, gamma=0.5)
    train(options(**{f"optim__{name}": value for name, value in changed.items()}), tmp_path)
    rate, best = 1e-3, np.inf
    for record in records(tmp_path):
        better = best == np.inf or record["loss"] < best * (1 - 1e-4)
        best, rate = (record["loss"], rate) if better else (best, rate / 2)
        assert record["lr"] == pytest.approx(rate)
    assert rate < 1e-3


def test_evaluators_are_opened_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_audio.train.loop.plan", lambda *_: pytest.fail("computed"))
    missing = {"kind": "source:Manifest", "path": str(tmp_path / "test.csv")}
    with pytest.raises(
        ValueError, match=r"^config.evals.held_out: Manifest.path: no such file: .*csv"
    ):
        train(options(evals=held_out(sources={"a": missing})), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    (tmp_path / "test.csv").write_text("path\nnowhere.wav\n")
    with pytest.raises(
        ValueError, match=r"^config.evals.held_out: no clip could be read: .*nowhere.wav"
    ):
        train(options(evals=held_out(sources={"a": missing})), tmp_path / "run")
    with pytest.raises(ValueError, match="config.checkpoint.best: 'test/mAP': no evaluator 'test'"):
        train(options(checkpoint__best="test/mAP"), tmp_path / "run")


def test_a_failing_evaluation_loses_nothing_and_is_done_by_the_same_command(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the network is away")

    made = options(evals=held_out(), eval_every=3, checkpoint__best="-held_out/loss")
    with monkeypatch.context() as patch:
        patch.setattr(HeldOut, "run", fail)
        with pytest.raises(OSError, match="the network is away"):
            train(made, tmp_path)
    assert saved_steps(tmp_path) == [2, 3], "no save was due at 3"
    with monkeypatch.context() as patch:
        true, calls = HeldOut.run, []

        def later(self, *rest):
            calls.append(1)
            return true(self, *rest) if len(calls) == 1 else fail()

        patch.setattr(HeldOut, "run", later)
        with pytest.raises(OSError, match="the network is away"):
            train(made, tmp_path)
    assert max(saved_steps(tmp_path)) == 6
    results = train(made, tmp_path)
    scored = [r["step"] for r in records(tmp_path) if "held_out/loss" in r]
    assert scored == [3, 6] and np.isfinite(results["held_out/loss"]) and "loss" in results
    assert (tmp_path / "best").is_dir()
    before = (tmp_path / "metrics.jsonl").read_text()
    assert train(made, tmp_path) == results
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_a_second_run_in_the_workdir_is_refused(tmp_path, monkeypatch):
    def again(number, batch):
        if number == 2:
            with pytest.raises(ValueError, match="another run is at work here: process"):
                train(options(), tmp_path)

    with monkeypatch.context() as patch:
        change_batches(patch, again)
        train(options(steps=2), tmp_path)
    assert saved_steps(tmp_path) == [2] and not (tmp_path / "lock").exists()


def test_the_collections_are_what_the_checkpoint_remembers():
    data = options()["data"]
    made = config.build(data, "data").collections()
    again = config.build({**data, "threads": 1}, "data").collections()
    assert made == again and made["synthetic"]["clips"] == 32
    one = {"sources": {"synthetic": dict(kind="synthetic", size=32, seed=1, seconds=1.0)}}
    assert config.build(data | one, "data").collections() != made
