"""Calls spread over the machines of a Ray cluster, each in a process of its own; lost ones are done again.

Called by `storage/division.py` for `--engine ray`. Ray is imported here only.
"""

import contextlib
import importlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ssl_audio import startup
from ssl_audio.versions import __version__

RETRIES = 3  # of a call whose process or machine was lost
PATIENCE = 10.0  # s; until a cluster answers
PER_PLACE = 4  # calls for each place where one can run at a time; a lost one costs as much less
# Of the environment that workers get.
SETTINGS = ("SSL_AUDIO_", "JAX_PLATFORMS", "XLA_FLAGS")

log = logging.getLogger(__name__)


class Share(NamedTuple):
    """What of a machine one call takes, and how many such places there are."""

    cpus: float
    gpus: int
    places: int


def run(function: str, calls: Callable[[int], Mapping[str, Any]], count: int, *, gpu: bool) -> None:
    """Call a function with each of some arguments on the cluster of RAY_ADDRESS, else of this machine.

    A call takes a whole machine (as many processors as the smallest has), or where `gpu` is asked and there
    are such, one GPU and its share of the processors. What processes say is shown here, as far as Ray does.

    Args:
      function: MODULE:NAME, found on every machine.
      calls: returns name → argument of each call, given how many there are.
      count: of them; 0: a few for each place.
      gpu: whether the function computes with one.

    Raises:
      ValueError, RuntimeError: the first that a call raised, with its name; what ended well stays done.
    """
    with _connected() as ray:
        share = shares(ray.nodes(), gpu)
        some = calls(count or PER_PLACE * share.places)
        env = {k: v for k, v in os.environ.items() if k.startswith(SETTINGS)}
        env["TQDM_DISABLE"] = "1"
        # A process ends with its call, since the next has other settings and JAX keeps a GPU's memory.
        remote = ray.remote(
            num_cpus=share.cpus,
            num_gpus=share.gpus,
            max_calls=1,
            max_retries=RETRIES,
            runtime_env={"env_vars": env},
        )(_call)
        here = os.getcwd()
        waiting = {
            remote.remote(function, argument, here, __version__): name
            for name, argument in some.items()
        }
        log.info(
            "%d parts on %d machines, %d at a time",
            len(some), sum(node["Alive"] for node in ray.nodes()), share.places,
        )  # fmt: skip
        _wait(ray, waiting)


def shares(nodes: list[dict[str, Any]], gpu: bool) -> Share:
    """Return what one call takes, given what Ray says of its nodes."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpu = [found for found in alive if gpu and found.get("GPU", 0) >= 1]
    if with_gpu:
        cpus = min(found.get("CPU", 0) // found["GPU"] for found in with_gpu)
        return Share(max(cpus, 0.0), 1, int(sum(found["GPU"] for found in with_gpu)))
    processors = [found["CPU"] for found in alive if found.get("CPU", 0) >= 1]
    if not processors:  # machines that will be added when something waits for them
        return Share(1.0, 0, 1)
    least = min(processors)
    return Share(least, 0, int(sum(found // least for found in processors)))


def _wait(ray: Any, waiting: dict[Any, str]) -> None:
    from tqdm import tqdm

    with tqdm(total=len(waiting), unit="part", desc="ray", dynamic_ncols=True) as bar:
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            name = waiting.pop(done)
            try:
                host = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                kind = ValueError if isinstance(cause, ValueError) else RuntimeError
                said = str(cause) if kind is ValueError else f"{type(cause).__name__}: {cause}"
                raise kind(f"{name}: {said}") from None
            except ray.exceptions.RayError as error:
                raise RuntimeError(
                    f"{name}: lost {1 + RETRIES} times ({type(error).__name__}: {error}). The same command "
                    "goes on with what is left."
                ) from None
            bar.set_postfix_str(f"{name} on {host}")
            bar.update()


@contextlib.contextmanager
def _connected() -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise RuntimeError("--engine ray takes Ray: pip install 'ssl_audio[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    # Of a cluster that Ray starts here; Ray would report its use otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS", "")
    local: dict[str, Any] = {} if address else {"include_dashboard": False}
    _see(address)
    ray.init(logging_level=logging.WARNING, **local)
    try:
        yield ray
    finally:
        ray.shutdown()


def _see(address: str) -> None:
    """Raise RuntimeError unless something listens at an address; Ray would try for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():  # auto, local
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except OSError as error:
        raise RuntimeError(
            f"RAY_ADDRESS: got {address}, where nothing answers ({error.strerror or error}); wanted the "
            "HOST:PORT that `ray start --head` tells, or leave it unset."
        ) from None


def _call(function: str, argument: Any, folder: str, version: str) -> str:
    """Do one call, in a worker of Ray; return the machine's name."""
    host = socket.gethostname()
    if version != __version__:
        raise RuntimeError(f"{host} has ssl_audio {__version__}, and {version} started the work")
    with contextlib.suppress(OSError):  # paths may all be absolute
        os.chdir(folder)
    startup.tune_cpu()
    startup.logs()
    startup.use_compilation_cache()
    module, _, name = function.partition(":")
    try:
        getattr(importlib.import_module(module), name)(argument)
    except SystemExit as stop:
        # For Ray that is a process that was lost: it would try again, and show no message.
        raise RuntimeError(str(stop.code)) from None
    return host
