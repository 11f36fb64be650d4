"""What a watch says and when it ends its process, over a key-value store in memory."""

import faulthandler
import io
import sys
import threading
import time

import pytest
from jax.errors import JaxRuntimeError

from ssl_audio.distributed import processes, watchdog
from ssl_audio.distributed.watchdog import Watch

NAMES = {0: "process 0 (a, pid 1)", 1: "process 1 (b, pid 2)", 2: "process 2 (c, pid 3)"}


class Store:
    """The key-value store of `jax.distributed`; `cut`: no call returns."""

    def __init__(self):
        self.values, self.cut = {}, threading.Event()

    def key_value_set(self, key, value, allow_overwrite=False):
        self._answer()
        self.values[key] = value

    def key_value_dir_get(self, prefix):
        self._answer()
        return [(k, v) for k, v in list(self.values.items()) if k.startswith(prefix)]

    def _answer(self):
        if self.cut.is_set():
            time.sleep(30)


STARTED = []  # watches, and events that end what moves counters


@pytest.fixture(autouse=True)
def closed():
    """Stop all threads of a test."""
    yield
    while STARTED:
        STARTED.pop().set()


@pytest.fixture
def ended(monkeypatch):
    """Return where the exit status appears, in place of the end of this process."""
    found, end = [], threading.Event()

    def leave(status):
        found.append(status)
        end.set()
        time.sleep(30)

    monkeypatch.setattr(watchdog.os, "_exit", leave)
    found.append(end)
    return found


def watching(store, index, heartbeat=1.2, **more):
    watch = Watch(store, index, NAMES, heartbeat, 0)
    vars(watch).update(more)
    watch.start()
    STARTED.append(watch.over)
    return watch


def alive(store, *others, until=lambda: False):
    """Move the counters of other processes."""

    over = threading.Event()
    STARTED.append(over)

    def move():
        for beat in range(10_000):
            if until() or over.is_set():
                return
            for other in others:
                store.values[f"{watchdog.BEAT}{other}"] = f"{beat} 7"
            time.sleep(0.05)

    threading.Thread(target=move, daemon=True).start()


def test_a_coordinator_without_answer_is_named_after_a_quarter_of_the_heartbeat(ended, capfd):
    store = Store()
    alive(store, 0, 2)
    began, _ = time.monotonic(), watching(store, 1)
    time.sleep(0.3)
    store.cut.set()
    said, cut = "", time.monotonic()
    while "no answer" not in said and time.monotonic() - cut < 5:
        time.sleep(0.02)
        said += capfd.readouterr().err
    assert time.monotonic() - cut < 1.2 * (1 / 4 + 2 / 12) + 0.3
    assert (
        "process 1: no answer from process 0 (a, pid 1) for 0 s, at step 7 when last heard" in said
    )
    assert ended[0].wait(5) and ended[1] == 75
    assert time.monotonic() - began < 0.3 + 1.2 * 14 / 12 + 0.5
    said = capfd.readouterr().err
    assert "ends: no answer from process 0 (a, pid 1)" in said and "same command goes on" in said


def test_a_silent_process_is_named_and_the_others_learn_of_it(ended, capfd):
    store = Store()
    alive(store, 1)
    alive(store, 2, until=lambda: True)
    watching(store, 0)
    assert ended[0].wait(5) and ended[1] == 75
    assert "ends: no sign of life from process 2 (c, pid 3) for 1 s" in capfd.readouterr().err
    assert store.values[f"{watchdog.FAILED}2"] == '["no sign of life for 1 s", 75]'


@pytest.mark.parametrize(("status", "again"), [(1, False), (75, True)])
def test_the_status_of_the_one_that_failed_is_that_of_all(ended, capfd, status, again):
    store = Store()
    alive(store, 0, 2)
    watching(store, 1, heartbeat=0.6)
    store.values[f"{watchdog.FAILED}2"] = f'["ValueError: a folder that all share.", {status}]'
    assert ended[0].wait(5) and ended[1] == status
    said = capfd.readouterr().err
    assert "ends: process 2 (c, pid 3) ended: ValueError: a folder that all share. " in said
    assert ("The same command goes on" in said) == again


def test_who_ends_in_order_is_not_missed(ended):
    store = Store()
    store.values[f"{watchdog.BEAT}1"] = store.values[f"{watchdog.BEAT}2"] = "done"
    watch = watching(store, 0, heartbeat=0.4)
    watch.lost(1)
    assert not ended[0].wait(1.0)
    watch.close()
    assert store.values[f"{watchdog.BEAT}0"] == "done"


def test_a_closed_connection_ends_the_others_at_once(ended, capfd):
    store = Store()
    watch = watching(store, 0, heartbeat=60)
    threading.Thread(target=watch.lost, args=(2,), daemon=True).start()
    watch.gone = {1, 2}  # none is left to read why
    assert ended[0].wait(3) and ended[1] == 75
    assert "process 2 (c, pid 3) has ended without a word" in capfd.readouterr().err


def test_a_silence_for_which_this_process_was_stopped_does_not_count(capfd):
    watch = Watch(Store(), 1, NAMES, 60, 0)
    watch.answered -= 50
    watch.heard = {2: watch.answered}
    watch._excuse(49.0)
    watch._judge(time.monotonic())
    said = capfd.readouterr().err
    assert "did not run for 49 s" in said and "no answer" not in said and "no sign" not in said


def test_a_step_that_waits_for_one_that_cannot_be_reached(ended, capfd):
    store = Store()
    alive(store, 0, 2)
    line = "process 1 (b, pid 2) does not reach process 2 (c, pid 3) at 10.0.0.3: no answer"
    watch = watching(store, 1, heartbeat=0.4, unreached=lambda: [line])
    assert not ended[0].wait(0.7), "between steps nothing is waited for"
    watch.begin(1)
    assert ended[0].wait(5) and ended[1] == 75
    assert f"ends: {line}. The same command goes on" in capfd.readouterr().err


def test_where_stderr_is_no_file_as_in_a_notebook_steps_are_watched_too(ended, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    Watch(None, 0, NAMES, 60, 900).begin(4)  # the interpreter's own alarm
    faulthandler.cancel_dump_traceback_later()
    watch = watching(None, 0, step_timeout=0.3, interval=0.1)
    watch.number, watch.begun = 5, time.monotonic()
    assert ended[0].wait(5) and ended[1] == 75
    assert "step 5 has not ended within 0.3 s" in said.getvalue()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("optim.lr: got -1"), 1),
        (OSError("the disk is full"), 1),
        (MemoryError(), 1),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(3), 3),
        (SystemExit("a message"), 1),
        (TimeoutError("process 2 joined, but reported nothing"), 75),
        (ConnectionResetError(), 75),
        (JaxRuntimeError("UNAVAILABLE: Connection reset by peer"), 75),
        (JaxRuntimeError("Gloo all-reduce failed: Read error [10.0.0.3]:4321"), 75),
        (RuntimeError("loss of connection.wav is nan"), 1),
    ],
)
def test_what_another_start_can_cure_ends_with_75(error, status):
    assert processes._status(error) == status


@pytest.mark.parametrize(("status", "posted"), [(1, 1), (75, 75), (130, 75)])
def test_how_a_process_ends_is_told(status, posted):
    store = Store()
    Watch(store, 1, NAMES, 60, 0).fail("OSError: the disk has gone", status)
    assert store.values[f"{watchdog.FAILED}1"] == f'["OSError: the disk has gone", {posted}]'
