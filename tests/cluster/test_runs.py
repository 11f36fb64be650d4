"""One run on other numbers of processes and devices: equal losses, restored, stopped, killed."""

import random
import shutil
import signal
import time

import numpy as np
import pytest
from processes import Processes, finish, records, training
from reference import ROOT

pytestmark = pytest.mark.cluster
STEPS = 20


def close(a, b, steps):
    for step in steps:
        for name, value in a[step].items():
            np.testing.assert_allclose(value, b[step][name], rtol=1e-5, err_msg=f"{step} {name}")


@pytest.fixture(scope="session")
def alone(environment, tmp_path_factory):
    """Return the workdir of the run on one process with eight devices."""
    workdir = tmp_path_factory.mktemp("alone")
    finish(training(workdir), environment, 1, 8)
    return workdir


@pytest.fixture(scope="session")
def two(environment, tmp_path_factory):
    """Return the workdir of the run on two processes with four devices each."""
    workdir = tmp_path_factory.mktemp("two")
    finish(training(workdir), environment, 2, 4)
    return workdir


def test_two_processes_compute_what_one_does(alone, two):
    one, other = records(alone), records(two)
    assert list(one) == list(other) == list(range(1, STEPS + 1))
    close(one, other, one)


def test_a_contrastive_loss_spans_all_processes(environment, tmp_path):
    """Every clip is compared with those of the other machines too; the evaluation at the end is the same."""
    for name, count, devices in (("one", 1, 8), ("other", 2, 4)):
        command = training(tmp_path / name, "--config.eval_every=0", config="clap")
        finish(command, environment, count, devices)
    one, other = records(tmp_path / "one"), records(tmp_path / "other")
    close(one, other, range(1, STEPS + 1))
    assert "zero_shot/accuracy" in one[STEPS]


def until(workdir, step, to):
    """Copy a run as it stood when it saved `step`."""
    shutil.copytree(workdir, to, ignore=lambda folder, names: [
        n for n in names if folder.endswith("checkpoints") and n.isdigit() and int(n) > step
    ])  # fmt: skip
    return to


@pytest.mark.parametrize(("count", "devices"), [(1, 2), (4, 1)])
def test_a_checkpoint_moves_to_other_machines(two, environment, tmp_path, count, devices):
    workdir = until(two, 10, tmp_path / "moved")
    checks = finish(
        [str(ROOT / "tests/cluster/restore.py"), str(workdir)], environment, count, devices
    )
    assert "step 10: " in checks and f"on {count * devices} devices are equal" in checks
    said = finish(training(workdir), environment, count, devices)
    assert "resumed at step 10" in said
    moved, whole = records(workdir), records(two)
    assert list(moved) == list(whole)
    # The same clips in the same order: the losses tell.
    close(moved, whole, range(11, STEPS + 1))


def test_sigterm_ends_all_at_one_step_with_0_and_the_same_command_goes_on(
    two, environment, tmp_path
):
    with Processes(training(tmp_path), environment, 2, 4) as run:
        assert run.wait_until(lambda: len(records(tmp_path)) >= 3)
        run.started[1].send_signal(signal.SIGTERM)  # a cluster may warn only one
        assert run.end(120) == [0, 0], run.said(0) + run.said(1)
        said = run.said(0)
    step = max(records(tmp_path))
    assert f"stopped at step {step} of {STEPS} and saved; the same command goes on" in said
    assert (tmp_path / "stopped").exists() and (tmp_path / "checkpoints" / str(step)).is_dir()
    finish(training(tmp_path), environment, 2, 4)
    assert not (tmp_path / "stopped").exists()
    assert records(tmp_path) == records(two)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_lost_machine_ends_the_others_in_time_and_costs_nothing(
    two, environment, tmp_path, kills
):
    """Every step is saved, so that many kills meet a save; the last losses have the same bits."""
    chance = random.Random(kills)
    command = training(tmp_path, "--config.checkpoint.every=1")
    done = 0
    for _ in range(3 * kills):
        if done == kills:
            break
        with Processes(command, environment, 2, 4) as run:
            target = min(len(records(tmp_path)) + chance.randint(1, 3), STEPS - 1)
            if not run.wait_until(lambda target=target: len(records(tmp_path)) >= target):
                assert run.end() == [0, 0], run.said(0)[-3000:] + run.said(1)[-3000:]
                break  # it was quicker than the killer
            time.sleep(chance.uniform(0, 0.5))
            victim = chance.randrange(2)
            run.kill(victim)
            began = time.monotonic()
            status = run.end(60)
            survivor = run.said(1 - victim)
        if status[1 - victim] == 0:
            break
        done += 1
        assert time.monotonic() - began < 30, "heartbeat 10 s, and what a busy machine adds"
        assert status[1 - victim] == 75, survivor[-3000:]
        assert f"process {victim} (" in survivor and "The same command goes on" in survivor
    assert done >= min(kills, 2), done
    finish(command, environment, 2, 4)
    assert records(tmp_path) == records(two)
