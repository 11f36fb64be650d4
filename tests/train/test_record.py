"""What a run reports of itself: speed, traces, and how it ended."""

import argparse
import json
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
from reference import ROOT

from ssl_audio.frontend.fbank import Fbank
from ssl_audio.frontend.raw import Raw
from ssl_audio.train import flops
from ssl_audio.train.record import SPEED, STOPPED, Record, Recorder, columns, span

QUIET = Record(logger="none", progress=False)


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


def test_what_nothing_counted_for_is_left_out_of_a_record(tmp_path):
    with recorder(tmp_path) as made:
        for step, known in ((1, 0.0), (2, 3.0)):
            made.add({"loss": (0.5, 1.0), "precision": (known / 2, known)}, clips=4)
            made.write(step)
    first, second = lines(tmp_path)
    assert first["loss"] == 0.5 and "precision" not in first
    assert second["precision"] == 0.5


def test_progress_begins_after_the_compilation(tmp_path, caplog):
    caplog.set_level("INFO", "ssl_audio")
    shown = dict(start=2, total=9, lead=True)
    with Recorder(tmp_path, Record(logger="none"), **shown) as made:
        assert "preparing the step" in caplog.text and made.bar is None, "no estimate yet"
        assert "compiling" not in caplog.text, "it may have been compiled before"
        made.begun -= 90
        made.add({"loss": (1.0, 1.0)}, clips=1)
        assert "first step made, in 90 s" in caplog.text and made.bar.initial == 2
        assert time.time() - made.bar.start_t < 30, "an estimate that knows of no compilation"
    with recorder(tmp_path, lead=False) as other:
        other.add({"loss": (1.0, 1.0)}, clips=1)
        assert other.bar is None


def test_utilisation_where_the_peak_is_known(tmp_path, monkeypatch):
    import jax

    x = jnp.ones((8, 16))
    step = jax.jit(lambda state, batch: state @ batch)

    def count():
        return flops.count(step.trace(x, x.T).jaxpr)

    with recorder(tmp_path) as made:
        made.price(count)
        assert made.peak == 0, "nobody knows what this CPU can do"
        monkeypatch.setattr(flops, "peak", lambda kind: 1e6)
        made.price(count)
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


def drawn(frontend, shape=(2, 24, 16)):
    """Return the figure and its panels, of features of which the first clip's first frames are hidden."""
    spec = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    masked = spec.copy()
    masked[0, :8] = np.nan
    figure = columns({"original": spec, "original, masked": masked}, frontend, "step 7")
    figure.canvas.draw()
    return figure, [axis for axis in figure.axes if axis.get_title() or axis.get_label() == ""]


def test_pictures_are_in_seconds_kilohertz_and_decibels():
    fbank = Fbank(bins=16)
    figure, (panel, masked, *_) = drawn(fbank)
    assert figure.get_suptitle() == "step 7"
    assert (panel.get_title(), masked.get_title()) == ("original", "original, masked")
    # The middle of the first frame lies half a window after the start, its edges half a hop from there.
    assert panel.get_xlim() == pytest.approx((0.0125 - 0.005, 0.0125 + 23.5 * 0.01))
    low, high = panel.get_ylim()
    assert 20 < low < fbank.frequencies[0] and fbank.frequencies[-1] < high < 8000
    ticks = panel.get_yticks().tolist()
    assert (
        ticks == [hz for hz in (250, 500, 1000, 2000, 4000) if low <= hz <= high] and 1000 in ticks
    )
    assert [t.get_text() for t in panel.get_yticklabels()] == [f"{hz / 1000:g}" for hz in ticks]
    heights = np.diff(panel.transData.transform([(0, hz) for hz in fbank.frequencies])[:, 1])
    np.testing.assert_allclose(heights, heights.mean(), rtol=0.2)
    (mesh,) = panel.collections
    wanted = (
        np.random.default_rng(0).normal(size=(2, 24, 16)) * 2 * fbank.std + fbank.mean
    ) * 4.342945
    np.testing.assert_allclose(mesh.get_array().reshape(16, 24), wanted[0].T, rtol=1e-3, atol=1e-3)
    assert "dB" in {axis.get_ylabel() for axis in figure.axes}
    hidden = np.ma.getmaskarray(masked.collections[0].get_array()).reshape(16, 24)
    assert hidden[:, :8].all() and not hidden[:, 8:].any()
    red, green, blue, _ = masked.get_facecolor()
    assert red == green == blue, "hidden patches are grey, which the colours of values are not"


def test_pictures_of_features_that_are_not_bands_are_counted():
    for frontend in (None, Raw()):
        figure, (panel, *_) = drawn(frontend)
        assert panel.get_ylim() == (-0.5, 15.5) and panel.get_xlim() == (-0.5, 23.5)
        assert {"feature", "value"} <= {axis.get_ylabel() for axis in figure.axes}


def test_pictures_with_fewer_bands_than_the_front_end_makes():
    _, (panel, *_) = drawn(Fbank(bins=20), shape=(1, 24, 16))
    assert panel.get_ylim()[1] < 5000


def test_drawing_tools_are_imported_when_something_is_drawn():
    code = """
import sys
from ssl_audio.train import record
assert not {"librosa", "matplotlib"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_a_score_that_is_not_finite_is_warned_of(tmp_path, caplog):
    with recorder(tmp_path) as made:
        made.log(3, {"EER": float("nan"), "accuracy": 0.5}, prefix="test/")
        made.log(3, {"loss": 1.0})
    assert [r.getMessage().split(":")[1] for r in caplog.records] == [" test/EER is nan"]
