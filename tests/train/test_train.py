"""The loop in this process: what it writes, resuming bit for bit, stopping, refusing."""

import json
import os
import shutil
import signal
from typing import Any

import jax
import numpy as np
import pytest
from published import load
from reference import ROOT

from ssl_audio import config
from ssl_audio.data.pipeline import Pipeline
from ssl_audio.storage.checkpoint import load_params
from ssl_audio.train.loop import NotFinite, train
from ssl_audio.train.record import SPEED

pytestmark = pytest.mark.usefixtures("compiled_once", "no_pictures")
STEPS = 6


def options(**changes):
    made = config.plain(load(ROOT / "configs/ssamba.py", "runlocal"))
    made["steps"] = STEPS
    made["sharding"] = {"data": 1, "fsdp": 1}
    made["checkpoint"] = {"every": 2, "keep": 2}
    made["record"] = {"every": 1, "figures": 0, "clips": 2, "logger": "none", "progress": False}
    made["optim"] |= {"lr": 1e-3, "warmup": 0, "average": 0.9}
    made["objective"]["encoder"]["drop_path"] = 0.2
    for path, value in changes.items():
        *folders, leaf = path.split("__")
        place = made
        for folder in folders:
            place = place[folder]
        place[leaf] = value
    return made


def records(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in SPEED} for line in lines]


