"""Processes: the only file that knows there may be several. `initialize` precedes any device query."""

import atexit
import contextlib
import dataclasses
import itertools
import json
import logging
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax

from ssl_audio.distributed import addresses, facts, xla_flags
from ssl_audio.distributed.coordinator import Coordinator
from ssl_audio.distributed.environment import World, detect
from ssl_audio.distributed.rendezvous import Member, Rendezvous
from ssl_audio.distributed.watchdog import AGAIN, GOES_ON, INTERRUPTED, Watch
from ssl_audio.distributed.worker import Worker

log = logging.getLogger("ssl_audio")

FACTS, VERDICT = "ssl_audio/facts/", "ssl_audio/verdict"
TOKEN, COMPILED = "ssl_audio/token", "ssl_audio/compiled"
TOLD = "ssl_audio/told/"
_told = itertools.count()
# What another start can cure, as JAX reports it: these in the text of its error.
PASSING = "UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|[Gg]loo|onnection|timed out|Timeout"
_watch: Watch | None = None  # of the run under way in this process
_rendezvous: Rendezvous | None = None  # with the other processes, for as long as this one lives


def initialize(run: str = "") -> None:
    """Join the other processes of this job, if the environment names any (see `environment.py`).

    Environment: SSL_AUDIO_CONNECT, s to wait for all of them (300); SSL_AUDIO_HEARTBEAT, s without a
    sign of life after which a process counts as dead and all others end (60); SSL_AUDIO_ADDRESS, the
    address by which the others reach this one, where it is not the one by which it reaches process 0.

    Args:
      run: what is run, such as the workdir: who names another is turned away.

    Raises:
      ValueError: the environment contradicts itself.
      SystemExit: not all came in time (status 75), or they cannot work together (1).
    """
    global _rendezvous
    world = detect(os.environ)
    if world is None or jax.distributed.is_initialized():
        return
    seconds, heartbeat = _seconds("SSL_AUDIO_CONNECT", 300), _seconds("SSL_AUDIO_HEARTBEAT", 60)
    world = _complete(world, seconds)
    assert world.index is not None and world.count is not None and world.coordinator
    try:
        own = addresses.own(os.environ.get("SSL_AUDIO_ADDRESS", ""))
        me = Member(world.index, world.count, world.job, run, own)
        _rendezvous = (Worker if me.index else Coordinator)(me, world.coordinator)
        _rendezvous.meet(seconds, heartbeat)
    except addresses.Refused as refused:
        if _rendezvous is not None:
            _rendezvous.close()
            _rendezvous = None
        again = " The same command may be given again." if refused.status == AGAIN else ""
        print(f"process {world.index} ({world.how}): {refused}{again}", file=sys.stderr, flush=True)
        raise SystemExit(refused.status) from None
    _rendezvous.lost = _lost
    atexit.register(_rendezvous.expect_end)  # before JAX leaves the others, in order
    with _deadline(seconds, world):
        jax.distributed.initialize(
            coordinator_address=_rendezvous.service,
            coordinator_bind_address=_rendezvous.service,
            num_processes=world.count,
            process_id=world.index,
            local_device_ids=world.devices,
            cluster_detection_method="deactivate",
            initialization_timeout=int(seconds)
            + 60,  # ours comes first: JAX aborts, naming nothing
            # Ours comes first here too; this one ends a process whose interpreter is stuck.
            heartbeat_timeout_seconds=round(2 * heartbeat) + 10,
            shutdown_timeout_seconds=int(seconds),
        )
    addresses.reach_by(_rendezvous.address, _client())
    log.info("%s", describe(world.how))


