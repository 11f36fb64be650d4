"""What holds processes together: who does not come, who differs, who fails, hangs or dies."""

import re
import time

import pytest
from processes import Processes
from reference import ROOT

pytestmark = pytest.mark.cluster
MEMBER = str(ROOT / "tests/cluster/member.py")


@pytest.fixture
def hasty(environment):
    return environment | {
        "SSL_AUDIO_HEARTBEAT": "6",
        "SSL_AUDIO_STEP_TIMEOUT": "8",
        "SSL_AUDIO_CONNECT": "20",
    }


def together(environment, *behaviour):
    with Processes([MEMBER, *behaviour], environment, 2, 1) as run:
        status = run.end(120)
        return status, run.said(0), run.said(1)


def test_an_orderly_end(hasty, tmp_path):
    status, first, second = together(hasty, "end", str(tmp_path / "run"))
    assert status == [0, 0], first + second
    assert "done" in first and "done" in second
    assert not list((tmp_path / "run").iterdir())


def test_a_folder_that_not_all_see_is_refused(hasty, tmp_path):
    status, first, second = together(hasty, "other folder", str(tmp_path / "run"))
    assert status == [1, 1]
    assert "run_of_its_own: process 1 on" in second and "does not see what process 0" in second
    assert "does not see what process 0 writes there" in first


def test_different_settings_are_refused_with_the_difference(hasty):
    status, first, second = together(hasty, "other settings")
    assert status == [1, 1]
    for said in (first, second):
        assert "process 1: optim.lr: got 0.2, process 0 has 0.1" in said
        assert "process 1: seed: got 1, process 0 has nothing" in said
        assert "joined" not in said


@pytest.mark.parametrize("which", [0, 1])
def test_an_error_of_one_is_told_to_the_others(hasty, which):
    status, *said = together(hasty, f"fail {which}")
    assert status == [1, 1], "the same command would fail again"
    assert f"process {which}: OSError: the disk has gone" in said[which]
    told = rf"process {which} \(\S+, pid \d+\) ended: OSError: the disk has gone"
    assert re.search(told, said[1 - which])


def test_a_hung_step_is_noticed_with_the_place_where_it_hangs(hasty):
    status, first, second = together(hasty, "hang")
    assert status[1] == 75
    assert "step 3 has not ended within 8 s" in second and "member.py" in second
    assert "step 3 hangs" in first


@pytest.mark.parametrize("victim", [0, 1])
def test_a_dead_process_ends_the_other_which_names_it(hasty, victim):
    with Processes([MEMBER, "live"], hasty, 2, 1) as run:
        run.wait_until(lambda: "joined" in run.said(0) and "joined" in run.said(1), 60)
        time.sleep(2)
        run.kill(victim)
        began = time.monotonic()
        assert run.end(60)[1 - victim] == 75
        assert time.monotonic() - began < 6, "the connection tells, and what a busy machine adds"
        said = run.said(1 - victim)
    assert re.search(rf"ends: process {victim} \(\S+, pid \d+\) has ended without a word", said)
    assert "The same command goes on from the last checkpoint." in said


def test_a_process_that_does_not_come(hasty):
    env = hasty | {"SSL_AUDIO_CONNECT": "4"}
    with Processes([MEMBER, "live"], env, 2, 1) as run:
        run.kill(1)
        assert run.end(60)[0] == 75
        said = run.said(0)
    assert "not all 2 processes met at the coordinator 127.0.0.1:" in said
    assert "within 4 s (SSL_AUDIO_CONNECT)" in said


def test_other_numbers_of_processes_are_refused(hasty):
    command = [
        "-c",
        "import os, sys; i = os.environ['SSL_AUDIO_PROCESS']\n"
        "os.environ['SSL_AUDIO_PROCESSES'] = '3' if i == '1' else '2'\n"
        f"sys.argv = ['', 'live']; exec(open({MEMBER!r}).read())",
    ]
    with Processes(command, hasty, 2, 1) as run:
        assert run.end(60) == [1, 1]
        for said in (run.said(0), run.said(1)):
            assert re.search(
                r"process 0 \(.*\) was started for 2 processes, process 1 \(.*\) for 3", said
            )
