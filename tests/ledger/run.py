"""One run: load, kills, rest, audit."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.ledger.books import Account, Promises, audit, delivery
from tests.ledger.killer import Killer
from tests.ledger.load import send_all
from tests.ledger.readers import drained, everything
from tests.senders import Delivery
from tests.system import running_house


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        deliveries: How many, each with an id and a body of its own.
        contexts: Over how many contexts they spread.
        rounds: How often each process is killed.
        seed: Decides about the order and the moments of the kills.
    """

    deliveries: int
    contexts: int
    rounds: int
    seed: int


@dataclass(frozen=True)
class Result:
    """What came of it.

    Attributes:
        in_contexts: Events that a reader finds in contexts; `dead` and `waiting`: those elsewhere.
        behind: Contexts that have not been understood as they are.
        load_s: From the first delivery to the last acknowledgement, seconds.
        drain_s: From then until nothing was queued any more, seconds.
    """

    plan: Plan
    kills: Mapping[str, int]
    promises: Promises
    account: Account
    in_contexts: int
    behind: int
    dead: int
    waiting: int
    load_s: float
    drain_s: float


async def run(plan: Plan, var: Path) -> Result:
    """Carry out a plan on a system of its own.

    Args:
        plan: What to do.
        var: An empty directory for the system.

    Raises:
        NotDrainedError: The queue does not come to rest.
        ExceptionGroup: A correct delivery was refused for good, or a process did not come up again.
    """
    dice = random.Random(plan.seed)  # a repeatable order of kills
    async with running_house(var, fsync="always") as house:
        sender = house.senders.github
        sent = [(n, delivery(sender, n, plan.contexts)) for n in range(plan.deliveries)]
        promises = Promises()
        killer = Killer(house.system, dice)
        started_s = time.monotonic()
        for victim, wave in zip(*_waves(killer.victims(plan.rounds), sent), strict=True):
            await killer.aim(victim, len(wave))
            await send_all(house.http, wave, promises, dice=dice, acknowledged=killer.acknowledged)
        await killer.finished()
        load_s = time.monotonic() - started_s
        await house.system.healthy()
        drain_s = await drained(house)
        kept = await everything(house, plan.contexts)
        return Result(
            plan=plan,
            kills=dict(killer.kills),
            promises=promises,
            account=audit(promises, sent, kept),
            in_contexts=kept.events.total(),
            behind=len(kept.behind),
            dead=len(kept.dead),
            waiting=len(kept.waiting),
            load_s=load_s,
            drain_s=drain_s,
        )


def _waves(
    victims: Sequence[str], sent: Sequence[tuple[int, Delivery]]
) -> tuple[Sequence[str], Sequence[Sequence[tuple[int, Delivery]]]]:
    """A share of the deliveries for each victim."""
    count, kills = len(sent), len(victims)
    return victims, [sent[n * count // kills : (n + 1) * count // kills] for n in range(kills)]
