"""A process of a run that computes nothing, for tests of what holds processes together."""

import os
import sys
import time

from ssl_audio import startup
from ssl_audio.distributed import processes

behaviour = sys.argv[1]
startup.logs()  # as the preamble of every verb does
processes.start()
settings = {"optim.lr": "0.1"}
if behaviour == "other settings" and processes.index() == 1:
    settings = {"optim.lr": "0.2", "seed": "1"}
shared = sys.argv[2] if len(sys.argv) > 2 else ""
if behaviour == "other folder" and processes.index() == 1:
    shared += "_of_its_own"
with processes.joined(settings, shared):
    print("joined", processes.index(), os.getpid(), flush=True)
    for number in range(1, 4 if behaviour == "end" else 10_000):
        with processes.step(number):
            if number == 3 and behaviour == f"fail {processes.index()}":
                raise OSError("the disk has gone")
            if number == 3 and behaviour == "hang" and processes.index() == 1:
                time.sleep(1000)
            time.sleep(0.1)
print("done", flush=True)
