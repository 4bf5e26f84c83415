"""Makes another server the master, on purpose, without losing a write.

`SENTINEL FAILOVER` alone loses writes: the old master goes on accepting them until it hears of its demotion,
which takes seconds. So it is told to accept none first, its replicas catch up, and only then is it replaced;
whoever waits on it meanwhile is answered READONLY at the end and goes to the new one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from redis.asyncio import Redis
from webhook_shared.redis import REDIS_TROUBLE, Client, RedisError, connect
from webhook_shared.redis.connection import Address
from webhook_shared.redis.sentinel import ask, clients_of
from webhook_shared.settings import RedisSection

POLL_S = 0.02
SYNCED_WITHIN_S = 5.0
# A successor that was just cut off is not one; what it lacks would have to be copied while writers wait.
MOST_LAG_BYTES = 16 * 2**20
_TROUBLE: tuple[type[BaseException], ...] = (RedisError, *REDIS_TROUBLE)

Tell = Callable[[str], None]


class FailoverRefused(Exception):
    """It was not done, or not to its end; the message says what is so now."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A server that may become master; `lag_bytes` is what it has not received yet."""

    address: Address
    lag_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is before anything is done; `replicas` are those that are well."""

    master: Address
    replicas: tuple[Replica, ...]
    sentinels: int


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it; for `paused_s` no write was answered."""

    old: Address
    new: Address
    paused_s: float


