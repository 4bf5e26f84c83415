"""Connections: how they are set, how commands are packed, and one exchange over one of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import hiredis
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from webhook_shared.redis.errors import settled
from webhook_shared.settings import RedisSection

CONNECT_TIMEOUT_S = 2.0
COMMAND_TIMEOUT_S = 5.0
# A blocking read is answered by the server when its time is up; only a dead connection takes longer.
BLOCK_MARGIN_S = 2.0
KEEPALIVE_CHECK_S = 15

Command = Sequence[Any]
"""A command's name, possibly of two words, and its arguments."""


class Pool(redis.BlockingConnectionPool):
    """redis-py's, with a short way for what is nearly always so: one is free, and nobody waits for it."""

    _waiting = 0

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """As of redis-py."""
        if self._waiting or not self._available_connections:
            self._waiting += 1
            try:
                return await super().get_connection()  # type: ignore[no-untyped-call]  # redis-py's
            finally:
                self._waiting -= 1
        connection: Any = self.get_available_connection()  # type: ignore[no-untyped-call]  # redis-py's
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: Any) -> None:
        """As of redis-py."""
        if self._waiting or connection.should_reconnect():
            await super().release(connection)
            return
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Of "host:port" or "[v6]:port".

        Raises:
            ValueError: It is neither.
        """
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal():
            raise ValueError(f"redis.addresses: {text!r} is not host:port")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Packed:
    """Commands are put together by hiredis; redis-py's asyncio connections do that in Python.

    They also make a task for every command that is sent, and a clock and several calls for every reply.
    """

    def pack_command(self, *args: Any) -> list[bytes]:
        """One command, as it goes over the wire."""
        head = args[0].encode() if isinstance(args[0], str) else args[0]
        return [hiredis.pack_command((*head.split(), *args[1:]) if b" " in head else args)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        """Several, in order."""
        return [part for command in commands for part in self.pack_command(*command)]

    async def send_packed_command(
        self: Any, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """As of redis-py."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health:
            await self.check_health()
        if isinstance(command, str):
            command = command.encode()
        whole = command if isinstance(command, bytes) else b"".join(command)
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command([whole])
        except BaseException as error:  # noqa: BLE001  # raised again
            raise await _closed(self, error) from None

    async def replies(self: Any, count: int) -> list[Any]:
        """The next replies; an error stands as an exception in its place.

        Raises:
            RedisConnectionError: The connection is lost, and closed.
        """
        try:
            found = [await self._parser.read_response() for _ in range(count)]
        except BaseException as error:  # noqa: BLE001  # raised again
            raise await _closed(self, error) from None
        self.next_health_check = asyncio.get_running_loop().time() + self.health_check_interval
        return [settled(reply) if isinstance(reply, ResponseError) else reply for reply in found]


class PackedConnection(Packed, redis.Connection):
    """Plain text."""


class PackedSSLConnection(Packed, redis.SSLConnection):
    """TLS."""


def options(settings: RedisSection, block_s: float) -> dict[str, Any]:
    """What every connection of a client is made with; `block_s` as of `connect`."""
    return {
        "username": settings.username or None,
        "password": settings.password.get_secret_value() or None,
        "socket_timeout": reply_timeout_s(block_s),
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 0 if block_s else KEEPALIVE_CHECK_S,
        # A repeated XADD is a second entry: whoever may repeat a command does so itself.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **tls(settings),
    }


def reply_timeout_s(block_s: float) -> float:
    """How long a reply may take."""
    return block_s + BLOCK_MARGIN_S if block_s else COMMAND_TIMEOUT_S


def tls(settings: RedisSection) -> dict[str, Any]:
    """What a connection over TLS is made with beyond that; nothing without TLS."""
    if not settings.tls_enabled:
        return {}
    return {
        "ssl_certfile": settings.tls_cert_file or None,
        "ssl_keyfile": settings.tls_key_file or None,
        "ssl_ca_certs": settings.tls_ca_file or None,
        "ssl_min_version": ssl.TLSVersion.TLSv1_3,
    }


def pool_of(address: Address, settings: RedisSection, block_s: float) -> Pool:
    """The connections to one server; opened on demand."""
    return Pool(
        connection_class=PackedSSLConnection if settings.tls_enabled else PackedConnection,
        host=address.host,
        port=address.port,
        max_connections=settings.pool_size,
        timeout=COMMAND_TIMEOUT_S,
        **options(settings, block_s),
    )


async def exchange(pool: Any, commands: Sequence[Command], timeout_s: float) -> list[Any]:
    """Send commands and read their replies: one round trip, no transaction around them.

    redis-py's own pipeline costs several times as much: it starts and stops a clock for every reply.

    Args:
        pool: Gives the connection.
        commands: Any number.
        timeout_s: For all replies together.

    Returns:
        A reply per command, in order; an error stands as an exception in its place.

    Raises:
        RedisConnectionError: The connection is lost; which commands ran is not known. Also as TimeoutError.
    """
    connection = await pool.get_connection()
    try:
        await connection.send_packed_command(connection.pack_commands(commands))
        async with asyncio.timeout(timeout_s):
            replies: list[Any] = await connection.replies(len(commands))
            return replies
    finally:
        await pool.release(connection)


async def _closed(connection: Any, error: BaseException) -> BaseException:
    """Close a connection that is out of step, half written or half read. The error as redis-py has it."""
    await connection.disconnect(nowait=True)
    if isinstance(error, TimeoutError):
        return RedisTimeoutError("the server takes too long")
    if isinstance(error, OSError):
        return RedisConnectionError(f"the connection is lost: {type(error).__name__}")
    return error
