"""Processes: the only file that knows there may be several. `initialize` precedes any device query."""

import logging
import os

import jax

# One of these is set wherever `jax.distributed` can find the other processes by itself.
CLUSTER_VARIABLES = (
    "JAX_COORDINATOR_ADDRESS",
    "SLURM_STEP_NODELIST",
    "OMPI_MCA_orte_hnp_uri",
    "TPU_WORKER_HOSTNAMES",
)


def initialize() -> None:
    """Join the other processes of this job, if the environment names any."""
    if any(os.environ.get(name) for name in CLUSTER_VARIABLES):
        jax.distributed.initialize()
        logging.getLogger(__name__).info(
            "process %d of %d, %d devices", jax.process_index(), jax.process_count(), jax.device_count()
        )


def is_lead() -> bool:
    """Tell whether this process writes the logs."""
    return jax.process_index() == 0


def count() -> int:
    """Return the number of processes."""
    return jax.process_count()


def index() -> int:
    """Return this process's number."""
    return jax.process_index()
