"""The ledger under each fault: load, fault, rest, audit; one system for all of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from webhook_shared import redis as store

from conftest import RedisServer
from tests.ledger.books import Account, Promises, audit, delivery
from tests.ledger.clock import Clock, compiled
from tests.ledger.faults import CLAIM_IDLE_S, Fault, Ground
from tests.ledger.load import send_all
from tests.ledger.proxy import proxied
from tests.ledger.readers import drained, everything
from tests.senders import Delivery
from tests.system import CONFIGURATION, House, running_house

Fsync = Literal["always", "everysec"]

CONTEXTS = 10
# Sent together, then a pause: load enough to have something everywhere, and little enough to audit.
PORTION = 30
PAUSE_S = 0.1
FEWEST = 300


@dataclass(frozen=True)
class Trial:
    """What came of one fault.

    Attributes:
        level: How durable what was acknowledged was.
        unheard: Acknowledgements that did not reach their sender, who sent again.
        recognised: Deliveries that were told: had it before.
        outage_s: The longest time in which nobody got an acknowledgement.
        drain_s: From the end of the load until the queue was empty.
    """

    fault: str
    level: str
    acknowledged: int
    retries: int
    unheard: int
    recognised: int
    outage_s: float
    drain_s: float
    account: Account

    def tell(self) -> None:
        """In a line, as soon as it is known."""
        account = self.account
        print(
            f"  {self.fault}: {self.acknowledged} acknowledged, {len(account.lost)} lost, "
            f"{len(account.double_effects)} double, outage {self.outage_s} s, drain {self.drain_s} s",
            flush=True,
        )


@asynccontextmanager
async def ground(var: Path, fsync: Fsync) -> AsyncIterator[Ground]:
    """A system whose Redis and whose line to it are ours to break."""
    directory = var / "own-redis"
    directory.mkdir()
    clocks = await _clocks(var)
    redis_clock, services_clock = (each.environ for each in clocks) if clocks else ({}, {})
    async with AsyncExitStack() as stack:
        server = RedisServer(directory, appendfsync=fsync, environ=redis_clock)
        server.start()
        stack.callback(server.kill)
        await server.answering()
        client = store.connect(server.settings)
        stack.push_async_callback(client.aclose)
        proxy = await stack.enter_async_context(proxied(server.port))
        configuration = var / "config.yaml"
        configuration.write_text(_configuration(), encoding="utf-8")  # before anything runs
        environ = {
            "REDIS_ADDRESSES": proxy.address,
            "WEBHOOK_CONFIG": str(configuration),
            **services_clock,
        }
        house = await stack.enter_async_context(running_house(var / "system", environ=environ))
        yield Ground(house, server, proxy, client, clocks)


async def _clocks(var: Path) -> tuple[Clock, Clock] | None:
    """One for Redis and one for everybody else, where there is a compiler to make them."""
    library = await compiled(var)
    return (Clock(library, var / "clock-redis"), Clock(library, var / "clock")) if library else None


def _configuration() -> str:
    return CONFIGURATION.replace(
        "webhook:\n", f"webhook:\n  consumer:\n    claim_idle_time: {CLAIM_IDLE_S}s\n", 1
    )


async def trial(house: House, name: str, strike: Coroutine[Any, Any, None], number: int, level: str) -> Trial:
    """Send while a fault is done and undone, wait until all is quiet, and account for everything.

    Args:
        house: The system.
        name: The fault's, for the table.
        strike: Does it, and has undone it when it returns.
        number: Of the trial: no two on one system have the same.
        level: How durable what is acknowledged is, for the table.

    Raises:
        NotDrainedError: The queue does not come to rest.
        ExceptionGroup: A correct delivery was refused for good.
    """
    repository = f"ledger/fault-{number}"
    dice = random.Random(number)
    promises, sent = Promises(), list[tuple[int, Delivery]]()
    told_s = [time.monotonic()]
    striking = asyncio.ensure_future(strike)
    while not striking.done() or len(sent) < FEWEST:
        first = len(sent)
        portion = [
            (at, delivery(house.senders.github, at, CONTEXTS, repository))
            for at in range(first, first + PORTION)
        ]
        sent += portion
        await send_all(
            house.http,
            portion,
            promises,
            dice=dice,
            acknowledged=lambda: told_s.append(time.monotonic()),
        )
        await asyncio.sleep(PAUSE_S)
    await striking
    await house.system.healthy()
    drain_s = await drained(house)
    kept = await everything(house, CONTEXTS, repository)
    return Trial(
        fault=name,
        level=level,
        acknowledged=len(promises.events),
        retries=promises.retries,
        unheard=len(promises.unheard),
        recognised=promises.repeated,
        outage_s=round(max(after - before for before, after in pairwise(told_s)), 1),
        drain_s=round(drain_s, 1),
        account=audit(promises, sent, kept),
    )


async def run(faults: Sequence[Fault], var: Path, fsync: Fsync) -> list[Trial]:
    """One after another, on a system of its own."""
    async with ground(var, fsync) as on:
        found = []
        for number, fault in enumerate(faults, 1):
            if fault.needs_clocks and on.clocks is None:
                print(f"  {fault.name}: not made, as there is no C compiler", flush=True)
                continue
            found.append(await trial(on.house, fault.name, fault.strike(on), number, fsync))
            found[-1].tell()
        return found
