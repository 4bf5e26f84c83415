"""Listens for HTTP: accepts connections, keeps their deadlines, drains them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from functools import partial

from webhook_shared.tasks import ended

from webhook_gateway import metrics
from webhook_gateway.answers import TOO_MANY, UNAVAILABLE, Answer
from webhook_gateway.edge.connection import Connection, Handler, Timeouts
from webhook_gateway.edge.handshakes import handshaking
from webhook_gateway.edge.tls import HttpTls
from webhook_gateway.limits import Crowd, Room

BACKLOG = 2048
SWEEP_S = 0.25


class HttpServer:
    """What the connections of one listening socket share.

    Args:
        handler: Decides about requests.
        timeouts: How long senders may take.
        crowd: How many connections may be open.
        room: For bodies.
        greets: Connections count from when they are made; else whoever makes them has counted them.
    """

    def __init__(
        self, handler: Handler, timeouts: Timeouts, crowd: Crowd, room: Room, *, greets: bool
    ) -> None:
        self._greets = greets
        self.handler = handler
        self.timeouts = timeouts
        self.room = room
        self._crowd = crowd
        self.date = b""
        self.draining = False
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._stamp()

    def knocked(self, peer: str) -> Answer | None:
        """A sender wants in and counts from now on; an answer where there is no room for it."""
        crowd = self._crowd
        full = crowd.is_full()
        if full or crowd.has_enough_of(peer):
            metrics.shed.labels("connections" if full else "sender_connections").inc()
            return UNAVAILABLE if full else TOO_MANY
        crowd.enter(peer)
        metrics.connections.set(crowd.size)
        return None

    def went(self, peer: str) -> None:
        """A sender that knocked and was let in is gone."""
        self._crowd.leave(peer)
        metrics.connections.set(self._crowd.size)

    def joined(self, connection: Connection, peer: str) -> Answer | None:
        """A sender has connected; an answer where there is no room for it."""
        # Who shook hands first has knocked.
        refusal = self.knocked(peer) if self._greets else None
        if refusal is None:
            self._connections.add(connection)
            self._empty.clear()
        return refusal

    def left(self, connection: Connection, peer: str) -> None:
        """A connection is closed."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self.went(peer)
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
    address: str,
    handler: Handler,
    *,
    timeouts: Timeouts,
    crowd: Crowd,
    room: Room,
    drain_s: float,
    tls: HttpTls | None = None,
) -> AsyncIterator[int]:
    """Serve HTTP/1.1 while the context lasts.

    Args:
        address: "host:port"; port 0 takes a free one.
        handler: Decides about requests.
        timeouts: How long senders may take.
        crowd: How many connections may be open.
        room: For bodies.
        drain_s: How long requests that are under way may take once the context is left, seconds.
        tls: What to show; None serves plain HTTP.

    Yields:
        The port.

    Raises:
        OSError: The address can't be bound.
    """
    host, _, port = address.rpartition(":")
    server = HttpServer(handler, timeouts, crowd, room, greets=tls is None)
    tasks = [asyncio.create_task(server.sweep())]
    if tls:
        tasks.append(asyncio.create_task(tls.keep()))
    try:
        listening = _listening if tls is None else partial(handshaking, tls=tls)
        async with listening(server, host.strip("[]"), int(port)) as bound:
            yield bound
    finally:
        await server.drain(drain_s)
        await ended(tasks)


@asynccontextmanager
async def _listening(server: HttpServer, host: str, port: int) -> AsyncIterator[int]:
    """Take connections as they come."""
    listening = await asyncio.get_running_loop().create_server(
        lambda: Connection(server), host or None, port, backlog=BACKLOG
    )
    try:
        yield _port(listening.sockets)
    finally:
        listening.close()


def _port(sockets: tuple[socket.socket, ...]) -> int:
    return int(sockets[0].getsockname()[1])