class Failover:
    """A planned change of the master behind Sentinels.

    Args:
        settings: The Sentinels, the name of the master, and a user that may CLIENT PAUSE and REPLICAOF.
        tell: Is told each step.
        within_s: How long writers may be kept waiting; after that all is as before.
        most_lag_bytes: A replica that lacks more is no successor.
    """

    def __init__(
        self,
        settings: RedisSection,
        tell: Tell,
        *,
        within_s: float = 15.0,
        most_lag_bytes: int = MOST_LAG_BYTES,
    ) -> None:
        self._settings = settings
        self._name = settings.master_name
        self._tell = tell
        self._within_s = within_s
        self._most_lag_bytes = most_lag_bytes
        self._sentinels: list[Redis] = []
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if not self._settings.sentinel_enabled:
            raise FailoverRefused(
                "there are no Sentinels: redis.sentinel_enabled is off; on a Cluster, CLUSTER FAILOVER at "
                "the replica does this without loss"
            )
        addresses = [Address.parse(address) for address in self._settings.addresses]
        self._sentinels = clients_of(addresses, self._settings)
        for sentinel in self._sentinels:
            self._open.push_async_callback(sentinel.aclose)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def plan(self) -> Plan:
        """See who is master, and who could be.

        Raises:
            FailoverRefused: Nobody could, or too few Sentinels would agree.
        """
        answering = [facts for sentinel in self._sentinels if (facts := await self._facts(sentinel))]
        if not answering:
            raise FailoverRefused(f"no Sentinel that answers knows a master {self._name!r}")
        latest = max(answering, key=lambda facts: int(facts["config-epoch"]))
        quorum, voters = int(latest["quorum"]), int(latest["num-other-sentinels"]) + 1
        if len(answering) < max(quorum, voters // 2 + 1):
            raise FailoverRefused(
                f"{len(answering)} of {voters} Sentinels answer here; a change needs "
                f"{max(quorum, voters // 2 + 1)}"
            )
        master = Address(latest["ip"], int(latest["port"]))
        async with self._server(master) as client:
            replicas = await self._replicas(client)
        if not replicas:
            raise FailoverRefused(f"{master} has no replica that is connected and well")
        if min(each.lag_bytes for each in replicas) > self._most_lag_bytes:
            raise FailoverRefused(
                f"every replica lacks more than {self._most_lag_bytes} bytes of what {master} has; wait, "
                "or see its log"
            )
        return Plan(master, replicas, len(answering))

    async def run(self) -> Done:
        """Do it.

        Raises:
            FailoverRefused: It was not done; writers go on where they were.
        """
        plan = await self.plan()
        self._tell(f"{plan.master} is the master; {len(plan.replicas)} replicas are well")
        async with self._server(plan.master) as old:
            started_s = time.monotonic()
            await self._pause(old)
            try:
                await self._synced(old)
                new = await self._switched(plan)
                await self._demote(old, plan.master, new)
            finally:
                await self._unpause(old)
            return Done(plan.master, new, time.monotonic() - started_s)

    async def _facts(self, sentinel: Redis) -> dict[str, str] | None:
        try:
            found: dict[str, str] = await ask(sentinel, "MASTER", self._name)
        except _TROUBLE:
            return None
        return found

    async def _replicas(self, master: Client) -> tuple[Replica, ...]:
        told: Any = await master.info("replication")
        offset = int(told["master_repl_offset"])
        rows = [told[f"slave{number}"] for number in range(int(told["connected_slaves"]))]
        return tuple(
            Replica(Address(str(row["ip"]), int(row["port"])), max(0, offset - int(row["offset"])))
            for row in rows
            if row["state"] == "online"
        )

    async def _pause(self, master: Client) -> None:
        try:
            await master.execute_command("CLIENT PAUSE", round(self._within_s * 1000), "WRITE")
        except _TROUBLE as error:
            raise FailoverRefused(f"the master does not pause its writers: {type(error).__name__}") from None
        self._tell("writers wait")

    async def _unpause(self, master: Client) -> None:
        try:
            await master.execute_command("CLIENT UNPAUSE")
        except _TROUBLE:
            self._tell(
                f"the old master could not be told; its pause ends after {self._within_s:.0f} s by itself"
            )

    async def _synced(self, master: Client) -> None:
        """Every replica that may be chosen has every write."""

        async def all_there() -> bool:
            replicas = await self._replicas(master)
            return bool(replicas) and not any(each.lag_bytes for each in replicas)

        if not await _becomes(all_there, min(SYNCED_WITHIN_S, self._within_s / 3)):
            raise FailoverRefused("the replicas did not catch up in time; nothing was changed")
        self._tell("the replicas have every write")

    async def _switched(self, plan: Plan) -> Address:
        for sentinel in self._sentinels:
            try:
                await ask(sentinel, "FAILOVER", self._name)
            except _TROUBLE as error:
                refusal = str(error)
                continue
            break
        else:
            raise FailoverRefused(f"the Sentinels refuse: {refusal}; nothing was changed")
        found: list[Address] = []

        async def another() -> bool:
            for facts in [await self._facts(sentinel) for sentinel in self._sentinels]:
                address = Address(facts["ip"], int(facts["port"])) if facts else plan.master
                if address != plan.master:
                    found.append(address)
                    return True
            return False

        if not await _becomes(another, self._within_s / 2):
            raise FailoverRefused("the Sentinels did not finish in time; see their logs")
        self._tell(f"{found[0]} is the master now")
        return found[0]

    async def _demote(self, old: Client, address: Address, new: Address) -> None:
        """Not left to the Sentinels, who take seconds: so long nobody is to wait at the old master."""
        async with self._server(new) as client:
            role: Any = await client.execute_command("ROLE")
            if role[0] != b"master":
                raise FailoverRefused(f"{new} is not a master yet; writers go on where the Sentinels say")
        await old.execute_command("REPLICAOF", new.host, new.port)
        self._tell(f"{address} follows it")

    @asynccontextmanager
    async def _server(self, address: Address) -> AsyncIterator[Client]:
        client = connect(
            self._settings.model_copy(update={"addresses": (str(address),), "sentinel_enabled": False})
        )
        try:
            yield client
        finally:
            await client.aclose()


async def _becomes(condition: Callable[[], Awaitable[bool]], within_s: float) -> bool:
    give_up_s = time.monotonic() + within_s
    while not await condition():
        if time.monotonic() >= give_up_s:
            return False
        await asyncio.sleep(POLL_S)
    return True
