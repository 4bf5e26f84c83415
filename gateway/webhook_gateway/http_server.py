"""Listens for HTTP: accepts connections, keeps their deadlines, drains them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

from webhook_shared.tasks import ended

from webhook_gateway.http_connection import Connection, Handler, Timeouts

BACKLOG = 2048
SWEEP_S = 0.25


class HttpServer:
    """What the connections of one listening socket share."""

    def __init__(self, handler: Handler, timeouts: Timeouts) -> None:
        self.handler = handler
        self.timeouts = timeouts
        self.date = b""
        self.draining = False
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._stamp()

    def joined(self, connection: Connection) -> None:
        """A sender has connected."""
        self._connections.add(connection)
        self._empty.clear()

    def left(self, connection: Connection) -> None:
        """A connection is closed."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def sweep(self) -> None:
        """Keep the date fresh and the deadlines, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            self._stamp()
            now_s = loop.time()
            for connection in tuple(self._connections):
                connection.expire(now_s)

    async def drain(self, drain_s: float) -> None:
        """Close what is idle, let the rest finish for at most `drain_s` seconds, close what is left."""
        self.draining = True
        for connection in tuple(self._connections):
            connection.drain()
        if not self._connections:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._empty.wait()
        for connection in tuple(self._connections):
            connection.abort()

    def _stamp(self) -> None:
        self.date = f"date: {formatdate(usegmt=True)}\r\n".encode("ascii")


@asynccontextmanager
async def serving(
    address: str, handler: Handler, *, timeouts: Timeouts, drain_s: float
) -> AsyncIterator[int]:
    """Serve HTTP/1.1 while the context lasts.

    Args:
        address: "host:port"; port 0 takes a free one.
        handler: Decides about requests.
        timeouts: How long senders may take.
        drain_s: How long requests that are under way may take once the context is left, seconds.

    Yields:
        The port.

    Raises:
        OSError: The address can't be bound.
    """
    host, _, port = address.rpartition(":")
    server = HttpServer(handler, timeouts)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: Connection(server), host.strip("[]") or None, int(port), backlog=BACKLOG
    )
    sweeper = asyncio.create_task(server.sweep())
    try:
        yield _port(listening.sockets)
    finally:
        listening.close()
        await server.drain(drain_s)
        await ended([sweeper])


def _port(sockets: tuple[socket.socket, ...]) -> int:
    return int(sockets[0].getsockname()[1])