def saved_steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once):
    """Return the workdir of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole")
    results = train(options(record__logger="tensorboard"), workdir)
    return workdir, results


def change_batches(monkeypatch, change):
    """Call change(number of the step, batch) on every batch before the loop sees it."""
    true = Pipeline.batches

    def batches(self, start_step=0, **where):
        inner: Any = true(self, start_step, **where)
        try:
            for number, batch in enumerate(inner, start_step + 1):
                change(number, batch)
                yield batch
        finally:
            inner.close()

    monkeypatch.setattr(Pipeline, "batches", batches)


def same_parameters(a, b):
    (ours, _), (theirs, _) = load_params(a), load_params(b)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_run_leaves_all_that_is_needed_to_repeat_it(whole):
    workdir, results = whole
    files = {"config.json", "config.txt", "versions.json", "metrics.jsonl"}
    folders = {"figures", "checkpoints", "tensorboard"}
    assert {p.name for p in workdir.iterdir()} == files | folders
    written = json.loads((workdir / "config.json").read_text())
    assert config.text(written) == (workdir / "config.txt").read_text()
    assert config.text(written) == config.text(options(record__logger="tensorboard"))
    assert {"python", "jax", "flax", "orbax-checkpoint"} <= set(
        json.loads((workdir / "versions.json").read_text())
    )
    lines = records(workdir)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert {"loss", "accuracy", "nce", "mse", "gradient_norm", "lr", "skipped"} <= set(lines[0])
    assert lines[-1]["loss"] == results["loss"]
    assert lines[0]["lr"] == pytest.approx(1e-3)
    names = {p.name for p in (workdir / "figures").iterdir()}
    assert {"curves.png", "reconstructions.png"} <= names
    assert saved_steps(workdir) == [4, 6]
    assert list((workdir / "tensorboard").glob("events*"))


def test_the_saved_average_is_what_others_load(whole):
    average, written = load_params(whole[0])
    assert written["optim"]["average"] == 0.9
    assert isinstance(average["mask_token"], np.ndarray) and average["mask_token"].shape == (48,)


def test_the_same_command_after_the_end_changes_nothing(whole, tmp_path):
    workdir = tmp_path / "again"
    shutil.copytree(whole[0], workdir)
    before = (workdir / "metrics.jsonl").read_text()
    train(options(record__logger="tensorboard"), workdir)
    assert (workdir / "metrics.jsonl").read_text() == before
    same_parameters(workdir, whole[0])


def test_a_run_that_died_goes_on_bit_for_bit(whole, tmp_path, monkeypatch):
    def die(number, batch):
        if number == 4:
            raise OSError("the disk has gone")

    with monkeypatch.context() as patch:
        change_batches(patch, die)
        with pytest.raises(OSError, match="the disk has gone"):
            train(options(), tmp_path)
    assert saved_steps(tmp_path) == [2]
    assert [line["step"] for line in records(tmp_path)] == [1, 2, 3], "step 3 is to be done again"
    train(options(), tmp_path)
    assert records(tmp_path) == records(whole[0])
    same_parameters(tmp_path, whole[0])


def test_sigterm_saves_and_the_same_command_goes_on(whole, tmp_path, monkeypatch):
    def ask(number, batch):
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        change_batches(patch, ask)
        train(options(), tmp_path)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert saved_steps(tmp_path) == [2, 3]
    train(options(), tmp_path)
    assert records(tmp_path) == records(whole[0])
    same_parameters(tmp_path, whole[0])


def test_a_non_finite_loss_stops_names_the_clips_and_saves(tmp_path, monkeypatch):
    seen = {}

    def poison(number, batch):
        seen[number] = batch["index"]
        if number == 3:
            batch["audio"] = np.full_like(batch["audio"], np.nan)

    with monkeypatch.context() as patch:
        change_batches(patch, poison)
        with pytest.raises(
            NotFinite, match=r"^step 3: .*Clips of this host: synthetic:synthetic-0-"
        ) as error:
            train(options(), tmp_path)
    data = config.build(options()["data"], "data")
    for name in data.ids(seen[3]):
        assert name in str(error.value)
    assert "synthetic" in str(error.value) and max(saved_steps(tmp_path)) >= 3
    params, _ = load_params(tmp_path)
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(params))
    train(options(), tmp_path)
    assert records(tmp_path)[-1]["step"] == STEPS


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (dict(objective__reconstruct=1.0), "objective.reconstruct"),
        (dict(data__batch_size=16), "data.batch_size"),
        (dict(seed=1), "seed"),
    ],
)
def test_another_config_in_the_same_workdir_is_refused(whole, changes, line):
    before = (whole[0] / "config.txt").read_text()
    with pytest.raises(
        ValueError, match=f"holds a run of another config.*{line}.*Use another --workdir"
    ):
        train(options(**changes), whole[0])
    assert (whole[0] / "config.txt").read_text() == before


def held_out(**changes):
    return dict(kind="held_out", data=options()["data"] | changes)


def test_mistakes_are_found_before_anything_is_written(tmp_path):
    workdir = tmp_path / "run"
    for wrong, words in (
        (dict(optim__lrr=1.0), "Did you mean 'lr'"),
        (
            dict(data__batch_size=9, sharding__data=4),
            "batch_size: 9 is not divisible by 4 devices; nearest: 8, 12",
        ),
        (dict(data__batch_size=8, accumulate=3), "3 accumulation steps"),
        (
            dict(evals={"other": held_out(batch_size=6)}, sharding__data=4),
            r"config\.evals\.other\.data\.batch_size: 6 is not divisible by 4 devices; nearest: 4, 8",
        ),
        (dict(steps="7 parsecs"), "duration"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            train(options(**wrong), workdir)
    assert not workdir.exists()


def test_periods_of_0_mean_at_the_end_only(tmp_path):
    never = {"every": 0, "keep": 2}, {"every": 0, "progress": False, "logger": "none"}
    made = options(checkpoint=never[0], record=never[1], eval_every=0)
    train(made, tmp_path)
    assert saved_steps(tmp_path) == [STEPS]
    assert [line["step"] for line in records(tmp_path)] == [STEPS]


def test_evaluations_between_records_are_made_too(whole, tmp_path, monkeypatch):
    known = {}

    def evaluate(_, state, results):
        known[int(state.step)] = dict(results)
        return {**results, "test/score": 1.0}

    monkeypatch.setattr("ssl_audio.train.loop._evaluate", evaluate)
    train(options(eval_every=1, record__every=4), tmp_path)
    assert list(known) == list(range(1, STEPS + 1))
    assert not any("test/score" in results for results in known.values())
    assert "loss" in known[4] and not known[5]


def test_a_warm_start_takes_the_named_parameters(whole, tmp_path, monkeypatch, caplog):
    begun = []
    monkeypatch.setattr("ssl_audio.train.loop._loop", lambda _, state, start: begun.append(state))
    start = {"encoder": {"path": str(whole[0]), "take": "^(tokenizer|encoder)/"}}
    caplog.set_level("INFO", "ssl_audio")
    train(options(warm_start=start), tmp_path)
    assert f"from parameters of {whole[0]}, up to step" in caplog.text
    assert "scratch" not in caplog.text
    here, (there, _) = begun[0].params, load_params(whole[0])
    jax.tree.map(np.testing.assert_array_equal, here["encoder"], there["encoder"])
    jax.tree.map(np.testing.assert_array_equal, here["tokenizer"], there["tokenizer"])
    assert np.abs(here["mask_token"] - there["mask_token"]).max() > 1e-6


def test_a_warm_start_from_another_model_lists_what_differs(whole, tmp_path):
    start = {"encoder": {"path": str(whole[0]), "take": "^(tokenizer|encoder)/"}}
    with pytest.raises(
        ValueError, match=r"a checkpoint of another model\. Missing there: .*Other shapes"
    ):
        train(options(warm_start=start, objective__encoder__special=2), tmp_path)
