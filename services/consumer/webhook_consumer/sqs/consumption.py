"""Puts together what works off SQS beside Redis. Read only where SQS is used: its driver costs 25 MB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from webhook_shared.claims import Claims
from webhook_shared.objects.protocol import ObjectStore
from webhook_shared.redis import Client
from webhook_shared.sqs import client as sqs
from webhook_shared.sqs.client import SqsTrouble
from webhook_shared.sqs.migration import MigrationSection
from webhook_shared.tasks import ended
from webhook_shared.telemetry import log

from webhook_consumer import metrics
from webhook_consumer.entry import Handler
from webhook_consumer.queue.redis import Lane
from webhook_consumer.sqs.queue import STAGE, SqsQueue
from webhook_consumer.sqs.stage import SqsStage

GAUGE_PERIOD_S = 10.0


@asynccontextmanager
async def sqs_queue(
    settings: MigrationSection,
    lane: Lane,
    client: Client,
    objects: ObjectStore,
    *,
    block_ms: int,
    visibility_ms: int,
) -> AsyncIterator[SqsQueue]:
    """The queue that the settings name, counted while inside.

    Args:
        settings: Which queue.
        lane: Stage one's, in Redis.
        client: Of that Redis.
        objects: Where large bodies lie.
        block_ms: As of `SqsQueue`.
        visibility_ms: As of `SqsQueue`.

    Raises:
        RuntimeError: There is no such queue, or it is not ours to read.
    """
    async with sqs.opened(settings) as opened:
        try:
            await opened.check()
        except SqsTrouble as error:
            # Redis is worked off meanwhile, and the reader goes on asking.
            log.warning("sqs.unreachable_at_start", error=error.code)
        queue = SqsQueue(opened, lane, client, objects, block_ms=block_ms, visibility_ms=visibility_ms)
        counting = asyncio.create_task(_counted(queue))
        try:
            yield queue
        finally:
            await ended([counting])


def sqs_stage(stage: Handler, client: Client, objects: ObjectStore) -> Handler:
    """Stage one for what comes through SQS."""
    return SqsStage(stage, Claims(client), objects)


async def _counted(queue: SqsQueue) -> None:
    while True:
        try:
            counts = await queue.counts()
        except SqsTrouble as error:
            # The gauges keep what was true last; the reader says loudly that the queue is away.
            log.debug("backlog.not_counted", stage=STAGE, error=error.code)
        else:
            metrics.lag.labels(STAGE).set(counts.waiting)
            metrics.in_flight.labels(STAGE).set(counts.in_flight)
            metrics.delayed.labels(STAGE).set(counts.delayed)
            metrics.dead.labels(STAGE).set(counts.dead)
        await asyncio.sleep(GAUGE_PERIOD_S)
