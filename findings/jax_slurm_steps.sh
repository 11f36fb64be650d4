#!/usr/bin/env bash
# JAX under Slurm: two steps of one job get the same coordinator, and a step of one task waits for the whole job.
#
# Expected: `jax.distributed.initialize()` without arguments, started by two `srun` steps in one allocation, joins each
#   step's tasks with each other; in an interactive step of one task (`salloc -n 4`) it is a process alone.
# Happens: host and port come from the first node of the step and from SLURM_JOB_ID alone, so two steps on the same
#   nodes have one address; gRPC shares a port among listeners, so that the second service starts without an error and
#   tasks of the two can meet. The count is SLURM_NTASKS, which inside a smaller step can be the job's: 4 for one task.
# Matters: two trainings side by side in one allocation end each other ("different incarnation"), or hang.
# Versions: jax 0.10.2, jaxlib 0.10.2; Python 3.11.
# Source: the Slurm class among JAX's cluster detections; Slurm's manual of srun, on SLURM_STEP_ID and
#   SLURM_STEP_NUM_TASKS.
# Output seen:
#   address of step 0: n1:61447
#   address of step 1: n1:61447
#   processes in a step of one task: 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
unset PYTHONPATH
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -qq --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 || exit 2
cat > look.py <<'PY'
import os
import sys

from jax._src.clusters import ClusterEnv

job = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


def found(step):
    os.environ.update(job | {"SLURM_STEP_ID": step, "SLURM_STEPID": step})
    return ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, "slurm", 1)


def expect(label, seen, wanted):
    print(f"{label}: {seen}")
    if seen != wanted:
        sys.exit(f"no longer as described: wanted {wanted}")


expect("address of step 0", found("0")[0], "n1:61447")
expect("address of step 1", found("1")[0], "n1:61447")
expect("processes in a step of one task", found("0")[1], 4)
PY
venv/bin/python look.py
