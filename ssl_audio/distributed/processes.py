"""Processes: the only file that knows there may be several. `initialize` precedes any device query."""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import pathlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax

from ssl_audio import versions
from ssl_audio.distributed.environment import World, detect
from ssl_audio.distributed.watchdog import AGAIN, Watch

log = logging.getLogger("ssl_audio")

FACTS, VERDICT, COUNT = "ssl_audio/facts/", "ssl_audio/verdict/", "ssl_audio/count/"
TOKEN, COMPILED = "ssl_audio/token", "ssl_audio/compiled"
TOLD = "ssl_audio/told/"
_told = itertools.count()
_watch: Watch | None = None  # of the run under way in this process


def initialize() -> None:
    """Join the other processes of this job, if the environment names any (see `environment.py`).

    Environment: SSL_AUDIO_CONNECT, s to wait for all of them (300); SSL_AUDIO_HEARTBEAT, s without a
    sign of life after which a process counts as dead and all others end (60).

    Raises:
      ValueError: the environment contradicts itself.
      SystemExit: not all came in time.
    """
    world = detect(os.environ)
    if world is None or jax.distributed.is_initialized():
        return
    seconds, heartbeat = _seconds("SSL_AUDIO_CONNECT", 300), _seconds("SSL_AUDIO_HEARTBEAT", 60)
    with _deadline(seconds, world):
        jax.distributed.initialize(
            coordinator_address=world.coordinator,
            num_processes=world.count,
            process_id=world.index,
            local_device_ids=world.devices,
            initialization_timeout=int(seconds)
            + 60,  # ours comes first: JAX aborts, naming nothing
            heartbeat_timeout_seconds=max(1, round(heartbeat)),
            shutdown_timeout_seconds=int(seconds),
        )
        _same_count(seconds)
    log.info("%s", describe(world.how))


def start() -> None:
    """Join the other processes, and leave the messages to the first."""
    initialize()
    if not is_lead():
        log.setLevel(logging.WARNING)


def describe(how: str) -> str:
    """Return which process of how many this is, and what devices there are."""
    return (
        f"process {index()} of {count()} ({how}; coordinator {_coordinator()}), "
        f"{jax.local_device_count()} of {jax.device_count()} devices here"
    )


@contextlib.contextmanager
def joined(settings: Mapping[str, str], shared: str | os.PathLike = "") -> Iterator[None]:
    """Keep the processes of a run together while the body runs, and end this one when one is lost.

    Environment: SSL_AUDIO_STEP_TIMEOUT, s that a step may take, compilation included (1800; 0: no
    limit); SSL_AUDIO_HEARTBEAT as above.

    Args:
      settings: what must be the same everywhere, by name: compared before anything is computed, with
        the code, the versions of what computes, and the number of processes.
      shared: a folder that all processes must see.

    Raises:
      ValueError: the processes differ, with the differences, or do not see the folder.
    """
    global _watch
    heartbeat = _seconds("SSL_AUDIO_HEARTBEAT", 60)
    timeout = _seconds("SSL_AUDIO_STEP_TIMEOUT", 1800)
    _watch = Watch(_client(), index(), count(), heartbeat, timeout)
    _watch.start()
    try:
        seconds = _seconds("SSL_AUDIO_CONNECT", 300)
        agree(settings, seconds)
        if shared and count() > 1:
            _see(pathlib.Path(shared), seconds)
        yield
    except BaseException as error:
        if count() == 1:
            raise
        _watch.fail(f"{type(error).__name__}: {error}")
        if is_lead():
            _watch.outlast()
        status = error.code if isinstance(error, SystemExit) else 1
        _end(
            f"process {index()}: {type(error).__name__}: {error}",
            status if isinstance(status, int) else 1,
        )
    finally:
        _watch.close()
        _watch = None


@contextlib.contextmanager
def step(number: int) -> Iterator[None]:
    """Mark a training step, so that one that does not end is noticed."""
    if _watch is not None:
        _watch.begin(number)
    yield
    if _watch is not None:
        _watch.end()


def compiled(step: Any, *shapes: Any) -> Any:
    """Return a jitted function ready to run everywhere; alone, it compiles at its first call.

    The first exchange between processes waits only so long (Gloo: 30 s), and compilation takes each of
    them its own time: so they compile, and then meet.
    """
    if count() == 1:
        return step
    program = step.lower(*shapes).compile()
    _client().wait_at_barrier(
        COMPILED, int(1000 * (_seconds("SSL_AUDIO_STEP_TIMEOUT", 1800) or 1e6))
    )
    return program


def from_lead(make: Callable[[], str]) -> str:
    """Return what `make` gives in process 0, in all processes, which wait for it as long as for a step.

    To be called equally often everywhere.
    """
    if count() == 1:
        return make()
    key = f"{TOLD}{next(_told)}"
    if is_lead():
        found = make()
        _client().key_value_set(key, f"={found}")
        return found
    return _wait(_client(), key, _seconds("SSL_AUDIO_STEP_TIMEOUT", 1800) or 1e6, "process 0")[1:]


def heartbeat() -> float:
    """Return the time without a sign of life after which a process counts as dead, s."""
    return _seconds("SSL_AUDIO_HEARTBEAT", 60)


