"""Where the time of a run goes: shares that add up, over kills, and what a slow input does to them."""

import json
import shutil
import time

import pytest
from test_train import change_batches, options

from ssl_audio.train.goodput import KINDS, NAMES, Goodput
from ssl_audio.train.loop import train


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def spend(goodput, clock, kind, seconds):
    with goodput.during(kind):
        clock.now += seconds


def test_every_moment_is_of_one_kind():
    clock = Clock()
    goodput = Goodput(clock)
    clock.now += 3
    with goodput.during("step"):
        clock.now += 4
        spend(goodput, clock, "input", 2)  # not of the step around it
        clock.now += 1
    clock.now += 10
    assert goodput.seconds() == dict.fromkeys(KINDS, 0.0) | {"start": 13, "step": 5, "input": 2}
    shares = goodput.shares()
    assert set(shares) == set(NAMES) and shares["elapsed"] == 20
    assert shares["goodput/step"] == 0.25
    assert sum(shares[name] for name in NAMES[:-1]) == pytest.approx(1)
    with pytest.raises(RuntimeError), goodput.during("save"):
        raise RuntimeError
    assert goodput.kind == "start", "after an error too"


def test_no_time_has_no_shares():
    shares = Goodput(Clock()).shares()
    assert set(shares.values()) == {0.0}


@pytest.fixture
def killed(tmp_path):
    """Return a workdir of a run killed after its record at 60 s, with a checkpoint of 40 s and step 3."""
    clock = Clock()
    goodput = Goodput(clock)
    lines = ["cut off", "[1]", json.dumps({"step": 1, "loss": 1.0})]
    for step, seconds in ((2, 30), (3, 10), (4, 20)):
        spend(goodput, clock, "step", seconds)
        if step != 3:
            lines.append(json.dumps({"step": step, **goodput.shares()}))
        else:
            meta = tmp_path / "checkpoints/3/meta"
            meta.mkdir(parents=True)
            (meta / "metadata").write_text(json.dumps({"goodput": goodput.seconds()}))
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_a_kill_costs_what_was_done_since_the_checkpoint(killed, caplog):
    clock = Clock()
    caplog.set_level("INFO", "ssl_audio")
    goodput = Goodput(clock)
    clock.now += 5
    goodput.resume(killed, 3)
    assert "20 s of work after step 3 are lost" in caplog.text
    clock.now += 2
    assert goodput.seconds() == dict.fromkeys(KINDS, 0.0) | {"step": 40, "restart": 20 + 5 + 2}


def test_without_seconds_in_the_checkpoint_the_records_tell(killed):
    shutil.rmtree(killed / "checkpoints")
    goodput = Goodput(Clock())
    goodput.resume(killed, 3)
    found = goodput.seconds()
    assert found["step"] == pytest.approx(30) and found["restart"] == pytest.approx(30)
    (killed / "metrics.jsonl").unlink()
    goodput = Goodput(Clock())
    goodput.resume(killed, 3)  # a run of before any of this was written
    assert sum(goodput.seconds().values()) == 0


def shares(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "elapsed" in line]


@pytest.mark.slow
def test_a_run_that_waits_for_its_input_and_is_killed(
    tmp_path, monkeypatch, compiled_once, no_pictures
):
    asleep = []

    def slow(number, batch):
        time.sleep(0.5)
        asleep.append(0.5)
        return batch

    change_batches(monkeypatch, slow)
    train(options(), tmp_path)
    found = shares(tmp_path)
    for line in found:
        assert sum(line[name] for name in NAMES[:-1]) == pytest.approx(1)
    last = found[-1]
    waited = last["goodput/input"] * last["elapsed"]
    assert sum(asleep) == 3.0 <= waited < 3.0 + 3.0, "the sleep, and what reading itself takes"
    assert last["goodput/compile"] > 0 and last["goodput/save"] > 0 and last["goodput/step"] > 0
    assert last["goodput/restart"] == 0

    # As if killed before the last checkpoint was whole: its two steps, 1 s of input, are lost.
    shutil.rmtree(tmp_path / "checkpoints/6")
    train(options(), tmp_path)
    again = shares(tmp_path)[-1]
    assert sum(again[name] for name in NAMES[:-1]) == pytest.approx(1)
    assert again["goodput/restart"] * again["elapsed"] > 1.0
    assert again["elapsed"] > last["elapsed"]
    # Of the batches that were waited for twice, the first time counts as lost.
    assert 3.0 <= again["goodput/input"] * again["elapsed"] < waited + 3.0
