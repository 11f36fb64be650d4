"""How processes meet before JAX knows them: process 0 admits those of its run and passes their data on.

Process 0 listens at the coordinator's port for all of the run. JAX's coordination service, which takes
anybody and whose loss aborts a process, is on its loopback and reached through here. For `processes.py`.
"""

import abc
import asyncio
import dataclasses
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from ssl_audio.distributed import addresses

log = logging.getLogger("ssl_audio")

AGAIN = getattr(os, "EX_TEMPFAIL", 75)  # exit status: the same command may well succeed
PATIENCE = 10.0  # s for a line that has to come at once
CHECKED = 64  # peers that each process tries to reach


def reason(error: OSError) -> str:
    """Return why a connection failed, in few words."""
    if isinstance(error, TimeoutError) or error.errno is None:
        return "no answer" if isinstance(error, TimeoutError) else str(error)
    return os.strerror(error.errno)


@dataclasses.dataclass(frozen=True)
class Member:
    """What a process says of itself; `job` and `run` are those of all of a run.

    Attributes:
      job: of the launcher, with its start.
      run: what is run, for instance the workdir.
      address: by which the others reach it; "": the one by which it reaches process 0.
    """

    index: int
    count: int
    job: str = ""
    run: str = ""
    address: str = ""
    name: str = dataclasses.field(
        default_factory=lambda: f"{socket.gethostname()}, pid {os.getpid()}"
    )

    def called(self) -> str:
        """Return number, machine and process id, for messages."""
        return f"process {self.index} ({self.name})"

    def belongs(self) -> str:
        """Return what it is part of, for messages."""
        parts = [part for part in (self.run and f"the run {self.run}", self.job) if part]
        return ", ".join(parts) or "a run without a name"


class Rendezvous(abc.ABC):
    """Stays open for all of a run; `lost` is called with the number of a process whose connection ended.

    Attributes:
      names: by number, once all have met.
      address: by which the others reach this process.
    """

    def __init__(self, me: Member, coordinator: str):
        self.me, self.coordinator = me, coordinator
        self.names: dict[int, str] = {}
        self.where: dict[str, list] = {}  # number: address, port and name
        self.address = ""
        self.lost: Callable[[int], Any] = lambda index: None
        self.closing = False
        self.kept = addresses.reserve()
        self.loopback, self.port = self.kept.getsockname()[:2]
        self.loop = asyncio.new_event_loop()
        self.tasks: set[asyncio.Task] = set()
        self.thread = threading.Thread(target=self.loop.run_forever, name="rendezvous", daemon=True)
        self.thread.start()

    @property
    def service(self) -> str:
        """Return host:port, on this machine, where JAX's service is or is reached."""
        return (
            f"[{self.loopback}]:{self.port}"
            if ":" in self.loopback
            else f"{self.loopback}:{self.port}"
        )

    def expect_end(self) -> None:
        """Take the end of others for granted from now on; what they send is passed on still."""
        self.closing = True

    def close(self) -> None:
        """Close all connections."""
        self.closing = True
        asyncio.run_coroutine_threadsafe(self._cancel(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.kept.close()

    async def _cancel(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0.02)  # for the tasks that have just been made to begin
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    def meet(self, seconds: float, heartbeat: float) -> None:
        """Wait for all processes.

        Raises:
          Refused: this process, or all, cannot take part; or not all came within `seconds`.
        """
        asyncio.run_coroutine_threadsafe(self._meet(seconds, heartbeat), self.loop).result()

    @abc.abstractmethod
    async def _meet(self, seconds: float, heartbeat: float) -> None: ...

    def unreached(self) -> list[str]:
        """Return which other processes this one does not reach, and why."""
        return asyncio.run_coroutine_threadsafe(self._unreached(), self.loop).result()

    async def _unreached(self) -> list[str]:
        count, index = self.me.count, self.me.index

        async def reach(other: int) -> str:
            host, port, name = self.where[str(other)]
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), PATIENCE)
                writer.close()
            except OSError as error:
                return f"{self.me.called()} does not reach {name} at {host}: {reason(error)}"
            return ""

        others = [(index + k) % count for k in range(1, min(count, CHECKED + 1))]
        return [line for line in await asyncio.gather(*map(reach, others)) if line]

    def _keep(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self.tasks.discard)

    def _gone(self, index: int) -> None:
        if not self.closing:
            threading.Thread(target=self.lost, args=(index,), daemon=True).start()
