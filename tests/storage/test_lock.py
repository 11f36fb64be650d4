"""One run in a workdir at a time: refused, taken over, given back."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ssl_audio.storage import lock
from ssl_audio.storage.lock import Lock

HOLD = """
import pathlib, sys, time
from ssl_audio.storage.lock import Lock
with Lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Return a process that holds the workdir."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_is_refused_in_one_line_and_follows_a_killed_one_at_once(
    holder, tmp_path, caplog
):
    begun = time.monotonic()
    with pytest.raises(
        ValueError, match=f"another run is at work here: process {holder.pid} on "
    ) as e:
        Lock(tmp_path).__enter__()
    assert "\n" not in str(e.value) and str(tmp_path) in str(e.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Lock(tmp_path) as held:
        held.check()
        assert f"taking over from process {holder.pid} on " in caplog.text
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        with pytest.raises(ValueError, match=f"process {os.getpid()}"):
            Lock(tmp_path).__enter__()
    assert not list(tmp_path.iterdir()) and time.monotonic() - begun < 10
    with Lock(tmp_path):  # again
        pass


def elsewhere(path, monkeypatch):
    """Leave the lock of a process on another machine, as a lost node would."""
    with monkeypatch.context() as patch:
        patch.setattr(lock, "_boot", lambda: "another machine")
        patch.setattr(lock.socket, "gethostname", lambda: "node7")
        other = Lock(path)
    (path / "lock").write_text(json.dumps(other.mine))


def test_a_lock_of_another_machine_expires_and_not_before(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(lock, "POLL", 0.05)
    elsewhere(tmp_path, monkeypatch)
    begun = time.monotonic()
    with Lock(tmp_path, expires=1.0):
        assert 1.0 <= time.monotonic() - begun < 5
    assert "watching for up to 1 s" in caplog.text and "taking over" in caplog.text
    assert "on node7" in caplog.text


def test_a_living_process_of_another_machine_is_seen_by_its_signs(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "POLL", 0.05)
    elsewhere(tmp_path, monkeypatch)
    monkeypatch.setattr(lock.time, "sleep", lambda _: os.utime(tmp_path / "lock"))
    with pytest.raises(ValueError, match="another run is at work here: process .* on node7"):
        Lock(tmp_path, expires=60.0).__enter__()


def test_the_owner_notices_that_another_has_taken_over_or_the_folder_is_gone(tmp_path, monkeypatch):
    with Lock(tmp_path / "run", expires=1.0) as held:
        elsewhere(tmp_path / "run", monkeypatch)
        held.thread.join(5)
        with pytest.raises(RuntimeError, match="process .* on node7.* has taken over"):
            held.check()
    with Lock(tmp_path / "gone") as held:
        (tmp_path / "gone/lock").unlink()
        (tmp_path / "gone").rmdir()
        with pytest.raises(RuntimeError, match="gone: it was removed while the run was under way"):
            held.check()


def test_a_file_that_says_nothing_is_taken(tmp_path):
    (tmp_path / "lock").write_text('{"pi')  # as a full disk or a kill may leave it
    with Lock(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_where_the_kernel_has_no_locks_the_signs_of_life_decide(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "POLL", 0.05)
    monkeypatch.setattr(lock, "hold_file", lambda file: None)
    with Lock(tmp_path, expires=1.0):
        with pytest.raises(ValueError, match="another run is at work here"):
            Lock(tmp_path, expires=1.0).__enter__()
    elsewhere(tmp_path, monkeypatch)
    with Lock(tmp_path, expires=1.0):
        pass
