"""Which processes make up this job, read from the environment; `processes.py` joins them.

Known: SSL_AUDIO_* variables (Kubernetes manifests and launch/local.sh set them), Slurm, Open MPI, TPU pods.
"""

import dataclasses
import ipaddress
import re
from collections.abc import Mapping

PORT = 8476  # of the coordinator, where none is given
# Where the port has to be computed: the highest ones, of which no system hands out any by itself.
FIRST_PORT, PORTS = 61440, 4096


@dataclasses.dataclass(frozen=True)
class World:
    """The arguments of `jax.distributed.initialize`; None: JAX finds the value by itself.

    Attributes:
      how: what started the processes, for messages.
      coordinator: "host:port" where process 0 listens.
      count: number of processes.
      index: this one's number.
      devices: the accelerators of this machine that this process takes.
      job: what tells this job and start from others of the same launcher; "": nothing does.
    """

    how: str
    coordinator: str | None = None
    count: int | None = None
    index: int | None = None
    devices: tuple[int, ...] | None = None
    job: str = ""


def detect(env: Mapping[str, str]) -> World | None:
    """Return the world that the environment describes; None: this process is alone.

    Raises:
      ValueError: the variables contradict each other or something is missing, with what to set.
    """
    name = (
        "SSL_AUDIO_COORDINATOR" if env.get("SSL_AUDIO_COORDINATOR") else "JAX_COORDINATOR_ADDRESS"
    )
    coordinator = address(env[name], name) if env.get(name) else None
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


def address(text: str, name: str = "coordinator", port: int = PORT) -> str:
    """Return "host:port" (an IPv6 address in brackets) of a host with or without a port.

    Raises:
      ValueError: it is neither a host name nor an address, or the port is none.
    """
    text = text.strip()
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare and _is_address(bare):  # IPv6, whose colons precede no port
        return f"[{bare}]:{port}"
    host, colon, number = text.rpartition(":")
    host = host if colon else text
    if host.startswith("[") and host.endswith("]") and _is_address(host[1:-1]):
        plain = host[1:-1]
    else:
        plain = host if re.fullmatch(r"[A-Za-z0-9_.-]+", host) else ""
    if not plain or (colon and not re.fullmatch(r"\d{1,5}", number)):
        raise ValueError(
            f"{name}: wanted HOST, HOST:PORT, an IPv4 or IPv6 address or [IPv6]:PORT, got {text!r}."
        )
    if colon and not 1 <= int(number) <= 65535:
        raise ValueError(f"{name}: wanted a port from 1 to 65535, got {text!r}.")
    return f"{host}:{int(number) if colon else port}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def port_of(job: int, step: int) -> int:
    """Return the coordinator's port of a job's step: neighbouring jobs and steps have different ones."""
    return FIRST_PORT + (61 * job + step) % PORTS


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
    # A step may have fewer tasks than the job: an interactive shell, or one of several steps.
    tasks = "SLURM_STEP_NUM_TASKS" if env.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
    count, index, local = (_number(env, name) for name in (tasks, "SLURM_PROCID", "SLURM_LOCALID"))
    if count == 1:
        return World("Slurm", count=1)
    if index >= count:
        raise ValueError(f"SLURM_PROCID={index}: wanted 0 to {count - 1}, {tasks}={count}.")
    job = _number(env, "SLURM_JOB_ID")
    step = _number(env, "SLURM_STEP_ID" if env.get("SLURM_STEP_ID") else "SLURM_STEPID", "0")
    if coordinator is None:
        coordinator = address(first_node(env["SLURM_STEP_NODELIST"]), port=port_of(job, step))
    start = env.get("SLURM_RESTART_COUNT") or "0"
    name = f"Slurm job {job}, step {step}, start {start}"
    return World("Slurm", coordinator, count, index, slurm_devices(env, local), name)


def first_node(nodes: str) -> str:
    """Return the first host of a list as Slurm writes it: "gpu[003-007,9]-ib,n1" gives "gpu003-ib"."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0]) if first else nodes


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
    count = _number(env, "OMPI_COMM_WORLD_SIZE")
    if count == 1:
        return World("Open MPI", count=1)
    # "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911" or "…;tcp6://[fd00::1,fd01::1]:34911"
    uri = env.get("OMPI_MCA_orte_hnp_uri", "")
    launcher = re.match(r"(\d+)\.\d+;tcp6?://\[?([0-9A-Fa-f.:]+?)(?:,|\]|:\d+(?:;|$))", uri)
    if coordinator is None and launcher is None:
        raise ValueError(
            "this Open MPI does not say where process 0 is; add "
            "-x SSL_AUDIO_COORDINATOR=HOST:PORT to mpirun."
        )
    if coordinator is None and launcher is not None:
        port = port_of(int(launcher[1]) >> 12, 0)  # the lower bits are always 0
        coordinator = address(launcher[2], "OMPI_MCA_orte_hnp_uri", port)
    name = f"Open MPI job {launcher[1]}" if launcher else ""
    index = _number(env, "OMPI_COMM_WORLD_RANK")
    return World("Open MPI", coordinator, count, index, job=name)


def _tpu(env: Mapping[str, str], coordinator: str | None) -> World | None:
    # Kubernetes names the workers; a TPU VM must ask its metadata server, so it is told to.
    several = "," in env.get("TPU_WORKER_HOSTNAMES", "")
    several |= env.get("MEGASCALE_NUM_SLICES", "1") != "1"
    return World("TPU", coordinator) if several or env.get("SSL_AUDIO_CLUSTER") == "tpu" else None


def _number(env: Mapping[str, str], name: str, default: str = "") -> int:
    text = env.get(name) or default
    if not text.isdigit():
        raise ValueError(f"{name}: wanted a whole number, got {text!r}.")
    return int(text)
