"""The one place that opens Redis (or Valkey) connections, loads scripts and knows its failures."""

from __future__ import annotations

import asyncio
import math
import random
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import hiredis
import redis.asyncio as redis
import structlog
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from webhook_shared.settings import RedisSection

log = structlog.get_logger()

CONNECT_TIMEOUT_S = 2.0
COMMAND_TIMEOUT_S = 5.0
# A blocking read is answered by the server when its time is up; only a dead connection takes longer.
BLOCK_MARGIN_S = 2.0
KEEPALIVE_CHECK_S = 15

REDIS_TROUBLE: tuple[type[BaseException], ...] = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    OutOfMemoryError,
    MasterNotFoundError,
    OSError,
    asyncio.TimeoutError,
)
"""What to back off from and try again: the server is away, starting, failing over or full."""

Client = redis.Redis
Pipeline = redis.client.Pipeline


def connect(settings: RedisSection, *, block_s: float = 0) -> Client:
    """A client with bytes replies; nothing is sent until its first command.

    Args:
        settings: Where and as whom.
        block_s: For a connection of its own for blocking reads: how long the longest blocks, seconds.
            Such a client never repeats a command by itself.

    Raises:
        ValueError: The settings contradict each other.
    """
    if len(settings.addresses) > 1 and not settings.sentinel_enabled:
        raise ValueError(
            "redis.addresses names several servers: name one, or set redis.sentinel_enabled "
            "where they are Sentinels (Cluster is not supported yet)"
        )
    options: dict[str, Any] = {
        "username": settings.username or None,
        "password": settings.password.get_secret_value() or None,
        "socket_timeout": block_s + BLOCK_MARGIN_S if block_s else COMMAND_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 0 if block_s else KEEPALIVE_CHECK_S,
        # A repeated XADD is a second entry: whoever may repeat a command does so itself.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **_tls(settings),
    }
    if settings.sentinel_enabled:
        sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            [_host_and_port(address) for address in settings.addresses],
            sentinel_kwargs={"socket_timeout": CONNECT_TIMEOUT_S, **_tls(settings)},
            **options,
        )
        master: Client = sentinel.master_for(settings.master_name)
        return master
    host, port = _host_and_port(settings.addresses[0])
    pool_kind = _PackedSSLConnection if settings.tls_enabled else _PackedConnection
    options.pop("ssl", None)
    pool = redis.BlockingConnectionPool(
        connection_class=pool_kind,
        host=host,
        port=port,
        max_connections=settings.pool_size,
        timeout=COMMAND_TIMEOUT_S,
        **options,
    )
    return redis.Redis.from_pool(pool)


class _Packed:
    """Commands are put together by hiredis; redis-py's asyncio connections do that in Python."""

    def pack_command(self, *args: Any) -> list[bytes]:
        head = args[0].encode() if isinstance(args[0], str) else args[0]
        return [hiredis.pack_command((*head.split(), *args[1:]) if b" " in head else args)]

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> list[bytes]:
        return [part for command in commands for part in self.pack_command(*command)]


class _PackedConnection(_Packed, redis.Connection):
    pass


class _PackedSSLConnection(_Packed, redis.SSLConnection):
    pass


def _tls(settings: RedisSection) -> dict[str, Any]:
    if not settings.tls_enabled:
        return {}
    return {
        "ssl": True,
        "ssl_certfile": settings.tls_cert_file or None,
        "ssl_keyfile": settings.tls_key_file or None,
        "ssl_ca_certs": settings.tls_ca_file or None,
        "ssl_min_version": ssl.TLSVersion.TLSv1_3,
    }


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"redis.addresses: {address!r} is not host:port")
    return host.strip("[]"), int(port)


@asynccontextmanager
async def opened(settings: RedisSection) -> AsyncIterator[Client]:
    """A client whose server has answered and is fit to hold a queue; closed on leaving.

    Waits for a server that is not there yet, and says so.

    Raises:
        RuntimeError: See `guard`.
        ValueError: The settings contradict each other.
    """
    client = connect(settings)
    try:
        await _answered(client, settings.addresses)
        await guard(client, allow_evicting=settings.allow_evicting_policy)
        yield client
    finally:
        await client.aclose()


async def _answered(client: Client, addresses: Sequence[str]) -> None:
    backoff = Backoff(base_s=0.1, cap_s=2.0)
    while True:
        try:
            await client.ping()
        except AuthenticationError:
            raise RuntimeError("redis: the password or user is refused; check REDIS_PASSWORD") from None
        except REDIS_TROUBLE as error:
            log.warning("redis.waiting", addresses=",".join(addresses), error=type(error).__name__)
            await backoff.wait()
        else:
            return


