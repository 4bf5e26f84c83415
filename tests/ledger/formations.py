"""The ledger on a Cluster and behind Sentinels: what only several servers can do to events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from webhook_shared.redis import slot_of

from tests.ledger.faults import STREAM
from tests.ledger.proxy import Proxy, proxied
from tests.ledger.trials import Trial, trial
from tests.servers import machines
from tests.servers.machines import Machine, Place, is_master, moved, pair_of, until
from tests.system import CONFIGURATION, House, running_house

NODE_TIMEOUT_MS = 1000
PARTED_S = 10.0
SETTLED_S = 2.0
#: Sentinels look every ten seconds who a returning master takes itself for, and give it eight more.
DEMOTED_S = 60.0
#: Three times what a busy machine may stand still.
DOWN_AFTER_MS = 3000
#: What of the senders is promised to outlive a master: the level at which nothing may be lost.
LEVEL = "replicated"
SOURCES = f"security:\n    sources:\n      github: {{durability: {LEVEL}}}\n"

Strike = Callable[[House], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Formation:
    """Several servers, and what can be done to them.

    Attributes:
        name: For the table.
        place: Where they are.
        strikes: By name, each as something that is done and undone.
    """

    name: str
    place: Place
    strikes: dict[str, Strike]


@asynccontextmanager
async def _cluster(directory: Path) -> AsyncIterator[Formation]:
    place = await machines.cluster(
        directory, machines.valkey(), node_timeout_ms=NODE_TIMEOUT_MS, replica_of=STREAM
    )
    strikes: dict[str, Strike] = {
        "the slot of the events moves to each master and back": partial(_slot_moves, place),
        "CLUSTER FAILOVER at the replica": partial(_replica_takes_over, place),
        "SIGKILL of the primary, its replica is promoted, it comes back": partial(_primary_dies, place),
    }
    try:
        yield Formation("Cluster", place, strikes)
    finally:
        place.stop()


@asynccontextmanager
async def _sentinels(directory: Path) -> AsyncIterator[Formation]:
    async with AsyncExitStack() as stack:
        ways: list[Proxy] = []

        async def way_to(master: Machine) -> int:
            ways.append(await stack.enter_async_context(proxied(master.port)))
            return int(ways[0].address.rpartition(":")[2])

        place = await machines.trio(directory, machines.valkey(), down_after_ms=DOWN_AFTER_MS, way_to=way_to)
        stack.callback(place.stop)
        name = f"master and clients parted from Sentinels and replicas for {PARTED_S:g} s"
        yield Formation("Sentinel", place, {name: partial(_network_parts, place, ways[0])})


async def _slot_moves(place: Place, house: House) -> None:
    masters = [machine.plain() for machine in place.machines[:3]]
    try:
        for target in (*masters, masters[0]):
            # What else the slot's owner has not heard of yet must settle before the next move.
            await asyncio.sleep(SETTLED_S)
            await moved(masters, slot_of(("GET", STREAM)), target)
    finally:
        for client in masters:
            await client.aclose()


async def _replica_takes_over(place: Place, house: House) -> None:
    await asyncio.sleep(SETTLED_S)
    _, replica = await pair_of(place)
    async with replica.plain() as client:
        await client.execute_command("CLUSTER FAILOVER")
        await until(partial(is_master, client))
    await asyncio.sleep(SETTLED_S)


async def _primary_dies(place: Place, house: House) -> None:
    await asyncio.sleep(SETTLED_S)
    primary, replica = await pair_of(place)
    primary.stop()
    async with replica.plain() as client:
        await until(partial(is_master, client))
    primary.start(*machines.as_node(NODE_TIMEOUT_MS))
    await pair_of(place)
    await asyncio.sleep(SETTLED_S)


async def _network_parts(place: Place, way: Proxy, house: House) -> None:
    await asyncio.sleep(SETTLED_S)
    way.is_parted = True
    await asyncio.sleep(PARTED_S)
    chosen = [machine for machine in place.machines[1:3] if await _leads(machine)]
    assert len(chosen) == 1, "the Sentinels have chosen no other master"
    way.is_parted = False

    async def follows() -> bool:
        return not await _leads(place.machines[0])

    await until(follows, within_s=DEMOTED_S)
    await asyncio.sleep(SETTLED_S)


async def _leads(machine: Machine) -> bool:
    async with machine.plain() as client:
        return await is_master(client)


FORMATIONS = (_cluster, _sentinels)


async def run(var: Path) -> Sequence[Trial]:
    """Every fault of every formation, one after another, each formation with a system of its own."""
    found = []
    for opened in FORMATIONS:
        directory = var / opened.__name__.strip("_")
        directory.mkdir()
        async with opened(directory / "servers") as formation:
            settings = formation.place.settings
            configuration = directory / "config.yaml"
            configuration.write_text(_configuration(), encoding="utf-8")  # before anything runs
            environ = {
                "REDIS_ADDRESSES": ",".join(settings.addresses),
                "REDIS_SENTINEL_ENABLED": str(settings.sentinel_enabled).lower(),
                "REDIS_MASTER_NAME": settings.master_name,
                "WEBHOOK_CONFIG": str(configuration),
            }
            async with running_house(directory / "system", environ=environ) as house:
                for number, (name, strike) in enumerate(formation.strikes.items(), 1):
                    found.append(
                        await trial(house, f"{formation.name}: {name}", strike(house), number, LEVEL)
                    )
                    found[-1].tell()
    return found


def _configuration() -> str:
    return CONFIGURATION.replace("  security:\n", f"  {SOURCES}", 1)
