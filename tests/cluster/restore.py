"""Restore the newest checkpoint of a workdir on these processes; check every value they hold."""

import json
import pathlib
import sys

import jax
import numpy as np

from ssl_audio import config
from ssl_audio.distributed import processes
from ssl_audio.storage import checkpoint
from ssl_audio.train.loop import plan
from ssl_audio.train.run import Run

workdir = pathlib.Path(sys.argv[1])
processes.start()
run = config.make(Run, json.loads((workdir / "config.json").read_text()))
mesh = run.sharding.mesh()
with processes.joined({}), jax.set_mesh(mesh):
    _, _, wanted = plan(run, mesh, 20, run.data.epoch_steps)
    state = checkpoint.Checkpoints(workdir, keep=9).resume(wanted)
    assert state is not None
    whole, _ = checkpoint.load_params(workdir)
    checked = 0
    for (path, here), there in zip(
        jax.tree_util.tree_leaves_with_path(state.params), jax.tree.leaves(whole), strict=True
    ):
        for shard in here.addressable_shards:
            np.testing.assert_array_equal(shard.data, there[shard.index], str(path))
            checked += 1
    print(f"step {int(state.step)}: {checked} pieces on {jax.device_count()} devices are equal")
