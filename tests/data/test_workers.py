"""Worker processes that are killed, and those whose program is killed: an error, and nothing left behind."""

import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and /dev/shm")

RUN = """
    import multiprocessing, os, signal, sys
    from ssl_audio.data.entries import Audio
    from ssl_audio.data.pipeline import Pipeline
    from ssl_audio.data.synthetic import Synthetic

    if __name__ == "__main__":
        source = Synthetic(64, seconds=0.5)
        batches = Pipeline(dict(a=source), 8, dict(audio=Audio(8000)), workers=2, threads=1).batches()
        next(batches)
        children = [child.pid for child in multiprocessing.active_children()]
        print(*children, flush=True)
        if sys.argv[1] == "kill":
            os.kill(children[0], signal.SIGKILL)
            try:
                for _ in range(1000):
                    next(batches)
            except RuntimeError as error:
                print(error)
        else:
            while True:
                next(batches)
"""


@pytest.fixture
def begin(tmp_path):
    """Return a function that begins to read with two worker processes and returns the program."""
    path = tmp_path / "run.py"
    path.write_text(textwrap.dedent(RUN))
    begun = []

    def begin(what):
        command = [sys.executable, str(path), what]
        pipe = subprocess.PIPE
        begun.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return begun[-1]

    yield begin
    for program in begun:
        program.kill()
        program.communicate()


def test_a_worker_that_is_killed_is_an_error_that_says_what_to_do(begin):
    said, errors = begin("kill").communicate(timeout=120)
    assert "a process that reads clips was ended by SIGKILL" in said, errors
    assert "the same command goes on" in said and "data.workers=0" in said


def test_workers_end_and_give_back_memory_when_their_program_is_killed(begin):
    program = begin("read")
    workers = [pathlib.Path("/proc", number) for number in program.stdout.readline().split()]
    assert len(workers) == 2 and all(worker.exists() for worker in workers)
    shared = set()
    until = time.monotonic() + 60
    while not shared and time.monotonic() < until:  # blocks come and go
        for process in (*workers, pathlib.Path("/proc", str(program.pid))):
            shared |= set(re.findall("/dev/shm/[^ ]+", (process / "maps").read_text()))
    assert shared
    program.send_signal(signal.SIGKILL)
    program.wait()
    until = time.monotonic() + 60
    while time.monotonic() < until:
        left = [path for path in (*workers, *map(pathlib.Path, shared)) if path.exists()]
        if not left:
            break
        time.sleep(0.1)
    assert not left
