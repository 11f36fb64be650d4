"""A process of a run that computes next to nothing, for tests of what holds processes together."""

import os
import sys
import time

import jax
import numpy as np

from ssl_audio import startup
from ssl_audio.distributed import processes

behaviour = sys.argv[1]
shared = sys.argv[2] if len(sys.argv) > 2 else ""
steps = int(sys.argv[3]) if len(sys.argv) > 3 else 10_000
startup.logs()  # as the preamble of every verb does
processes.start(shared)
settings = {"optim.lr": "0.1"}
if behaviour == "other settings" and processes.index() == 1:
    settings = {"optim.lr": "0.2", "seed": "1"}
if behaviour == "other folder" and processes.index() == 1:
    shared += "_of_its_own"


def summed():
    """Exchange a number with all processes; it is their count."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",), (jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    mine = jax.make_array_from_process_local_data(
        rows, np.ones(jax.local_device_count(), np.float32)
    )
    return float(jax.jit(lambda x: x.sum())(mine))


with processes.joined(settings, shared):
    print("joined", processes.index(), os.getpid(), flush=True)
    for number in range(1, 4 if behaviour == "end" else steps + 1):
        with processes.step(number):
            if number == 3 and behaviour == f"fail {processes.index()}":
                raise OSError("the disk has gone")
            if number == 3 and behaviour == "hang" and processes.index() == 1:
                time.sleep(1000)
            if behaviour == "sum":
                print("step", number, summed(), time.time(), flush=True)
            time.sleep(0.1)
print("done", flush=True)
