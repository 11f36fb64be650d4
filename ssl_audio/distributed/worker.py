"""Any process but 0 of a rendezvous: it looks for process 0 and keeps a connection to it."""

import asyncio
import contextlib
import dataclasses
import json
import socket
import sys
import time
from typing import Any

from ssl_audio.distributed import addresses, relay
from ssl_audio.distributed.addresses import Refused
from ssl_audio.distributed.rendezvous import AGAIN, PATIENCE, Rendezvous, reason

QUIET = 5.0  # s that process 0 may be late without a word


class Closed(ConnectionError):
    """Process 0 closed the connection before all had met."""


class Worker(Rendezvous):
    """Any process but 0."""

    async def _meet(self, seconds: float, heartbeat: float) -> None:
        own = addresses.anywhere()
        self._keep(relay.serve(relay.hang_up, own))
        deadline = time.monotonic() + seconds
        busy_until, told = 0.0, ""
        while True:
            try:
                return await self._attend(own.getsockname()[1], deadline)
            except Refused as refused:
                busy_until = busy_until or time.monotonic() + 1.25 * heartbeat + 2
                if not refused.busy or time.monotonic() > busy_until:
                    raise
                why = (
                    f"{refused} Tries again for {1.25 * heartbeat:.0f} s, in case that one is dead."
                )
            except OSError as error:
                why = self._reason(error)
            if why != told and time.monotonic() > deadline - seconds + QUIET:
                told = why
                print(f"process {self.me.index}: {why}", file=sys.stderr, flush=True)
            if time.monotonic() > deadline:
                unknown = not addresses.resolve(addresses.split(self.coordinator)[0])
                raise Refused(
                    f"not all {self.me.count} processes met at the coordinator {self.coordinator} within "
                    f"{seconds:g} s (SSL_AUDIO_CONNECT): {why}",
                    1 if unknown else AGAIN,
                )
            await asyncio.sleep(0.5)

    def _reason(self, error: OSError) -> str:
        host, port = addresses.split(self.coordinator)
        if isinstance(error, Closed):
            return (
                f"process 0 at {self.coordinator} closed the connection; waits for it to come back."
            )
        if isinstance(error, socket.gaierror):
            return (
                f"the coordinator's name {host} does not resolve ({error.strerror}). Use an address, or add "
                "the name to DNS or /etc/hosts."
            )
        found = [host] if addresses.literal(host) else addresses.resolve(host)
        hint = "Does process 0 run there, and does a firewall leave the port open?"
        if found and all(addresses.is_loopback(each) for each in found):
            hint = (
                f"{found[0]} is this machine itself: where process 0 runs on another, name that one, with an "
                "address that this machine reaches."
            )
        return f"nothing yet at {', '.join(found) or host}, port {port}: {reason(error)}. {hint}"

    async def _attend(self, port: int, deadline: float) -> None:
        host, coordinator = addresses.split(self.coordinator)
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(host, coordinator), PATIENCE
        )
        kept = False
        try:
            here, there = addresses.ends(writer.get_extra_info("socket"))
            relay.say(writer, member=dataclasses.asdict(self.me), port=port)
            said: dict[str, Any] = {}
            while "go" not in said:
                said = await self._hear(reader)
                if "refused" in said:
                    text = f"{said['refused'].rstrip('.')}."
                    raise Refused(text, said["status"], said.get("busy", False))
                if "where" in said:
                    self.where = said["where"]
                    self.names = {int(k): name for k, (*_, name) in self.where.items()}
                    self.address = self.where[str(self.me.index)][0]
                    token = said["token"]
                    relay.say(writer, unreached=await self._unreached())
                elif time.monotonic() > deadline + 2:  # process 0 has more to say
                    raise Refused(
                        f"not all {self.me.count} processes met at the coordinator {self.coordinator} in "
                        f"time (SSL_AUDIO_CONNECT): missing {said.get('missing')}.",
                        AGAIN,
                    )
            kept = True
        finally:
            if not kept:
                writer.close()
        self.kept.listen()
        self._keep(relay.serve(relay.forward(there, coordinator, {"relay": token}), self.kept))
        self._keep(self._until_lost(reader, writer))

    async def _hear(self, reader: asyncio.StreamReader) -> dict[str, Any]:
        line = await asyncio.wait_for(reader.readline(), 6 * PATIENCE)
        if not line:
            raise Closed
        try:
            said = json.loads(line)
            assert isinstance(said, dict)
            return said
        except (ValueError, AssertionError):
            raise Refused(
                f"what listens at {self.coordinator} is not process 0 of ssl_audio: it says {line[:40]!r}. "
                "Give all processes another port (SSL_AUDIO_COORDINATOR)."
            ) from None

    async def _until_lost(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, ValueError):
                while await reader.readline():
                    pass
            self._gone(0)
        finally:
            writer.close()
