"""TLS at the listening socket: who shakes hands counts as a connection from the first packet on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
from webhook_shared.tasks import ended

from webhook_gateway.answers import Answer
from webhook_gateway.edge.connection import Connection, Listener
from webhook_gateway.edge.tls import HttpTls

log = structlog.get_logger()

BACKLOG = 2048
BREATHER_S = 0.1
"""After the system had no socket for us."""


class Greeter(Listener, Protocol):
    """Counts who knocks."""

    def knocked(self, peer: str) -> Answer | None:
        """Somebody wants in; an answer where there is no room."""

    def went(self, peer: str) -> None:
        """Somebody who was let in is gone."""


@asynccontextmanager
async def handshaking(server: Greeter, host: str, port: int, *, tls: HttpTls) -> AsyncIterator[int]:
    """Take connections and shake hands with each, while inside.

    Args:
        server: Counts them, and has the connections.
        host: To listen on; empty for every address.
        port: 0 takes a free one.
        tls: What to show.

    Yields:
        The port.

    Raises:
        OSError: The address can't be bound.
    """
    listening = _bound(host, port)
    hands = _Hands(server, tls)
    tasks = [asyncio.create_task(hands.keep(each)) for each in listening]
    try:
        yield int(listening[0].getsockname()[1])
    finally:
        await ended([*tasks, *hands.shaking])
        for each in listening:
            each.close()


class _Hands:
    def __init__(self, server: Greeter, tls: HttpTls) -> None:
        self._server, self._tls = server, tls
        self.shaking: set[asyncio.Task[None]] = set()

    async def keep(self, listening: socket.socket) -> None:
        """Accept for ever."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                log.warning("http.not_accepted", error=type(error).__name__)
                await asyncio.sleep(BREATHER_S)
                continue
            peer = str(address[0]).removeprefix("::ffff:")
            if self._server.knocked(peer) is not None:
                # There is nobody to tell why: an answer would need the handshake.
                accepted.close()
                continue
            task = loop.create_task(self._shake(accepted, peer))
            self.shaking.add(task)
            task.add_done_callback(self.shaking.discard)

    async def _shake(self, accepted: socket.socket, peer: str) -> None:
        patience_s = self._server.timeouts.header_s
        connection = Connection(self._server)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls.context,
                ssl_handshake_timeout=patience_s,
                ssl_shutdown_timeout=patience_s,
            )
        except asyncio.CancelledError:
            accepted.close()
            raise
        except OSError:
            # No TLS, none that we take, none in time: of TLS, too, the errors are the system's.
            accepted.close()
        finally:
            # Once it is made, the connection says itself when it ends.
            if not connection.is_made:
                self._server.went(peer)


def _bound(host: str, port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            # One port for all families.
            at = address if port or not sockets else (address[0], sockets[0].getsockname()[1], *address[2:])
            each = socket.socket(family, kind, protocol)
            sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.setblocking(False)
            each.bind(at)
            each.listen(BACKLOG)
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets
