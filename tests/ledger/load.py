"""Senders that do what senders do: send, and send again until somebody says that it has it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from tests import wire
from tests.ledger.books import Promises
from tests.senders import Delivery

SENDERS = 24
ANSWER_WITHIN_S = 10.0
NOBODY_LISTENS = ConnectionRefusedError.__name__
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0
ACKNOWLEDGED = frozenset({200, 202})
# One in so many acknowledgements never reaches its sender, who then sends again what is there already. Kills
# alone rarely meet the moment between an event's writing and its answer, which is when duplicates arise.
UNHEARD_ONE_IN = 20


class RefusedForGoodError(Exception):
    """A correct delivery got a 4xx: a sender would never send it again."""


async def send_all(
    address: str,
    deliveries: Sequence[tuple[int, Delivery]],
    promises: Promises,
    *,
    dice: random.Random,
    acknowledged: Callable[[], None],
) -> None:
    """Have every delivery acknowledged, however long that takes.

    Args:
        address: host:port of the HTTP edge.
        deliveries: By sequence.
        promises: Grows by what was answered.
        dice: Spreads the retries.
        acknowledged: Called once for each.

    Raises:
        RefusedForGoodError: Through an ExceptionGroup.
    """
    left = iter(deliveries)

    async def sender() -> None:
        # One iterator for all: each takes the next that nobody has taken.
        for sequence, delivery in left:
            await _until_acknowledged(address, sequence, delivery, promises, dice)
            acknowledged()

    async with asyncio.TaskGroup() as group:
        for _ in range(SENDERS):
            group.create_task(sender())


async def _until_acknowledged(
    address: str, sequence: int, delivery: Delivery, promises: Promises, dice: random.Random
) -> None:
    while True:
        try:
            answer = await wire.post(address, delivery, within_s=ANSWER_WITHIN_S)
        except (wire.NoAnswerError, TimeoutError) as error:
            promises.refused["closed" if str(error) == NOBODY_LISTENS else "cut"] += 1
        else:
            if _heard(sequence, answer, promises, dice):
                return
        promises.retries += 1
        await asyncio.sleep(dice.uniform(SHORTEST_WAIT_S, LONGEST_WAIT_S))


def _heard(sequence: int, answer: wire.Answer, promises: Promises, dice: random.Random) -> bool:
    """Note an answer. Whether the sender now knows that somebody has it."""
    if answer.status in ACKNOWLEDGED:
        if sequence not in promises.unheard and dice.randrange(UNHEARD_ONE_IN) == 0:
            promises.unheard[sequence] = answer.event_id
            return False
        promises.events[sequence] = answer.event_id
        promises.repeated += answer.duplicate
        return True
    promises.refused[str(answer.status)] += 1
    if answer.status < 500 and answer.status != 429:
        raise RefusedForGoodError(f"delivery {sequence}: {answer}")
    return False
