"""Which processes make up this job, read from the environment; `processes.py` joins them.

Known: SSL_AUDIO_* variables (Kubernetes manifests and launch/local.sh set them), Slurm, Open MPI, TPU pods.
"""

import dataclasses
import re
from collections.abc import Mapping

PORT = 8476  # of the coordinator, where none is given


@dataclasses.dataclass(frozen=True)
class World:
    """The arguments of `jax.distributed.initialize`; None: JAX finds the value by itself.

    Attributes:
      how: what started the processes, for messages.
      coordinator: "host:port" where process 0 listens.
      count: number of processes.
      index: this one's number.
      devices: the accelerators of this machine that this process takes.
    """

    how: str
    coordinator: str | None = None
    count: int | None = None
    index: int | None = None
    devices: tuple[int, ...] | None = None


def detect(env: Mapping[str, str]) -> World | None:
    """Return the world that the environment describes; None: this process is alone.

    Raises:
      ValueError: the variables contradict each other or something is missing, with what to set.
    """
    coordinator = env.get("SSL_AUDIO_COORDINATOR") or env.get("JAX_COORDINATOR_ADDRESS") or None
    if coordinator and not re.search(r":\d+$", coordinator):
        coordinator = f"{coordinator}:{PORT}"
    for find in (_explicit, _slurm, _open_mpi, _tpu):
        world = find(env, coordinator)
        if world is not None:
            return None if world.count == 1 else world
    if coordinator:
        raise ValueError(
            f"a coordinator is named ({coordinator}), but not how many processes there are; set "
            "SSL_AUDIO_PROCESSES and SSL_AUDIO_PROCESS too, or start with srun or mpirun."
        )
    return None


def _explicit(env: Mapping[str, str], coordinator: str | None) -> World | None:
    index = "SSL_AUDIO_PROCESS"
    if not env.get("SSL_AUDIO_PROCESSES"):
        if env.get(index):
            raise ValueError(f"{index} is set, but SSL_AUDIO_PROCESSES (how many) is not.")
        return None
    count = _number(env, "SSL_AUDIO_PROCESSES")
    if count == 1:
        return World("SSL_AUDIO_PROCESSES", count=1)
    if not env.get(index) and env.get("JOB_COMPLETION_INDEX"):
        index = "JOB_COMPLETION_INDEX"  # an indexed job of Kubernetes numbers its pods
    missing = [] if coordinator else ["SSL_AUDIO_COORDINATOR (host:port of process 0)"]
    missing += [] if env.get(index) else [f"{index} (this one's number, from 0)"]
    if missing:
        raise ValueError(f"SSL_AUDIO_PROCESSES={count}, but no {' and no '.join(missing)}.")
    number = _number(env, index)
    if not 0 <= number < count:
        raise ValueError(f"{index}={number}: wanted 0 to {count - 1}, SSL_AUDIO_PROCESSES={count}.")
    return World("SSL_AUDIO_PROCESSES", coordinator, count, number)


def _slurm(env: Mapping[str, str], coordinator: str | None) -> World | None:
    if not env.get("SLURM_STEP_NODELIST") or not env.get("SLURM_PROCID"):
        tasks = env.get("SLURM_NTASKS", "1")
        if env.get("SLURM_JOB_ID") and tasks.isdigit() and int(tasks) > 1:
            raise ValueError(
                f"Slurm gave this job {tasks} tasks, but srun did not start this process. Start it "
                "with srun; or set SSL_AUDIO_PROCESSES=1 to run it alone."
            )
        return None
    count, index, local = (
        _number(env, name) for name in ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    )
    return World("Slurm", coordinator, count, index, slurm_devices(env, local))


def slurm_devices(env: Mapping[str, str], local: int) -> tuple[int, ...] | None:
    """Return the GPUs that task `local` of a node takes: all shared out evenly. None: no GPU.

    JAX alone would give every task one GPU, and leave seven of eight idle with one task per node.
    """
    shown = len([d for d in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if d])
    if not shown:
        return None
    tasks = 1
    if layout := env.get("SLURM_STEP_TASKS_PER_NODE"):  # "8(x2),4": 8, 8 and 4 tasks
        nodes = [
            int(n)
            for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", layout)
            for _ in range(int(times or 1))
        ]
        tasks = nodes[int(env.get("SLURM_NODEID", "0")) % len(nodes)]
    if shown == 1 or shown < int(env.get("SLURM_GPUS_ON_NODE", shown)):
        return tuple(range(shown))  # Slurm has already given each task its own
    if shown % tasks:
        raise ValueError(
            f"Slurm started {tasks} tasks on a node with {shown} GPUs; set --ntasks-per-node to 1 or "
            "to --gpus-per-node."
        )
    share = shown // tasks
    return tuple(range(local * share, (local + 1) * share))


def _open_mpi(env: Mapping[str, str], coordinator: str | None) -> World | None:
    if not env.get("OMPI_COMM_WORLD_SIZE"):
        return None
    if not coordinator and not env.get("OMPI_MCA_orte_hnp_uri"):
        raise ValueError(
            "this Open MPI does not say where process 0 is; add "
            "-x SSL_AUDIO_COORDINATOR=HOST:PORT to mpirun."
        )
    count, index = (_number(env, n) for n in ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"))
    return World("Open MPI", coordinator, count, index)


def _tpu(env: Mapping[str, str], coordinator: str | None) -> World | None:
    # Kubernetes names the workers; a TPU VM must ask its metadata server, so it is told to.
    several = "," in env.get("TPU_WORKER_HOSTNAMES", "")
    several |= env.get("MEGASCALE_NUM_SLICES", "1") != "1"
    return World("TPU", coordinator) if several or env.get("SSL_AUDIO_CLUSTER") == "tpu" else None


def _number(env: Mapping[str, str], name: str) -> int:
    text = env.get(name, "")
    if not text.isdigit():
        raise ValueError(f"{name}: wanted a whole number, got {text!r}.")
    return int(text)
