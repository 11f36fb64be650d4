"""python -m ssl_audio.train in processes of its own: every config, and kill -9 at any moment."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from published import CONFIGS, committed
from reference import ROOT

from ssl_audio.train.record import SPEED

pytestmark = pytest.mark.entry
SAMBA = ROOT / "configs/ssamba.py"
STEPS = 16
PLAIN = ("--config.record.logger=none",)


def command(*arguments):
    return [sys.executable, "-m", "ssl_audio.train", *map(str, arguments)]


def run(environment, *arguments):
    return subprocess.run(
        command(*arguments), env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def losses(workdir):
    """Return step → record of training, without the speed; no step may be there twice."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]  # not those of evaluation
    found = {line["step"]: line for line in lines}
    assert len(found) == len(lines)
    for line in lines:
        for name in SPEED:
            line.pop(name, None)
    return found


@pytest.mark.golden
@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_trains_on_a_laptop(path, environment, tmp_path):
    done = run(environment, "--config", f"{path}:runlocal", *PLAIN, "--workdir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "from scratch, up to step 4" in done.stderr
    found = {step: line["loss"] for step, line in losses(tmp_path).items()}
    assert list(found) == [1, 2, 3, 4]
    assert (tmp_path / "checkpoints/4").is_dir()
    first = [found[step] for step in (1, 2, 3)]
    want = committed(f"{path.stem}_runlocal_losses.txt", "".join(f"{x:.8g}\n" for x in first))
    # Another order of summation may choose another code.
    assert first == pytest.approx([float(x) for x in want.split()], rel=5e-4)


def test_help_and_mistakes(environment, tmp_path):
    done = run(environment, "--help")
    assert done.returncode == 0 and "--workdir" in done.stdout and "--config" in done.stdout
    wrong = ("--config", f"{SAMBA}:runlocal", "--workdir", tmp_path)
    done = run(environment, *wrong, "--config.data.batch_size=0")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "batch_size" in done.stderr.splitlines()[-1] and not list(tmp_path.iterdir())


def kill_when(process, ready, seconds):
    """Kill -9 a process `seconds` after ready() is first true; return whether that came in time."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and not ready():
        time.sleep(0.002)
    time.sleep(seconds)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def test_kill_at_any_moment_and_go_on(environment, tmp_path):
    """Every step is saved, so that most kills meet a save; every loss afterwards is bit-identical."""
    options = [
        "--config",
        f"{SAMBA}:runlocal",
        f"--config.steps={STEPS}",
        "--config.checkpoint.every=1",
        "--config.objective.encoder.drop_path=0.2",
        *PLAIN,
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = run(environment, *options, "--workdir", whole)
    assert done.returncode == 0, done.stderr
    saves = killed / "checkpoints"
    chance = random.Random(0)

    def started():
        return (killed / "metrics.jsonl").exists()

    def saving():
        return any(saves.glob("*orbax-checkpoint-tmp*")) if saves.exists() else False

    def beyond(step):
        numbers = (
            [int(p.name) for p in saves.glob("*") if p.name.isdigit()] if saves.exists() else [0]
        )
        return max(numbers, default=0) >= step

    moments = [
        (started, 0.0),  # while the first step compiles
        (saving, 0.0),
        (lambda: beyond(3) and saving(), chance.uniform(0.0, 0.05)),
        (lambda: beyond(6), chance.uniform(0.0, 0.3)),
        (lambda: beyond(9) and saving(), chance.uniform(0.0, 0.02)),
    ]
    hits = 0
    for ready, seconds in moments:
        process = subprocess.Popen(
            command(*options, "--workdir", killed),
            env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        hits += kill_when(process, ready, seconds)
    assert hits >= 4, "the runs ended before they could be killed"
    done = run(environment, *options, "--workdir", killed)
    assert done.returncode == 0, done.stderr
    assert losses(killed) == losses(whole)
    assert list(losses(killed)) == list(range(1, STEPS + 1))
    assert sorted(int(p.name) for p in saves.iterdir()) == [STEPS - 1, STEPS], (
        "nothing half-written stays"
    )
