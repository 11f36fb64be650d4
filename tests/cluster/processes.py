"""Start, watch and kill the processes of one run on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from reference import ROOT

from ssl_audio.train.record import SPEED

OPTIONS = [
    "--config.steps=20",
    "--config.checkpoint.every=5",
    "--config.checkpoint.keep=9",
    "--config.record.progress=False",
    "--config.record.logger=none",
]


def training(workdir, *options, config="ssast"):
    """Return the arguments of python for a run of 20 steps."""
    file = f"{ROOT}/configs/{config}.py:runlocal"
    return [
        f"{ROOT}/tests/cluster/smooth.py",
        "--config",
        file,
        *OPTIONS,
        *options,
        "--workdir",
        str(workdir),
    ]


class Processes:
    """`count` processes of one run with `devices` simulated devices each; a context manager.

    `own`: what the environment of each has besides.
    """

    def __init__(self, arguments, environment, count, devices, own=()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.outputs, self.started = [], []
        for index in range(count):
            env = environment | {
                "JAX_NUM_CPU_DEVICES": str(devices),
                "SSL_AUDIO_COORDINATOR": f"127.0.0.1:{port}",
                "SSL_AUDIO_PROCESSES": str(count),
                "SSL_AUDIO_PROCESS": str(index),
            }
            env |= own[index] if own else {}
            # A file, not a pipe, which nobody would empty.
            output = tempfile.TemporaryFile("w+", errors="replace")
            command = [sys.executable, *arguments]
            process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=output, stderr=output)
            self.outputs.append(output)
            self.started.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process, output in zip(self.started, self.outputs, strict=True):
            if process.poll() is None:
                process.kill()
            process.wait()
            output.close()

    def said(self, index):
        """Return what a process has printed."""
        self.outputs[index].seek(0)
        return self.outputs[index].read()

    def wait_until(self, ready, seconds=600):
        """Wait until ready() or a process has ended; return whether ready()."""
        deadline = time.monotonic() + seconds
        while not ready():
            if any(p.poll() is not None for p in self.started):
                return ready()
            assert time.monotonic() < deadline, [self.said(i) for i in range(len(self.started))]
            time.sleep(0.02)
        return True

    def end(self, seconds=600):
        """Wait until all have ended; return their exit statuses."""
        deadline = time.monotonic() + seconds
        for process in self.started:
            process.wait(timeout=max(1.0, deadline - time.monotonic()))
        return [p.returncode for p in self.started]

    def kill(self, index):
        """End a process as a lost machine would."""
        os.kill(self.started[index].pid, signal.SIGKILL)


def finish(arguments, environment, count, devices):
    """Run to the end; return what the first process printed."""
    with Processes(arguments, environment, count, devices) as run:
        status = run.end()
        assert status == [0] * count, "\n".join(run.said(i)[-3000:] for i in range(count))
        return run.said(0)


def records(workdir):
    """Return step → its record, without what depends on the machine's speed."""
    path = workdir / "metrics.jsonl"
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.endswith("}"):
            record = json.loads(line)
            # An evaluation is a record of its own.
            whole = found.setdefault(record["step"], {})
            whole |= {k: v for k, v in record.items() if k not in SPEED}
    return found
