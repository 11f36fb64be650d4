"""Process 0 of a rendezvous: it admits the processes of its run, and refuses others as long as that lasts."""

import asyncio
import contextlib
import dataclasses
import json
import secrets
import sys
import time
from collections import Counter
from typing import Any, NoReturn

from ssl_audio.distributed import addresses, relay
from ssl_audio.distributed.addresses import Refused
from ssl_audio.distributed.rendezvous import AGAIN, PATIENCE, Member, Rendezvous


@dataclasses.dataclass
class Peer:
    """Another process, as process 0 knows it."""

    member: Member
    writer: asyncio.StreamWriter
    address: str  # by which it reaches process 0
    reached: str  # the address of process 0 that it reached
    port: int  # where it listens for the others
    answer: asyncio.Future[dict]


class Coordinator(Rendezvous):
    """Process 0."""

    def __init__(self, me: Member, coordinator: str):
        self.door = addresses.listen(coordinator, me.address)
        super().__init__(me, coordinator)
        self.token = secrets.token_hex(8)  # of this start
        self.peers: dict[int, Peer] = {}
        self.refused: list[str] = []
        self.wrong: Refused | None = None
        self.go = False
        self.changed = asyncio.Event()

    async def _meet(self, seconds: float, heartbeat: float) -> None:
        self._keep(relay.serve(self._greet, self.door))
        deadline, told = time.monotonic() + seconds, False
        while missing := [k for k in range(1, self.me.count) if k not in self.peers]:
            for peer in list(self.peers.values()):
                relay.say(peer.writer, missing=missing)
            if not told and time.monotonic() > deadline - seconds + PATIENCE:
                told = True
                some = _some(missing)
                print(
                    f"process 0: waits for {some} at {self.coordinator}.",
                    file=sys.stderr,
                    flush=True,
                )
            if time.monotonic() > deadline:
                await self._end_all(Refused(self._late(missing, seconds), AGAIN))
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), 1)
            if self.wrong is not None:
                await self._end_all(self.wrong)
        self.where = where = self._where()
        self.names = {int(k): name for k, (*_, name) in where.items()}
        for peer in self.peers.values():
            relay.say(peer.writer, token=self.token, where=where)
        found = await self._unreached()
        for peer in self.peers.values():
            try:
                found += (await asyncio.wait_for(peer.answer, 3 * PATIENCE))["unreached"]
            except (TimeoutError, KeyError):
                await self._end_all(Refused(f"{peer.member.called()} came, and went silent", AGAIN))
        if found:
            more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
            await self._end_all(
                Refused(
                    f"{'; '.join(found[:4])}{more}. All reach process 0; so the machines are on two "
                    "networks, or a firewall is between them. Give each process the address by which all "
                    "others reach it in SSL_AUDIO_ADDRESS, or open the ports between the machines."
                )
            )
        for peer in self.peers.values():
            relay.say(peer.writer, go=True)
        self.go = True
        self._keep(self._ping())

    async def _ping(self) -> None:
        """Use the connections, lest something on the way takes them for forgotten."""
        while True:
            await asyncio.sleep(60)
            for peer in self.peers.values():
                relay.say(peer.writer, ping=True)

    def _where(self) -> dict[str, list]:
        """Return number → address, port and name of each process; sets this one's address."""
        reached = [g.reached for g in self.peers.values() if not addresses.is_loopback(g.reached)]
        # Those on this machine may have come by its loopback, by which nobody else comes.
        outside = Counter(reached).most_common(1)[0][0] if reached else ""
        here = self.me.address or outside
        self.address = here or next(iter(self.peers.values())).reached
        where = {"0": [self.address, self.door.getsockname()[1], self.me.called()]}
        for index, peer in sorted(self.peers.items()):
            address = peer.member.address or peer.address
            if here and addresses.is_loopback(address):
                address = here
            where[str(index)] = [address, peer.port, peer.member.called()]
        return where

    def _late(self, missing: list[int], seconds: float) -> str:
        host = addresses.split(self.coordinator)[0]
        known = [host] if addresses.literal(host) else addresses.resolve(host)
        hint = ""
        if not known:
            hint = f" This machine does not know the name {host} itself; do the others?"
        elif all(map(addresses.is_loopback, known)):
            hint = (
                f" Here {host} is {known[0]}, which no other machine can reach; there it has to be an "
                "address of this one."
            )
        away = f" Refused: {'; '.join(self.refused[:4])}." if self.refused else ""
        return (
            f"not all {self.me.count} processes met at the coordinator {self.coordinator} within "
            f"{seconds:g} s (SSL_AUDIO_CONNECT): missing {_some(missing)}. Were they started, with the same "
            f"coordinator? Does a firewall close its port?{hint}{away}"
        )

    async def _end_all(self, refused: Refused) -> NoReturn:
        for peer in self.peers.values():
            relay.say(peer.writer, refused=str(refused), status=refused.status)
        await asyncio.sleep(
            0.5
        )  # for them to hear it: the end of this process closes the connections
        raise refused

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        here, there = addresses.ends(writer.get_extra_info("socket"))
        try:
            line = await asyncio.wait_for(reader.readline(), PATIENCE)
            if not line:  # a process of this run that tries whether it reaches this one
                return
            said = json.loads(line)
            if said.get("relay"):
                if said["relay"] == self.token:
                    await relay.to_service(reader, writer, self.loopback, self.port)
                return
            member = Member(**said["member"])
            assert isinstance(member.index, int) and isinstance(said["port"], int)
        except Exception:  # whatever a stranger may send
            return self._refuse(f"something at {there} that is no process of ssl_audio")
        if why := self._refusal(member):
            self._refuse(f"{member.called()} at {there}: {why[0]}")
            return relay.say(writer, refused=f"{self.me.called()} says: {why[0]}", **why[1])
        peer = Peer(member, writer, there, here, said["port"], self.loop.create_future())
        self.peers[member.index] = peer
        self.changed.set()
        try:
            while line := await reader.readline():
                if not peer.answer.done():
                    peer.answer.set_result(json.loads(line))
        except (OSError, ValueError):
            pass
        if not peer.answer.done():
            peer.answer.set_result({})
        if self.go:
            self._gone(member.index)
        elif self.peers.get(member.index) is peer and not self.names:
            del self.peers[member.index]  # it may come again

    def _refuse(self, who: str) -> None:
        if who not in self.refused and len(self.refused) < 100:
            self.refused.append(who)
            print(f"process 0: refused {who}.", file=sys.stderr, flush=True)

    def _refusal(self, other: Member) -> tuple[str, dict[str, Any]] | None:
        """Return why a process cannot take part, and what to send with it; None: it can."""
        if (other.job, other.run) != (self.me.job, self.me.run):
            text = (
                f"it belongs to {other.belongs()}, and process 0 here to {self.me.belongs()}. Start all with "
                "the same command, and each run with a port of its own (SSL_AUDIO_COORDINATOR)"
            )
            return text, {"status": 1}
        if other.count != self.me.count:
            text = (
                f"{self.me.called()} was started for {self.me.count} processes, {other.called()} for "
                f"{other.count}. Start all with the same number"
            )
            if not self.go:
                self.wrong = Refused(f"{text}.")
                self.changed.set()
            return text, {"status": 1}
        if not 0 <= other.index < self.me.count:
            return f"wanted a number from 0 to {self.me.count - 1}, got {other.index}", {
                "status": 1
            }
        holder = self.me if other.index == 0 else None
        if other.index in self.peers:
            holder = self.peers[other.index].member
        if holder is not None:
            text = (
                f"the number {other.index} is that of {holder.called()} in {self.me.belongs()}, which runs. "
                "Give each process a number of its own, or end that run first"
            )
            return text, {"status": 1, "busy": True}
        return None


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (" …" if len(numbers) > 8 else "")
