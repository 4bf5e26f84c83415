"""The ledger under each fault: load, fault, rest, audit; one system for all of them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from webhook_shared import redis as store

from conftest import RedisServer
from tests.ledger.books import Account, Promises, audit, delivery
from tests.ledger.faults import CLAIM_IDLE_S, Fault, Ground
from tests.ledger.load import send_all
from tests.ledger.proxy import proxied
from tests.ledger.readers import drained, everything
from tests.senders import Delivery
from tests.system import CONFIGURATION, running_house

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
        outage_s: The longest time in which nobody got an acknowledgement.
        drain_s: From the end of the load until the queue was empty.
    """

    fault: str
    fsync: Fsync
    acknowledged: int
    retries: int
    outage_s: float
    drain_s: float
    account: Account


@asynccontextmanager
async def ground(var: Path, fsync: Fsync) -> AsyncIterator[Ground]:
    """A system whose Redis and whose line to it are ours to break."""
    directory = var / "own-redis"
    directory.mkdir()
    async with AsyncExitStack() as stack:
        server = RedisServer(directory, appendfsync=fsync)
        server.start()
        stack.callback(server.kill)
        await server.answering()
        client = store.connect(server.settings)
        stack.push_async_callback(client.aclose)
        proxy = await stack.enter_async_context(proxied(server.port))
        configuration = var / "config.yaml"
        configuration.write_text(_configuration(), encoding="utf-8")  # before anything runs
        environ = {"REDIS_ADDRESSES": proxy.address, "WEBHOOK_CONFIG": str(configuration)}
        house = await stack.enter_async_context(running_house(var / "system", environ=environ))
        yield Ground(house, server, proxy, client)


def _configuration() -> str:
    return CONFIGURATION.replace(
        "webhook:\n", f"webhook:\n  consumer:\n    claim_idle_time: {CLAIM_IDLE_S}s\n", 1
    )


async def trial(on: Ground, fault: Fault, number: int, fsync: Fsync) -> Trial:
    """Send while the fault is done and undone, wait until all is quiet, and account for everything.

    Raises:
        NotDrainedError: The queue does not come to rest.
        ExceptionGroup: A correct delivery was refused for good.
    """
    repository = f"ledger/fault-{number}"
    dice = random.Random(number)
    promises, sent = Promises(), list[tuple[int, Delivery]]()
    told_s = [time.monotonic()]
    striking = asyncio.ensure_future(fault.strike(on))
    while not striking.done() or len(sent) < FEWEST:
        first = len(sent)
        portion = [
            (at, delivery(on.house.senders.github, at, CONTEXTS, repository))
            for at in range(first, first + PORTION)
        ]
        sent += portion
        await send_all(
            on.house.http,
            portion,
            promises,
            dice=dice,
            acknowledged=lambda: told_s.append(time.monotonic()),
        )
        await asyncio.sleep(PAUSE_S)
    await striking
    await on.house.system.healthy()
    drain_s = await drained(on.house)
    kept = await everything(on.house, CONTEXTS, repository)
    return Trial(
        fault=fault.name,
        fsync=fsync,
        acknowledged=len(promises.events),
        retries=promises.retries,
        outage_s=round(max(after - before for before, after in pairwise(told_s)), 1),
        drain_s=round(drain_s, 1),
        account=audit(promises, sent, kept),
    )


async def run(faults: Sequence[Fault], var: Path, fsync: Fsync) -> list[Trial]:
    """One after another, on a system of its own."""
    async with ground(var, fsync) as on:
        found = []
        for number, fault in enumerate(faults, 1):
            found.append(await trial(on, fault, number, fsync))
            told = found[-1]
            print(
                f"  {told.fault}: {told.acknowledged} acknowledged, {len(told.account.lost)} lost, "
                f"{len(told.account.double_effects)} double, outage {told.outage_s} s",
                flush=True,
            )
        return found
