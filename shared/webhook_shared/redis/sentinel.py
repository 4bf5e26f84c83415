"""Behind Sentinels: who the master is, heard from them the moment it changes.

redis-py asks them only when a connection is opened and believes the first that answers. During a failover
that may be one that has not heard yet, and the old master goes on taking writes for seconds, which are
lost (measured: docs/adr/0006-any-redis.md). Here all are asked and the latest decision wins; each is
listened to, and when it says that the master has changed every connection to the old one is closed, those
in use too; and whoever is connected to is asked whether it really is a master.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio as redis
import structlog
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError

from webhook_shared.redis.backoff import Backoff
from webhook_shared.redis.connection import (
    COMMAND_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    Address,
    Packed,
    Pool,
    options,
    tls,
)
from webhook_shared.redis.errors import REDIS_TROUBLE, RedisError, ResponseError
from webhook_shared.settings import RedisSection

log = structlog.get_logger()

SWITCHED = "+switch-master"
# A message is waited for this long at a time.
LISTEN_S = 60.0

_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)


def clients_of(sentinels: Sequence[Address], settings: RedisSection) -> list[redis.Redis]:
    """A client of each Sentinel."""
    kind: dict[str, Any] = {"ssl": True, **tls(settings)} if settings.tls_enabled else {}
    return [
        redis.Redis(
            host=each.host,
            port=each.port,
            socket_timeout=CONNECT_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            protocol=2,
            **kind,
        )
        for each in sentinels
    ]


async def ask(sentinel: redis.Redis, *words: Any) -> Any:
    """A Sentinel's plain reply; a flat list of names and values as a table, of texts.

    Raises:
        RedisError: It does not know, or does not answer.
    """
    asked: Any = sentinel
    reply = await asked.execute_command("SENTINEL", *words)
    if isinstance(reply, list):
        tables = [table(row) for row in reply if isinstance(row, list)]
        return tables if tables or not reply else table(reply)
    return reply


def table(flat: Sequence[bytes]) -> dict[str, str]:
    """Of names and values."""
    pairs = (value.decode() for value in flat)
    return dict(zip(pairs, pairs, strict=True))


class Master:
    """The server that the Sentinels call master.

    Args:
        name: What they call it.
        sentinels: Where they listen.
        settings: How to speak to them.
        switched: Told when another server has become it.
    """

    def __init__(
        self,
        name: str,
        sentinels: Sequence[Address],
        settings: RedisSection,
        switched: Callable[[], Awaitable[None]],
    ) -> None:
        self._name = name
        self._switched = switched
        self._sentinels = clients_of(sentinels, settings)
        self._address: Address | None = None
        self._listening: list[asyncio.Task[None]] = []

    async def address(self) -> Address:
        """Where it listens.

        Raises:
            MasterNotFoundError: No Sentinel knows.
        """
        if not self._listening:
            self._listening = [asyncio.create_task(self._listen(each)) for each in self._sentinels]
        if self._address is None:
            self._address = await self._asked()
        return self._address

    def doubt(self) -> None:
        """Whoever was it does not answer, or says that it is none: ask again."""
        self._address = None

    async def close(self) -> None:
        """Listen no more."""
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        self._listening = []
        await asyncio.gather(*(sentinel.aclose() for sentinel in self._sentinels))

    async def _asked(self) -> Address:
        told = await asyncio.gather(*(self._told_by(sentinel) for sentinel in self._sentinels))
        known = [each for each in told if each is not None]
        if not known:
            raise MasterNotFoundError(f"no Sentinel knows a master {self._name!r}")
        return max(known)[1]

    async def _told_by(self, sentinel: redis.Redis) -> tuple[int, Address] | None:
        """When it was decided, and for whom."""
        try:
            facts = await ask(sentinel, "MASTER", self._name)
        except _TROUBLE as error:
            log.debug("redis.sentinel_silent", error=type(error).__name__)
            return None
        return int(facts["config-epoch"]), Address(facts["ip"], int(facts["port"]))

    async def _listen(self, sentinel: redis.Redis) -> None:
        backoff = Backoff(base_s=0.1, cap_s=2.0)
        while True:
            try:
                async with sentinel.pubsub() as heard:
                    await heard.subscribe(SWITCHED)
                    while True:
                        message = await heard.get_message(ignore_subscribe_messages=True, timeout=LISTEN_S)
                        backoff.reset()
                        if message is not None:
                            await self._hear(message["data"].decode())
            except _TROUBLE as error:
                log.debug("redis.sentinel_unheard", error=type(error).__name__)
            await backoff.wait()

    async def _hear(self, told: str) -> None:
        name, _, _, host, port = told.split(" ")
        address = Address(host, int(port))
        if name != self._name or address == self._address:
            return
        log.warning("redis.failed_over", master=name, to=str(address))
        self._address = address
        await self._switched()


class _ToMaster:
    """Connects to whoever is master at that moment."""

    host: str
    port: int

    def __init__(self, *, master: Master, **arguments: Any) -> None:
        self._master = master
        super().__init__(**arguments)

    async def _connect(self) -> None:
        self.host, self.port = await self._master.address()
        try:
            await super()._connect()  # type: ignore[misc]  # of the connection that this is mixed into
        except BaseException:
            self._master.doubt()
            raise

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in, and refuse a server that has been demoted."""
        await super().on_connect_check_health(check_health)  # type: ignore[misc]  # as above
        connection: Any = self
        await connection.send_command("ROLE", check_health=False)
        try:
            role: Any = await connection.read_response()
        except ResponseError:
            # This user may not ask; then a write tells.
            return
        if role[0] != b"master":
            self._master.doubt()
            raise RedisConnectionError(f"{self.host}:{self.port} is not the master")


class _Connection(_ToMaster, Packed, redis.Connection):
    pass


class _SSLConnection(_ToMaster, Packed, redis.SSLConnection):
    pass


class MasterPool(Pool):
    """Connections to the master that the Sentinels name."""

    def __init__(self, settings: RedisSection, sentinels: Sequence[Address], block_s: float) -> None:
        self.master = Master(settings.master_name, sentinels, settings, self._leave)
        super().__init__(
            connection_class=_SSLConnection if settings.tls_enabled else _Connection,
            max_connections=settings.pool_size,
            timeout=COMMAND_TIMEOUT_S,
            master=self.master,
            **options(settings, block_s),
        )

    async def _leave(self) -> None:
        """What is under way fails now rather than in vain: whoever sent it tries again, at the new master."""
        await self.disconnect()

    async def aclose(self) -> None:
        """Close all connections, those to the Sentinels too."""
        await self.master.close()
        await super().aclose()
