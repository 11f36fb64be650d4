"""Processes: the only file that knows there may be several. `initialize` precedes any device query."""

import logging
import os
import signal
import sys
import threading

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
            "process %d of %d, %d devices",
            jax.process_index(),
            jax.process_count(),
            jax.device_count(),
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


class Stop:
    """Notice Ctrl-C and SIGTERM, so that the loop can finish its step and save. A second one kills."""

    def __init__(self):
        self.asked = False

    def __enter__(self) -> "Stop":
        # Several processes must stop at the same step: there, JAX's own notice is used instead.
        signals = (signal.SIGINT, signal.SIGTERM)
        here = threading.current_thread() is threading.main_thread()
        self.previous = {}
        if here and count() == 1:
            self.previous = {s: signal.signal(s, self._ask) for s in signals}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _ask(self, number, _) -> None:
        self.asked = True
        for each, handler in self.previous.items():
            signal.signal(each, handler)
        print(f"\n{signal.Signals(number).name}: saving after this step …", file=sys.stderr)


def use_compilation_cache() -> None:
    """Keep compiled programs in ~/.cache/ssl_audio (or SSL_AUDIO_CACHE) for the next start."""
    folder = os.environ.get("SSL_AUDIO_CACHE", os.path.expanduser("~/.cache/ssl_audio/xla"))
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]
        jax.config.update("jax_compilation_cache_dir", folder)


def tune_malloc() -> None:
    """Start this program again with an allocator that keeps memory, on Linux without a GPU.

    XLA's CPU back end takes and returns its arena every step; glibc's defaults turn that into page faults
    that cost a training step up to a third of its time.
    """
    wanted = {
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "MALLOC_TRIM_THRESHOLD_": str(2**34),
        "MALLOC_MMAP_THRESHOLD_": str(2**34),
        "MALLOC_TOP_PAD_": str(2**28),
    }
    if not sys.platform.startswith("linux") or any(name in os.environ for name in wanted):
        return
    if os.path.exists("/proc/driver/nvidia") or os.path.exists("/dev/accel0"):
        return
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})