def agree(settings: Mapping[str, str], seconds: float) -> None:
    """Raise ValueError, with the differences, unless all processes have the same settings and code."""
    client = _client()
    if client is None:
        return
    facts = {**settings, **_code(), "number of processes": str(count())}
    client.key_value_set(f"{FACTS}{index()}", json.dumps(facts))
    if is_lead():
        found = []
        for other in range(1, count()):
            theirs = json.loads(_wait(client, f"{FACTS}{other}", seconds, f"process {other}"))
            found += [f"process {other}: {line}" for line in differences(facts, theirs)]
        client.key_value_set(VERDICT, json.dumps(found))
    else:
        found = json.loads(_wait(client, VERDICT, seconds, "process 0"))
    if found:
        more = f"; and {len(found) - 8} more" if len(found) > 8 else ""
        raise ValueError(
            f"the processes of this run differ. {'; '.join(found[:8])}{more}. Start all with the same "
            "command and the same code."
        )


def _see(folder: pathlib.Path, seconds: float) -> None:
    """Raise ValueError unless this process finds what process 0 writes into a folder."""
    client, mark, token = _client(), folder / ".shared", str(time.time_ns())
    if is_lead():
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(token)
        client.key_value_set(TOKEN, token)
        for other in range(1, count()):
            _wait(client, f"{TOKEN}/{other}", seconds, f"process {other}")
        mark.unlink()
        return
    token = _wait(client, TOKEN, seconds, "process 0")
    deadline = time.monotonic() + 10  # network file systems show news late
    while not mark.exists() or mark.read_text() != token:
        if time.monotonic() > deadline:
            raise ValueError(
                f"{folder}: process {index()} on {socket.gethostname()} does not see what process 0 "
                "writes there; use a folder on a file system that all machines share."
            )
        time.sleep(0.1)
    client.key_value_set(f"{TOKEN}/{index()}", "seen")


def differences(lead: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Return "name: got X, process 0 has Y" for whatever is not the same."""
    return [
        f"{name}: got {other.get(name, 'nothing')}, process 0 has {lead.get(name, 'nothing')}"
        for name in sorted(lead.keys() | other.keys())
        if lead.get(name) != other.get(name)
    ]


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

    def __exit__(self, kind, error, _) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        if error is not None and _watch is not None:
            _watch.fail(f"{kind.__name__}: {error}")  # before anything waits for the others

    def _ask(self, number, _) -> None:
        self.asked = True
        for each, handler in self.previous.items():
            signal.signal(each, handler)
        print(f"\n{signal.Signals(number).name}: saving after this step …", file=sys.stderr)


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text or default)
    except ValueError:
        value = -1.0
    if value < 0:
        raise ValueError(f"{name}: wanted a number of seconds, got {text!r}.")
    return value


def _state():
    # Not public, but where Orbax finds it too: number, count, coordinator and key-value store.
    from jax._src import distributed

    return distributed.global_state


def _client() -> Any:
    return _state().client


def _coordinator() -> str:
    return _state().coordinator_address or "not known yet"


def _same_count(seconds: float) -> None:
    """End the process unless all believe in the same number: the first device query would hang."""
    state = _state()
    client, mine, here = _client(), state.num_processes, state.process_id
    client.key_value_set(f"{COUNT}{here}", str(mine))
    for other in range(1, mine) if here == 0 else [0]:
        theirs = _wait(client, f"{COUNT}{other}", seconds, f"process {other}")
        if theirs != str(mine):
            time.sleep(1 if here == 0 else 0)  # the end of process 0 ends the others
            _end(
                f"process {here}: was started for {mine} processes, process {other} for {theirs}. Start all "
                "with the same number.",
                1,
            )


def _end(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    os._exit(status)  # an orderly exit would wait for the others, who wait for this one


@contextlib.contextmanager
def _deadline(seconds: float, world: World) -> Iterator[None]:
    """End the process with a message unless the body ends in time: JAX would abort without one."""

    def give_up():
        count = "all" if world.count is None else f"all {world.count}"
        _end(
            f"process {'?' if world.index is None else world.index} ({world.how}): not {count} "
            f"processes met at the coordinator {_coordinator()} within {seconds:g} s "
            "(SSL_AUDIO_CONNECT). Process 0 listens there: does it run, does the name resolve, does a "
            "firewall close the port? Were all processes started, with the same number of processes?",
            AGAIN,
        )

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _wait(client, key: str, seconds: float, who: str) -> str:
    try:
        return client.blocking_key_value_get(key, int(1000 * seconds))
    except RuntimeError as error:
        raise RuntimeError(f"{who} joined, but reported nothing for {seconds:g} s.") from error


def _code() -> dict[str, str]:
    """Return what computes a run: a digest of every file of the package, and the versions beside it."""
    root = pathlib.Path(__file__).parent.parent
    digests = {
        f"code of {path.relative_to(root).as_posix()}": hashlib.sha256(
            path.read_bytes()
        ).hexdigest()[:8]
        for path in sorted(root.rglob("*.py"))
    }
    return digests | {
        f"version of {name}": version for name, version in versions.versions().items()
    }
