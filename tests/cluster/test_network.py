"""Runs of several machines on a real network: wrong addresses, cut and slow links, strangers, no shared disk.

Skipped, loudly, where the machine allows no network namespaces.
"""

import re
import signal
import subprocess
import sys
import time

import network
import pytest
from network import Network, Spread
from processes import records, training
from reference import ROOT

MISSING = network.missing()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(MISSING), reason=f"SKIPPED, no test of a network: {MISSING}"),
]
MEMBER = str(ROOT / "tests/cluster/member.py")
BUSY = 8  # s that a machine with other work may add to a bound


@pytest.fixture
def hasty(environment):
    return environment | {
        "SSL_AUDIO_HEARTBEAT": "8",
        "SSL_AUDIO_STEP_TIMEOUT": "60",
        "SSL_AUDIO_CONNECT": "30",
    }


def everything(run):
    return "\n".join(run.said(i)[-3000:] for i in range(len(run.started)))


def until_step(run, step, seconds=120):
    """Wait until all processes have done a step."""
    ready = lambda: all(f"step {step} " in run.said(i) for i in range(len(run.started)))  # noqa: E731
    assert run.wait_until(ready, seconds), everything(run)


@pytest.mark.parametrize(
    ("coordinator", "ipv4"),
    [
        ("a:8476", True),  # Debian: on a itself the name is 127.0.1.1
        ("10.77.0.1:8476", True),
        ("a", False),
        ("fd77:0::1", False),
        ("[fd77:0::1]:9000", True),
    ],
)
def test_machines_find_each_other_whatever_their_own_names_say(hasty, tmp_path, coordinator, ipv4):
    with Network({"a": [0], "b": [0]}, ipv4=ipv4) as net:
        with Spread(
            net, "ab", [MEMBER, "sum", str(tmp_path / "run"), "3"], hasty, coordinator
        ) as run:
            assert run.end(120) == [0, 0], everything(run)
            assert "step 3 2.0" in run.said(0) and "step 3 2.0" in run.said(1)


def test_processes_on_the_coordinators_machine_are_reached_by_those_elsewhere(hasty):
    with Network({"a": [0], "b": [0]}) as net:
        with Spread(net, "aab", [MEMBER, "sum", "", "3"], hasty, "a") as run:
            assert run.end(120) == [0, 0, 0], everything(run)
            assert "step 3 3.0" in run.said(2)


def test_of_two_networks_that_of_the_coordinator_is_taken(hasty):
    with Network({"a": [0, 1], "b": [0, 1]}) as net:
        with Spread(net, "ab", [MEMBER, "sum", "", "3"], hasty, "10.77.1.1") as run:
            assert run.end(120) == [0, 0], everything(run)


def test_two_networks_without_a_way_between_are_refused_with_the_names(hasty):
    with Network({"a": [0, 1], "b": [0], "c": [1]}) as net:
        hosts = {"b": ["127.0.1.1 b", "10.77.0.1 a"], "c": ["127.0.1.1 c", "10.77.1.1 a"]}
        net.hosts = hosts | {"a": ["127.0.1.1 a"]}
        with Spread(net, "abc", [MEMBER, "sum", "", "3"], hasty, "a") as run:
            assert run.end(60) == [1, 1, 1], everything(run)
            for index in range(3):
                assert re.search(
                    r"does not reach process [12] \([bc], pid \d+\) at 10\.77\.", run.said(index)
                )
                assert "SSL_AUDIO_ADDRESS" in run.said(index)
                assert "The same command" not in run.said(index)


@pytest.mark.parametrize(
    ("coordinator", "words"),
    [
        ("b", "b is 10.77.0.2, which is no address of this machine (a)"),
        ("10.77.0.9", "10.77.0.9 is no address of this machine (a)"),
    ],
)
def test_a_coordinator_that_is_another_machine_is_refused_at_once(hasty, coordinator, words):
    with Network({"a": [0], "b": [0]}) as net:
        began = time.monotonic()
        with Spread(net, "a", [MEMBER, "end"], hasty, coordinator, own={"a": {
            "SSL_AUDIO_PROCESSES": "2"}}) as run:  # fmt: skip
            assert run.end(60) == [1]
            assert words in run.said(0) and "SSL_AUDIO_COORDINATOR" in run.said(0)
            assert time.monotonic() - began < BUSY + 5


def test_a_name_that_does_not_resolve_is_named(hasty):
    env = hasty | {"SSL_AUDIO_CONNECT": "3"}
    with Network({"a": [0], "b": [0]}) as net:
        with Spread(net, "ab", [MEMBER, "end"], env, "nowhere") as run:
            assert run.end(60) == [75, 1], everything(run)
            assert "the coordinator's name nowhere does not resolve" in run.said(1)
            assert "This machine does not know the name nowhere itself" in run.said(0)


