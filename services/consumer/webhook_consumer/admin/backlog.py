"""How much is queued, for operators and for /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from webhook_shared.redis import Client
from webhook_shared.telemetry import log

from webhook_consumer import metrics
from webhook_consumer.queue.protocol import EventQueue
from webhook_consumer.queue.redis import QUEUE_TROUBLE, Counts, Lane, RedisQueue

GAUGE_PERIOD_S = 2.0
# How long a queue that is not on Redis may take to answer.
ELSEWHERE_WITHIN_S = 3.0


class Backlog:
    """The counts of all stages.

    Args:
        client: For the quarantine's length.
        queues: The stages' queues, partition by partition; more may come.
        quarantine: The stream of deliveries that could not be parsed.

    Attributes:
        elsewhere: Queues that are not on Redis.
    """

    def __init__(self, client: Client, queues: Sequence[RedisQueue], quarantine: str) -> None:
        self.queues = queues
        self.elsewhere: list[EventQueue] = []
        self._client = client
        self._quarantine = quarantine

    async def stages(self) -> list[tuple[Lane, Counts]]:
        """The counts of each stage, all its partitions together, and the first of its lanes.

        Raises:
            QUEUE_TROUBLE: They could not be had.
        """
        found: dict[str, tuple[Lane, Counts]] = {}
        for queue in tuple(self.queues):
            lane, counts = queue.lane, await queue.counts()
            first, sum_ = found.get(lane.stage, (lane, None))
            found[lane.stage] = (first, counts if sum_ is None else sum_.plus(counts))
        return list(found.values())

    async def estimates(self) -> list[tuple[Lane, Counts | None]]:
        """The counts of the queues elsewhere, as they tell them; None of one that does not answer."""
        return [(queue.lane, await _estimate(queue)) for queue in tuple(self.elsewhere)]

    async def watch(self) -> None:
        """Keep the gauges right for as long as it runs."""
        while True:
            try:
                for lane, counts in await self.stages():
                    _show(lane.stage, counts)
                metrics.quarantined.set(await self._client.xlen(self._quarantine))
            except QUEUE_TROUBLE as error:
                # The gauges keep what was true last; the reader says loudly that the queue is away.
                log.debug("backlog.not_counted", error=type(error).__name__)
            await asyncio.sleep(GAUGE_PERIOD_S)


async def _estimate(queue: EventQueue) -> Counts | None:
    try:
        async with asyncio.timeout(ELSEWHERE_WITHIN_S):
            return await queue.counts()
    except QUEUE_TROUBLE as error:
        log.info("backlog.not_counted", stage=queue.lane.stage, error=type(error).__name__)
        return None


def _show(stage: str, counts: Counts) -> None:
    metrics.lag.labels(stage).set(counts.waiting + counts.due)
    metrics.in_flight.labels(stage).set(counts.in_flight)
    metrics.delayed.labels(stage).set(counts.delayed)
    metrics.parked.labels(stage).set(counts.parked)
    metrics.dead.labels(stage).set(counts.dead)
    metrics.oldest_age.labels(stage).set((counts.oldest_ms or 0) / 1000)
