"""Puts one process of the consumer together; the only place that opens resources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from webhook_shared import redis as store
from webhook_shared.channel import connected
from webhook_shared.envelope import Keyring
from webhook_shared.identity import Authenticator, Certificates
from webhook_shared.redis import Client
from webhook_shared.server import serving
from webhook_shared.tasks import ended

from webhook_consumer import metrics
from webhook_consumer.backlog import Backlog
from webhook_consumer.context_client import ContextClient
from webhook_consumer.dead_letters import DeadLetters
from webhook_consumer.intelligence_client import IntelligenceClient
from webhook_consumer.normalize import Normalizer
from webhook_consumer.opener import Opener
from webhook_consumer.queue_redis import Lane, RedisQueue
from webhook_consumer.retry import RetryPolicy
from webhook_consumer.servicer import ConsumerAdmin
from webhook_consumer.settings import ConsumerSection, ConsumerSettings
from webhook_consumer.stage_enrichment import EnrichmentStage
from webhook_consumer.stage_events import EventStage
from webhook_consumer.worker import Limits, Worker

CONTEXT_DEADLINE_S = 30.0
# A batch of summaries by a remote model takes its time.
INTELLIGENCE_DEADLINE_S = 120.0


@dataclass(frozen=True)
class Running:
    """A consumer at work.

    Attributes:
        port: Of its RPCs.
    """

    port: int


@asynccontextmanager
async def running(settings: ConsumerSettings) -> AsyncIterator[Running]:
    """The consumer, at work and serving while inside. Waits for Redis.

    Raises:
        ValueError: A key or an address is missing or weak.
        RuntimeError: The port is taken, or Redis would evict queued events.
    """
    webhook, consumer = settings.webhook, settings.webhook.consumer
    drain_s = settings.process.drain_timeout.total_seconds()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(store.opened(webhook.redis))
        keyring = Keyring(client, webhook.encryption.master_key)
        authenticator = Authenticator(
            client, webhook.identity.internal_key, Certificates(webhook.identity, webhook.tls)
        )

        queues: list[RedisQueue] = []
        for lane in lanes(consumer):
            blocking = store.connect(webhook.redis, block_s=consumer.block_timeout.total_seconds())
            stack.push_async_callback(blocking.aclose)
            queues.append(_queue(lane, client, blocking, consumer))
        backlog = Backlog(client, queues, consumer.quarantine_stream)
        admin = ConsumerAdmin(backlog, DeadLetters(client, lanes(consumer)), Opener(keyring))
        port = await stack.enter_async_context(
            serving(
                settings.process.listen_address or webhook.services.consumer,
                [admin.service()],
                authenticator=authenticator,
                ready={"redis": partial(store.ping, client)},
                drain_s=drain_s,
                tls=webhook.tls,
            )
        )

        key = webhook.identity.internal_key
        contexts = ContextClient(
            await stack.enter_async_context(
                connected(webhook.services.context, key=key, deadline_s=CONTEXT_DEADLINE_S, tls=webhook.tls)
            )
        )
        intelligence = IntelligenceClient(
            await stack.enter_async_context(
                connected(
                    webhook.services.intelligence,
                    key=key,
                    deadline_s=INTELLIGENCE_DEADLINE_S,
                    tls=webhook.tls,
                )
            )
        )
        await stack.enter_async_context(_gauges(backlog))
        events = EventStage(Opener(keyring), Normalizer.load().normalize, contexts)
        enrichment = EnrichmentStage(contexts, intelligence)
        workers = [
            Worker(queues[0], events, event_limits(consumer, drain_s), _policy(consumer), metrics.EVENTS),
            Worker(
                queues[1],
                enrichment,
                enrichment_limits(consumer, drain_s),
                _policy(consumer),
                metrics.ENRICHMENTS,
            ),
        ]
        async with _all(workers):
            yield Running(port)


def lanes(consumer: ConsumerSection) -> list[Lane]:
    """The two stages' lanes, in the order of an event's way."""
    return [
        Lane("events", consumer.stream, consumer.consumer_group, consumer.dead_letter_stream),
        Lane(
            "enrichment",
            consumer.enrichment.stream,
            consumer.enrichment.consumer_group,
            f"{consumer.enrichment.stream}-dlq",
        ),
    ]


def event_limits(consumer: ConsumerSection, drain_s: float) -> Limits:
    """How much stage one takes on."""
    return Limits(
        workers=consumer.num_workers,
        batch=consumer.batch_size,
        prefetch=consumer.prefetch_count,
        idle_ms=_milliseconds(consumer.claim_idle_time.total_seconds()),
        drain_s=drain_s,
    )


def enrichment_limits(consumer: ConsumerSection, drain_s: float) -> Limits:
    """How much stage two takes on."""
    return Limits(
        workers=consumer.enrichment.num_workers,
        batch=consumer.enrichment.batch_size,
        prefetch=consumer.enrichment.prefetch_count,
        idle_ms=_milliseconds(consumer.claim_idle_time.total_seconds()),
        drain_s=drain_s,
    )


def _queue(lane: Lane, client: Client, blocking: Client, consumer: ConsumerSection) -> RedisQueue:
    return RedisQueue(
        lane,
        client,
        blocking,
        block_ms=_milliseconds(consumer.block_timeout.total_seconds()),
        lease_ms=_milliseconds(consumer.claim_idle_time.total_seconds()),
    )


def _policy(consumer: ConsumerSection) -> RetryPolicy:
    return RetryPolicy(
        max_retries=consumer.max_retries,
        base_s=consumer.retry_backoff_base.total_seconds(),
        cap_s=consumer.retry_backoff_cap.total_seconds(),
    )


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


@asynccontextmanager
async def _all(workers: list[Worker]) -> AsyncIterator[None]:
    for worker in workers:
        await worker.__aenter__()
    try:
        yield
    finally:
        # Side by side: together they may take no longer than one of them.
        await asyncio.gather(*(worker.__aexit__(None, None, None) for worker in workers))


@asynccontextmanager
async def _gauges(backlog: Backlog) -> AsyncIterator[None]:
    watching = asyncio.create_task(backlog.watch())
    try:
        yield
    finally:
        await ended([watching])