def test_a_coordinator_that_is_localhost_is_named(hasty):
    env = hasty | {"SSL_AUDIO_CONNECT": "4"}
    with Network({"a": [0], "b": [0]}) as net:
        with Spread(net, "ab", [MEMBER, "end"], env, "127.0.0.1") as run:
            assert run.end(60) == [75, 75], everything(run)
            assert "127.0.0.1 is this machine itself" in run.said(1)
            assert "missing 1" in run.said(0) and "which no other machine can reach" in run.said(0)


@pytest.mark.parametrize("both", [True, False])
def test_a_cut_link_ends_both_sides_within_the_heartbeat(hasty, both):
    with Network({"a": [0], "b": [0]}) as net:
        with Spread(net, "ab", [MEMBER, "sum"], hasty, "a") as run:
            until_step(run, 3)
            began = time.monotonic()
            net.cut_between("a", "b", both)
            quarter = lambda: "no answer from process 0 (a, pid" in run.said(1)  # noqa: E731
            assert run.wait_until(quarter, 8 / 4 + 8 / 12 + BUSY / 2), everything(run)
            assert run.end(60) == [75, 75], everything(run)
            assert time.monotonic() - began < 8 * 13 / 12 + BUSY
            assert re.search(r"ends: no (answer|sign of life) from process 0 \(a, pid \d+\)|"
                             r"ends: process 0 \(a", run.said(1))  # fmt: skip
            assert re.search(r"process 1 \(b, pid \d+\)", run.said(0))
            assert "The same command goes on from the last checkpoint." in run.said(0)
            assert "The same command goes on from the last checkpoint." in run.said(1)


def test_a_cut_of_half_a_heartbeat_is_survived(hasty):
    with Network({"a": [0], "b": [0]}) as net:
        with Spread(net, "ab", [MEMBER, "sum", "", "60"], hasty, "a") as run:
            until_step(run, 3)
            net.cut_between("a", "b")
            time.sleep(8 / 2)
            net.mend()
            assert run.end(120) == [0, 0], everything(run)
            assert "is heard again" in run.said(0) + run.said(1)


def test_workers_cut_from_each_other_but_not_from_process_0(hasty):
    with Network({"a": [0], "b": [0], "c": [0]}) as net:
        with Spread(net, "abc", [MEMBER, "sum"], hasty, "a") as run:
            until_step(run, 3)
            began = time.monotonic()
            net.cut_between("b", "c")
            assert run.end(120) == [75, 75, 75], everything(run)
            assert time.monotonic() - began < 2 * 8 + 20 + BUSY
            for index in range(3):  # all learn which two do not reach each other
                one = re.search(
                    r"process 1 \(b, pid \d+\) does not reach process 2 \(c", run.said(index)
                )
                other = re.search(
                    r"process 2 \(c, pid \d+\) does not reach process 1 \(b", run.said(index)
                )
                assert one or other, everything(run)


def test_a_training_cut_in_two_goes_on_with_the_same_losses(environment, tmp_path):
    env = environment | {"SSL_AUDIO_HEARTBEAT": "12"}
    with Network({"a": [0], "b": [0]}) as net:
        with Spread(net, "ab", training(tmp_path / "whole"), env, "a") as run:
            assert run.end() == [0, 0], everything(run)
        cut = tmp_path / "cut"
        with Spread(net, "ab", training(cut), env, "a") as run:
            assert run.wait_until(lambda: len(records(cut)) >= 7), everything(run)
            began = time.monotonic()
            net.cut_between("a", "b")
            assert run.end(120) == [75, 75], everything(run)
            assert time.monotonic() - began < 12 * 13 / 12 + 2 * BUSY
            for index in range(2):
                assert re.search(rf"process {1 - index} \({'ba'[index]}, pid", run.said(index))
                assert "The same command goes on from the last checkpoint." in run.said(index)
        net.mend()
        with Spread(net, "ab", training(cut), env, "a") as run:
            assert run.end() == [0, 0], everything(run)
            assert "resumed at step" in run.said(0)
    assert records(cut) == records(tmp_path / "whole")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_paused_process(hasty, victim):
    with Network({"a": [0], "b": [0]}) as net:
        with Spread(net, "ab", [MEMBER, "sum"], hasty, "a") as run:
            until_step(run, 3)
            run.started[victim].send_signal(signal.SIGSTOP)
            time.sleep(8 / 2)
            run.started[victim].send_signal(signal.SIGCONT)
            time.sleep(3)
            assert [p.poll() for p in run.started] == [None, None], everything(run)
            assert "did not run for" in run.said(victim)
            assert "no answer" not in run.said(victim), "the pause was its own"
            run.started[victim].send_signal(signal.SIGSTOP)
            began = time.monotonic()
            assert run.started[1 - victim].wait(60) == 75
            assert time.monotonic() - began < 8 * 13 / 12 + BUSY
            run.started[victim].send_signal(signal.SIGCONT)
            assert run.end(60) == [75, 75], everything(run)
            assert time.monotonic() - began < 2 * 8 + 2 * BUSY
            name = ("process 0 (a, pid", "process 1 (b, pid")[victim]
            assert name in run.said(1 - victim)


