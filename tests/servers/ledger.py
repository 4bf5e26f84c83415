"""Senders that never stop and a worker behind them: what was promised, and what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Self

from webhook_consumer import metrics
from webhook_consumer.entry import DONE, Entry, Outcome
from webhook_consumer.failures.retry import RetryPolicy
from webhook_consumer.workers.worker import Limits, Worker
from webhook_gateway.outcome import Accepted
from webhook_gateway.publishing.durability import Durability
from webhook_shared.tasks import ended

from tests.servers.machines import until
from tests.servers.queue import Line, publication

LIMITS = Limits(workers=2, batch=50, prefetch=500, idle_ms=60_000, drain_s=2.0)
BATCH = 5


class Ledger:
    """Publishes while inside. A delivery that is not accepted is sent again, as senders do."""

    def __init__(
        self,
        line: Line,
        *,
        tools: Sequence[str] = ("github",),
        pause_s: float = 0.002,
        durability: Durability = Durability.FAST,
    ) -> None:
        self._line = line
        self._durability = durability
        self._tools = tools
        self._pause_s = pause_s
        self._numbers = count()
        self.acknowledged: set[str] = set()
        self.refused = 0
        self.handled: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended([self._sending])

    async def _send(self) -> None:
        door = self._line.door(patience_s=1.0)
        for number in self._numbers:
            batch = [
                publication(
                    number * BATCH + i, tool=self._tools[i % len(self._tools)], durability=self._durability
                )
                for i in range(BATCH)
            ]
            while batch:
                answers = await door.publish(batch)
                self.acknowledged |= {each.event_id for each in answers if isinstance(each, Accepted)}
                batch = [
                    each
                    for each, answer in zip(batch, answers, strict=True)
                    if not isinstance(answer, Accepted)
                ]
                self.refused += len(batch)
                await asyncio.sleep(self._pause_s)

    async def more(self, least: int = 50) -> None:
        """So many more have been accepted."""
        target = len(self.acknowledged) + least
        await until(lambda: len(self.acknowledged) >= target)

    async def handle(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """As a handler of the consumer."""
        self.handled.update(entry.text(b"id") for entry in entries)
        return [DONE] * len(entries)

    def worker(self, queue: object) -> Worker:
        policy = RetryPolicy(max_retries=3, base_s=0.02, cap_s=0.1)
        return Worker(queue, self, LIMITS, policy, metrics.EVENTS)  # type: ignore[arg-type]  # of Line.queue

    async def settled(self) -> None:
        """Everything that was accepted has been handled."""
        await until(lambda: not self.lost)

    @property
    def lost(self) -> set[str]:
        return self.acknowledged - set(self.handled)

    @property
    def repeated(self) -> set[str]:
        return {event for event, times in self.handled.items() if times > 1}
