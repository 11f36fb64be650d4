"""What a run reports of itself: speed, traces, and how it ended."""

import argparse
import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_audio.train import flops
from ssl_audio.train.record import SPEED, STOPPED, Record, Recorder, span

QUIET = Record(tensorboard=False, progress=False)


def recorder(workdir, **options):
    return Recorder(workdir, QUIET, **{"start": 0, "total": 9, "lead": True, **options})


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_waiting_for_input_is_a_share_of_the_time(tmp_path):
    with recorder(tmp_path) as made:
        for number in range(1, 4):
            with made.step(number):
                with made.waiting():
                    time.sleep(0.03)
                time.sleep(0.01)
                made.add({"loss": (2.0, 1.0), "finite": (1.0, 1.0)}, clips=4)
        made.write(3, lr=0.1)
    (line,) = lines(tmp_path)
    # The first step, which compiles, does not count.
    assert 0.3 < line["input_wait"] <= 1 and 0 < line["clips_per_second"] <= 100
    assert {k: v for k, v in line.items() if k not in SPEED} == {"step": 3, "loss": 2.0, "lr": 0.1}


def test_utilisation_where_the_peak_is_known(tmp_path, monkeypatch):
    import jax

    x = jnp.ones((8, 16))
    step = jax.jit(lambda state, batch: state @ batch)
    with recorder(tmp_path) as made:
        made.price(step, x, x.T)
        assert made.peak == 0, "nobody knows what this CPU can do"
        monkeypatch.setattr(flops, "peak", lambda kind: 1e6)
        made.price(step, x, x.T)
        for number in range(1, 4):
            with made.step(number):
                time.sleep(0.01)
                made.add({"loss": (1.0, 1.0)}, clips=8)
        made.write(3)
    (line,) = lines(tmp_path)
    steps_per_second = line["clips_per_second"] / 8
    expected = 2 * 8 * 16 * 8 * steps_per_second / (1e6 * jax.device_count())
    assert line["flops_utilisation"] == pytest.approx(expected)


def test_a_trace_of_the_steps_asked_for(tmp_path):
    with recorder(tmp_path, profile=(2, 3)) as made:
        for number in range(1, 6):
            with made.step(number):
                np.asarray(jnp.ones(3) + number)
            assert made.tracing == (number == 2)
    assert list(tmp_path.rglob("*.xplane.pb"))
    other = tmp_path / "other"
    other.mkdir()
    with recorder(other, profile=(2, 9), lead=False) as made, made.step(2):
        assert not made.tracing
    assert not list(other.rglob("*.xplane.pb"))


def test_spans():
    assert span("10:20") == (10, 20)
    for wrong in ("10", "20:10", "0:3", "a:b"):
        with pytest.raises(argparse.ArgumentTypeError, match="wanted FIRST:LAST"):
            span(wrong)


def test_a_stopped_run_says_so_until_it_goes_on(tmp_path, caplog):
    with recorder(tmp_path) as made:
        made.stopped(4)
    assert "stopped at step 4 of 9 and saved; the same command goes on" in caplog.text
    assert (tmp_path / STOPPED).read_text().startswith("stopped at step 4 of 9")
    with recorder(tmp_path, start=4):
        assert not (tmp_path / STOPPED).exists()
