"""A run in which Redis stays away for a while, and the gateway dies meanwhile: the spool's ledger."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import wire
from tests.ledger.books import Account, Promises, audit, delivery
from tests.ledger.killer import LONGEST_HESITATION_S
from tests.ledger.load import send_all
from tests.ledger.readers import drained, everything
from tests.senders import Delivery
from tests.system import House, running_house

EMPTY_WITHIN_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True)
class Outage:
    """What came of it.

    Attributes:
        deliveries: How many were sent.
        spooled: Events that waited on the gateway's disk at the end of the outage.
        in_contexts: Events that a reader finds in contexts.
    """

    deliveries: int
    spooled: int
    in_contexts: int
    promises: Promises
    account: Account


async def run(deliveries: int, contexts: int, seed: int, var: Path) -> Outage:
    """Send three equal parts: Redis goes during the first and comes back during the third.

    In the middle of the second part, without Redis, the gateway is killed and starts again.

    Args:
        deliveries: How many, each with an id and a body of its own.
        contexts: Over how many contexts they spread.
        seed: Decides about the senders' waits.
        var: An empty directory for the system.

    Raises:
        NotDrainedError: The queue does not come to rest.
        TimeoutError: The spool does not empty.
        ExceptionGroup: A correct delivery was refused for good.
    """
    dice = random.Random(seed)  # a repeatable load
    async with running_house(var, fsync="always") as house:
        sent = [(n, delivery(house.senders.github, n, contexts)) for n in range(deliveries)]
        before, during, after = (sent[n * deliveries // 3 : (n + 1) * deliveries // 3] for n in range(3))
        promises = Promises()

        async def send(part: Sequence[tuple[int, Delivery]]) -> None:
            await send_all(house.http, part, promises, dice=dice, acknowledged=lambda: None)

        going = asyncio.create_task(send(before))
        async with house.without("redis"):
            await going
            await send(during[: len(during) // 2])
            dying = asyncio.create_task(send(during[len(during) // 2 :]))
            await asyncio.sleep(dice.uniform(0, LONGEST_HESITATION_S))
            house.system.kill("gateway")
            await dying
            await house.system.healthy("gateway")
            spooled = await _spooled(house)
            coming = asyncio.create_task(send(after))
        await coming
        await house.system.healthy()
        async with asyncio.timeout(EMPTY_WITHIN_S):
            while await _spooled(house):
                await asyncio.sleep(POLL_S)
        await drained(house)
        kept = await everything(house, contexts)
        return Outage(
            deliveries=deliveries,
            spooled=spooled,
            in_contexts=kept.events.total(),
            promises=promises,
            account=audit(promises, sent, kept),
        )


async def _spooled(house: House) -> int:
    """How many events wait on the gateway's disk."""
    page = await wire.get(house.system.plan.metrics["gateway"], "/metrics")
    found = re.search(rb"^webhook_spool_events (\S+)$", page.body, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))