def start(run: str | os.PathLike = "") -> None:
    """Join the other processes of a run, and leave the messages to the first; first set XLA's flags."""
    xla_flags.apply()
    initialize(str(run))
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
        the number of processes. The code and the versions of what computes are in `versions.code()`.
      shared: a folder that all processes must see.

    Raises:
      ValueError: the processes differ, with the differences, or do not see the folder.
    """
    global _watch
    heartbeat = _seconds("SSL_AUDIO_HEARTBEAT", 60)
    timeout = _seconds("SSL_AUDIO_STEP_TIMEOUT", 1800)
    names = {number: f"process {number}" for number in range(count())}
    _watch = Watch(_client(), index(), names, heartbeat, timeout)
    if _rendezvous is not None:  # else the caller has called `jax.distributed.initialize`
        _watch.names, _watch.unreached = _rendezvous.names, _rendezvous.unreached
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
        what, status = f"{type(error).__name__}: {error}", _status(error)
        _watch.fail(what, status)
        if is_lead():
            _watch.outlast()
        again = f" {GOES_ON}" if status == AGAIN else ""
        _end(f"process {index()}: {what}{again}", status)
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


def compiled(make: Callable[[], Any]) -> Any:
    """Return what `make` gives, a compiled program, once all processes have theirs.

    The first exchange between processes waits only so long (Gloo: 30 s), and compilation takes each of
    them its own time: so they compile, and then meet.
    """
    program = make()
    if count() > 1:
        timeout = _seconds("SSL_AUDIO_STEP_TIMEOUT", 1800) or 1e6
        _client().wait_at_barrier(COMPILED, int(1000 * timeout))
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


def from_all(word: str) -> list[str]:
    """Return what each process gives, in all of them; otherwise as `from_lead`."""
    key, seconds = f"{TOLD}{next(_told)}", _seconds("SSL_AUDIO_STEP_TIMEOUT", 1800) or 1e6
    if not is_lead():
        _client().key_value_set(f"{key}/{index()}", f"={word}")

    def gather() -> str:
        others = range(1, count())
        return json.dumps(
            [word, *(_wait(_client(), f"{key}/{i}", seconds, f"process {i}")[1:] for i in others)]
        )

    return json.loads(from_lead(gather))


def heartbeat() -> float:
    """Return the time without a sign of life after which a process counts as dead, s."""
    return _seconds("SSL_AUDIO_HEARTBEAT", 60)


def agree(settings: Mapping[str, str], seconds: float) -> None:
    """Raise ValueError, with the differences, unless all processes have the same settings."""
    client = _client()
    if client is None:
        return
    mine = {**settings, "number of processes": str(count())}
    client.key_value_set(f"{FACTS}{index()}", json.dumps(mine))
    if is_lead():
        found = []
        for other in range(1, count()):
            theirs = json.loads(_wait(client, f"{FACTS}{other}", seconds, f"process {other}"))
            found += [
                f"process {other}: {name}: got {got}, process 0 has {has}"
                for name, has, got in facts.differences(mine, theirs)
            ]
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
            # Before anything waits for the others.
            _watch.fail(f"{kind.__name__}: {error}", _status(error))

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
    return _rendezvous.coordinator if _rendezvous else _state().coordinator_address or "not known"


def _complete(world: World, seconds: float) -> World:
    """Return a world with what JAX has to ask a TPU pod for."""
    if None not in (world.coordinator, world.count, world.index):
        return world
    from jax._src import clusters

    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(
        world.coordinator, world.count, world.index, world.devices, None, int(seconds)
    )
    if None in found[:3]:
        raise ValueError(
            f"{world.how}: JAX does not find the other processes; unset SSL_AUDIO_CLUSTER."
        )
    coordinator, number, index, devices = found
    devices = None if devices is None else tuple(devices)
    return dataclasses.replace(
        world, coordinator=coordinator, count=number, index=index, devices=devices
    )


def _lost(other: int) -> None:
    """End this process: the connection to another one, or to process 0, has closed."""
    if _watch is not None:
        return _watch.lost(other)
    assert _rendezvous is not None
    name = _rendezvous.names[other]
    _end(f"process {index()}: {name} has ended without a word. {GOES_ON}", AGAIN)


def _status(error: BaseException) -> int:
    """Return the exit status after an error: 75 where another start can cure it."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    passing = isinstance(error, jax.errors.JaxRuntimeError) and re.search(PASSING, str(error))
    return AGAIN if passing or isinstance(error, (ConnectionError, TimeoutError)) else 1


def _end(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    os._exit(status)  # an orderly exit would wait for the others, who wait for this one


@contextlib.contextmanager
def _deadline(seconds: float, world: World) -> Iterator[None]:
    """End the process with a message unless the body ends in time: JAX would abort without one."""

    def give_up():
        _end(
            f"process {world.index} ({world.how}): all met at {world.coordinator}, but JAX did not connect "
            f"them within {seconds:g} s (SSL_AUDIO_CONNECT). The same command may be given again.",
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
        raise TimeoutError(f"{who} joined, but reported nothing for {seconds:g} s.") from error
