"""One server to empty, and a worker on it as the consumer has it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pydantic import SecretStr
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_consumer import metrics
from webhook_consumer.entry import DONE, Entry, Outcome
from webhook_consumer.failures.retry import RetryPolicy
from webhook_consumer.lanes import event_lanes
from webhook_consumer.opener import Opened, Opener
from webhook_consumer.queue.redis import RedisQueue
from webhook_consumer.settings import ConsumerSection
from webhook_consumer.wiring import event_limits
from webhook_consumer.workers.worker import Worker
from webhook_shared import redis as store
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.settings import RedisSection

from tests.bench.consume.corpus import TENANT, Payload, entries
from tests.bench.log_rewriting import rewritten

QUEUED_AT_ONCE = 500
MASTER = SecretStr("a-master-key-for-measuring-only-0123456789")
CONSUMER = ConsumerSection()
LANE = event_lanes(CONSUMER, on_cluster=False)[0]
DRAIN_S = 10.0
#: When an event was queued, by this machine's monotonic clock, seconds; only where that is measured.
SENT = b"sent"


@dataclass
class Opening:
    """Stage one without its effect: the event is opened, and that is all.

    Attributes:
        opened: How many.
        waits_s: How long each waited from being queued until here, where that is known.
    """

    opener: Opener
    opened: int = 0
    waits_s: list[float] = field(default_factory=list)

    async def handle(self, batch: Sequence[Entry]) -> Sequence[Outcome]:
        """DONE for what is an event."""
        if SENT in batch[0].fields:
            now_s = time.monotonic()
            self.waits_s += [now_s - float(entry.fields[SENT]) for entry in batch]
        outcomes: list[Outcome] = []

        def take(_: int, opened: Opened) -> None:
            if isinstance(opened, WebhookEvent):
                self.opened += 1
                outcomes.append(DONE)
            else:
                outcomes.append(opened)

        await self.opener.each(batch, take)
        return outcomes


@asynccontextmanager
async def queue_of(settings: RedisSection, client: Client) -> AsyncIterator[RedisQueue]:
    """The queue of stage one, with a connection of its own to wait on."""
    block_s = CONSUMER.block_timeout.total_seconds()
    blocking = store.connect(settings, block_s=block_s)
    idle_ms = event_limits(CONSUMER, DRAIN_S).idle_ms
    yield RedisQueue(LANE, client, blocking, block_ms=int(block_s * 1000), lease_ms=idle_ms)
    await blocking.aclose()


@asynccontextmanager
async def working(settings: RedisSection, client: Client) -> AsyncIterator[Opening]:
    """A worker at work while inside."""
    handler = Opening(Opener(Keyring(client, MASTER)))
    policy = RetryPolicy(CONSUMER.max_retries, 1, 60)
    async with (
        queue_of(settings, client) as queue,
        Worker(queue, handler, event_limits(CONSUMER, DRAIN_S), policy, metrics.EVENTS),
    ):
        yield handler


async def fill(client: Client, bodies: Sequence[Payload], count: int) -> float:
    """Queue events. Returns the bytes that one of them takes in the server's memory."""
    keyring = Keyring(client, MASTER)
    await keyring.prepare([TENANT])
    before = await used_memory_bytes(client)
    waiting = 0
    pipeline = client.pipeline(transaction=False)
    for fields in entries(keyring, bodies, count):
        flat = [part for pair in fields.items() for part in pair]
        pipeline.execute_command("XADD", LANE.stream, "*", *flat)
        waiting += 1
        if waiting == QUEUED_AT_ONCE:
            await pipeline.execute()
            waiting = 0
    await pipeline.execute()
    await rewritten(client)
    return (await used_memory_bytes(client) - before) / count


async def used_memory_bytes(client: Client) -> float:
    """What the server's data takes."""
    return float((await client.info("memory"))["used_memory"])