async def ping(client: Client) -> None:
    """Raise one of REDIS_TROUBLE unless the server answers."""
    await client.ping()


async def guard(client: Client, *, allow_evicting: bool = False) -> None:
    """Refuse a server that may silently throw the queue away.

    Raises:
        RuntimeError: `maxmemory-policy` evicts keys that are not caches.
    """
    try:
        reply = await client.config_get("maxmemory-policy")
    except ResponseError:
        log.warning(
            "redis.guard_skipped", why="CONFIG GET is not allowed here; check maxmemory-policy yourself"
        )
        return
    policy = str(next(iter(reply.values()), b"")) if reply else ""
    policy = policy.removeprefix("b'").removesuffix("'")
    if policy.startswith("allkeys"):
        line = (
            f"redis: maxmemory-policy is {policy}, which evicts queued events silently; "
            "set it to noeviction (CONFIG SET maxmemory-policy noeviction)"
        )
        if not allow_evicting:
            raise RuntimeError(f"{line}, or set redis.allow_evicting_policy to start regardless")
        log.warning("redis.evicting", policy=policy)


class Script:
    """A Lua script that ships with a package, called by its digest and loaded where it is missing."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._sha = ""

    @classmethod
    def load(cls, package: str, name: str) -> Script:
        """The script `scripts/<name>.lua` of a package."""
        return cls((files(package) / "scripts" / f"{name}.lua").read_text(encoding="utf-8"))

    async def __call__(self, client: Client, keys: Sequence[Any], args: Sequence[Any] = ()) -> Any:
        """Run it once. May be repeated only if the script is idempotent: NOSCRIPT means it did not run."""
        (reply,) = await self.batch(client, [(keys, args)])
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def batch(
        self,
        client: Client,
        calls: Sequence[tuple[Sequence[Any], Sequence[Any]]],
        then: Sequence[Sequence[Any]] = (),
    ) -> list[Any]:
        """Run it once per (keys, args), all in one round trip, no transaction around them.

        Args:
            client: Where.
            calls: Keys and arguments.
            then: Commands that follow on the same connection, such as WAIT.

        Returns:
            A reply per call and then per command, in order; an error stands as an exception in its place.
        """
        if not self._sha:
            await self._load(client)
        replies = await self._pipelined(client, calls, then)
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            await self._load(client)
            again = await self._pipelined(client, [calls[i] for i in missing], then)
            for i, reply in zip([*missing, *range(len(calls), len(replies))], again, strict=True):
                replies[i] = reply
        return replies

    async def _pipelined(
        self,
        client: Client,
        calls: Sequence[tuple[Sequence[Any], Sequence[Any]]],
        then: Sequence[Sequence[Any]],
    ) -> list[Any]:
        # redis-py's pipeline costs several times as much: it starts and stops a clock for every reply.
        pool: Any = client.connection_pool
        connection = await pool.get_connection()
        try:
            commands = [("EVALSHA", self._sha, len(keys), *keys, *args) for keys, args in calls]
            commands += [tuple(command) for command in then]
            await connection.send_packed_command(connection.pack_commands(commands))
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                return [await _reply(connection) for _ in commands]
        finally:
            await pool.release(connection)

    async def _load(self, client: Client) -> None:
        sha = await client.script_load(self.source)
        self._sha = sha.decode() if isinstance(sha, bytes) else str(sha)


async def _reply(connection: Any) -> Any:
    """The next reply, or the error that stands in its place. A connection that fails otherwise is closed."""
    try:
        return await connection.read_response(timeout=math.inf)
    except ResponseError as error:
        return error


class Backoff:
    """Exponential waiting with full jitter, for loops that heal themselves."""

    def __init__(self, *, base_s: float = 0.05, cap_s: float = 5.0) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._failures = 0

    def next_delay_s(self) -> float:
        """Count one more failure and say how long to wait, seconds."""
        ceiling = min(self._cap_s, self._base_s * 2**self._failures)
        self._failures = min(self._failures + 1, 30)
        return random.uniform(0, ceiling)  # noqa: S311  # spreads load; guards nothing

    async def wait(self) -> None:
        """Wait as long as `next_delay_s` says."""
        await asyncio.sleep(self.next_delay_s())

    def reset(self) -> None:
        """All is well again."""
        self._failures = 0


__all__ = [
    "REDIS_TROUBLE",
    "Backoff",
    "Client",
    "NoScriptError",
    "Pipeline",
    "RedisError",
    "ResponseError",
    "Script",
    "connect",
    "guard",
    "opened",
    "ping",
]
