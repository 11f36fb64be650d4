"""Bytes handed on between a worker's JAX client and the coordination service of process 0.

Both sit on the loopback of their machine; `rendezvous.py` connects them and says who may.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Coroutine
from typing import Any

Greet = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def serve(greet: Greet, on: socket.socket) -> None:
    """Greet whoever connects to a socket, for ever."""

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # asyncio would report it as an error
            try:
                await greet(reader, writer)
            finally:
                writer.close()

    async with await asyncio.start_server(whole, sock=on) as server:
        await server.serve_forever()


async def hang_up(*_: Any) -> None:
    """Let others see that they reach this process, no more."""


def say(writer: asyncio.StreamWriter, **said: Any) -> None:
    """Send a line; where the other side has gone, nothing happens."""
    writer.write(json.dumps(said).encode() + b"\n")


async def to_service(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
) -> None:
    """Connect a worker to the service, which may be about to start, until either closes."""
    for _ in range(300):
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(host, port)
            break
        await asyncio.sleep(0.1)
    else:
        return
    try:
        ways = _pass(reader, back), _pass(there, writer)
        both = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        back.close()


def forward(host: str, port: int, first: dict[str, Any]) -> Greet:
    """Return what connects this process's JAX client to process 0, where it says `first`.

    When process 0 is lost the client is left waiting: told, it would abort the process at once, with
    exit status 134 and without a name.
    """

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(host, port)
            try:
                say(back, **first)
                returning = asyncio.ensure_future(_pass(there, writer))
                await _pass(reader, back)
            finally:
                back.close()
            await returning
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                pass

    return greet


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
