"""ssl-audio folds: finished folds are kept, a killed one goes on, the table is the same."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from reference import ROOT

from ssl_audio.eval.classify import Predictions
from ssl_audio.eval.folds import numbers

pytestmark = pytest.mark.entry

CONFIG = f"{ROOT / 'configs/finetune.py'}:runlocal"


def command(workdir, *more):
    line = ["--folds", "1-2", "--config", CONFIG, "--workdir", workdir, "--config.steps=6"]
    line += ["--config.record.logger=none", *more]
    return [sys.executable, "-m", "ssl_audio", "folds", *map(str, line)]


def run(environment, workdir, *more):
    return subprocess.run(
        command(workdir, *more),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_kill_and_go_on(environment, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(environment, whole)
    assert done.returncode == 0, done.stderr
    assert "mean" in done.stdout and "accuracy" in done.stdout
    for name in (
        "folds.json",
        "folds.txt",
        "classes.csv",
        "confusion.png",
        "fold2/predictions.npz",
    ):
        assert (whole / name).exists(), name

    process = subprocess.Popen(
        command(killed),
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not (killed / "fold2/checkpoints/2").exists() and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (killed / "fold1/result.json").exists() and not (killed / "fold2/result.json").exists()
    first = (killed / "fold1/predictions.npz").stat().st_mtime_ns

    again = run(environment, killed)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("resumed at step") == 1  # the second fold; the first is not begun
    assert (killed / "fold1/predictions.npz").stat().st_mtime_ns == first
    for name in ("folds.json", "folds.txt", "classes.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    logits = [Predictions.load(w / "fold2/predictions.npz").logits for w in (whole, killed)]
    np.testing.assert_array_equal(*logits)
    assert json.loads((whole / "folds.json").read_text()).keys() == {"1", "2"}


def test_mistakes(environment, tmp_path):
    done = run(environment, tmp_path, "--folds", "a-b")
    assert done.returncode == 2 and "'a-b': wanted 1-5 or 1,3" in done.stderr
    done = run(environment, tmp_path, "--config.evals.test.kind=held_out")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert numbers("1-3") == [1, 2, 3] and numbers("4,2") == [2, 4]