def test_a_stray_process_is_told_and_harms_nothing(hasty):
    env = hasty | {"SSL_AUDIO_HEARTBEAT": "4"}
    with Network({"a": [0], "b": [0], "c": [0]}) as net:
        with Spread(net, "ab", [MEMBER, "sum", "", "150"], env, "a") as run:
            until_step(run, 3)
            stray = env | {"SSL_AUDIO_COORDINATOR": "a", "SSL_AUDIO_PROCESSES": "2",
                           "SSL_AUDIO_PROCESS": "1"}  # fmt: skip
            run.add(net, "c", [MEMBER, "sum"], stray)
            assert run.started[2].wait(60) == 1
            assert "the number 1 is that of process 1 (b, pid" in run.said(2)
            assert "refused process 1 (c, pid" in run.said(0)
            other = [MEMBER, "sum", "another/workdir"]
            run.add(net, "c", other, stray)
            assert run.started[3].wait(60) == 1
            assert "another/workdir" in run.said(3)
            first = stray | {"SSL_AUDIO_PROCESS": "0"}
            run.add(net, "a", other, first)
            assert run.started[4].wait(60) == 1
            assert "port 8476 of this machine (a) is in use already" in run.said(4)
            jax = "import jax; jax.distributed.initialize('a:8476', 2, 1, initialization_timeout=5)"
            run.add(net, "c", ["-c", jax], stray)
            assert run.started[5].wait(60) != 0
            assert [p.wait(120) for p in run.started[:2]] == [0, 0], everything(run)


def test_noise_on_the_port_is_ignored(hasty):
    noise = """
import os, socket, time
texts = [b"GET / HTTP/1.1\\r\\n\\r\\n", os.urandom(100), b"[" * 60000 + b"\\n", b"{}\\n", b"[]\\n", b"1\\n",
    b"", b'{"member": {"index": 1}}\\n', b'{"relay": "x"}\\n', b'{"member": 3, "port": {}}\\n']
kept = [socket.create_connection(("a", 8476)) for _ in texts]
[one.sendall(text) for one, text in zip(kept, texts)]
time.sleep(5)
"""
    with Network({"a": [0], "b": [0]}) as net:
        with Spread(net, "a", [MEMBER, "sum", "", "3"], hasty, "a",
                    own={"a": {"SSL_AUDIO_PROCESSES": "2"}}) as run:  # fmt: skip
            time.sleep(8)  # process 0 waits
            env = hasty | {"SSL_AUDIO_COORDINATOR": "a", "SSL_AUDIO_PROCESSES": "2"}
            run.add(net, "b", ["-c", noise], hasty)
            time.sleep(1)
            run.add(net, "b", [MEMBER, "sum", "", "3"], env | {"SSL_AUDIO_PROCESS": "1"})
            assert run.end(120) == [0, 0, 0], everything(run)
            assert "refused something at 10.77.0.2 that is no process of ssl_audio" in run.said(0)


def test_another_program_at_the_coordinators_port_is_named(hasty):
    with Network({"a": [0], "b": [0]}) as net:
        web = subprocess.Popen(
            net.enter("a", [sys.executable, "-c", "import socket\n"
            "s = socket.create_server(('', 8476))\n"
            "while True: c, _ = s.accept(); c.sendall(b'220 mail\\r\\n')"])
        )  # fmt: skip
        try:
            time.sleep(2)
            with Spread(net, "ab", [MEMBER, "sum"], hasty, "a") as run:
                assert run.end(60) == [1, 1], everything(run)
                assert "port 8476 of this machine (a) is in use already" in run.said(0)
                assert "is not process 0 of ssl_audio: it says b'220 mail" in run.said(1)
        finally:
            web.kill()
            web.wait()


def test_disks_of_their_own_are_refused(hasty, tmp_path):
    mounts = {"b": f"mount -t tmpfs none {tmp_path} && "}
    with Network({"a": [0], "b": [0]}) as net:
        command = [MEMBER, "sum", str(tmp_path / "run")]
        with Spread(net, "ab", command, hasty, "a", mounts) as run:
            assert run.end(60) == [1, 1], everything(run)
            assert "process 1 on b does not see what process 0 writes there" in run.said(0)
            assert "share.. " not in run.said(0) and "The same command" not in run.said(0)
