"""Puts together the way of events while SQS is the queue or gets copies. Read only then: it costs 25 MB."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from webhook_shared.claims import Claims
from webhook_shared.objects import opening as object_store
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.partitions import Partitions
from webhook_shared.redis import Client
from webhook_shared.sqs import client as sqs
from webhook_shared.sqs.client import Sqs, SqsTrouble
from webhook_shared.sqs.migration import MigrationSection
from webhook_shared.sqs.parity import Ledger, Place

from webhook_gateway.outcome import Publication
from webhook_gateway.publishing.dual_write import Copier, DualWriter, copying
from webhook_gateway.publishing.event_publisher import EventPublisher
from webhook_gateway.publishing.migration import Migration
from webhook_gateway.publishing.ramp import Ramped, Share, followed
from webhook_gateway.publishing.sqs import SqsPublisher
from webhook_gateway.publishing.sqs_sending import Sender

log = structlog.get_logger()


@asynccontextmanager
async def queues(
    migration: MigrationSection,
    storage: ObjectStorageSection,
    publisher: EventPublisher,
    store: Client,
    *,
    partitions: Partitions,
    patience_s: float,
    drain_s: float,
    conflicted: Callable[[Publication, str], None],
) -> AsyncIterator[Migration]:
    """What events are published to.

    Args:
        migration: Which queues there are, and what each is for.
        storage: Where bodies lie that are too large for a message. Without a bucket such events are kept in
            Redis: a directory of this machine is nothing to a consumer elsewhere.
        publisher: To Redis.
        store: That Redis.
        partitions: As of `Publisher`.
        patience_s: As of `Publisher`.
        drain_s: How long copies may take when the process ends.
        conflicted: As of `Publisher`.

    Raises:
        RuntimeError: There is no such queue, or it is not ours to write to.
    """
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(sqs.opened(migration))
        await _checked(queue)
        objects = await stack.enter_async_context(object_store.opened(storage)) if storage.bucket else None
        sender = Sender(queue, objects, partitions)
        copier = None
        if migration.dual_write:
            retention_s = round(migration.parity_retention.total_seconds())
            copier = Copier(
                sender,
                Ledger(store, Place.SQS_QUEUED, retention_s=retention_s),
                max_events=migration.copy_buffer_events,
                max_bytes=migration.copy_buffer,
            )
            await stack.enter_async_context(copying(copier, drain_s))
            publisher = DualWriter(
                publisher, copier, Ledger(store, Place.REDIS_QUEUED, retention_s=retention_s)
            )
        share = Share(store, migration.redis_share_percent)
        if migration.backend == "sqs":
            await stack.enter_async_context(followed(share))
            there = SqsPublisher(
                sender,
                queue,
                Claims(store),
                partitions=partitions,
                patience_s=patience_s,
                conflicted=conflicted,
            )
            publisher = Ramped(publisher, there, share, sender.takes)
        yield Migration(migration, redis=store, publisher=publisher, sqs=queue, share=share, copier=copier)


async def _checked(queue: Sqs) -> None:
    try:
        await queue.check()
    except SqsTrouble as error:
        # What is for SQS waits in the spool or in the buffer of copies.
        log.warning("sqs.unreachable_at_start", error=error.code)
