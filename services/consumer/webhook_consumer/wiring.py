"""Puts one process of the consumer together; the only place that opens resources."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from webhook.consumer.v1 import archive_service_pb2, consumer_admin_service_pb2
from webhook.security.v1 import audit_pb2
from webhook_shared import redis as store
from webhook_shared.audit.trail import put_on_record, recording
from webhook_shared.objects import opening as object_store
from webhook_shared.objects.protocol import ObjectStore
from webhook_shared.partitions import Partitions
from webhook_shared.redis import Client
from webhook_shared.retention import Retention
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import Authenticator, Certificates
from webhook_shared.rpc.server import Service, serving
from webhook_shared.sealing import master_key_record
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.master_keys import MasterKeys, all_of
from webhook_shared.sqs.migration import MigrationSection
from webhook_shared.sqs.parity import Ledger, Place
from webhook_shared.tasks import ended

from webhook_consumer import metrics
from webhook_consumer.admin.backlog import Backlog
from webhook_consumer.admin.tools import Tools
from webhook_consumer.archive.facade import Archive
from webhook_consumer.archive.replay import Replays
from webhook_consumer.archive.replay_rehearsal import Rehearsal
from webhook_consumer.archive.servicer import ArchiveServicer
from webhook_consumer.context_client import ContextClient
from webhook_consumer.dead_letters.letters import DeadLetters
from webhook_consumer.dead_letters.redrive import Canaries, Redrive
from webhook_consumer.dead_letters.retention import LetterRetention
from webhook_consumer.entry import Handler
from webhook_consumer.failures.breaker import Breakers
from webhook_consumer.failures.holds import Holds
from webhook_consumer.forgetting.erasure import Forgetting
from webhook_consumer.forgetting.places import places_of
from webhook_consumer.forgetting.servicer import ForgettingServicer
from webhook_consumer.intelligence_client import IntelligenceClient
from webhook_consumer.lanes import enrichment_lane, event_lanes, left_behind
from webhook_consumer.normalize import Normalizer
from webhook_consumer.opener import Opener
from webhook_consumer.policies import breaker_policy, retry_budget, retry_policy
from webhook_consumer.queue.protocol import EventQueue
from webhook_consumer.queue.redis import QUEUE_TROUBLE, Lane, RedisQueue
from webhook_consumer.servicer import ConsumerAdmin
from webhook_consumer.settings import ConsumerSection, ConsumerSettings, ConsumerWebhook
from webhook_consumer.stages.enrichment import EnrichmentStage
from webhook_consumer.stages.events import EventStage
from webhook_consumer.stages.witness import Witness
from webhook_consumer.workers.crew import Crew
from webhook_consumer.workers.watchdog import Watchdog
from webhook_consumer.workers.worker import Limits, Worker

CONTEXT_DEADLINE_S = 30.0
# A batch of summaries by a remote model takes its time.
INTELLIGENCE_DEADLINE_S = 120.0
# A stage that has not read for so long, though there was room, is not well.
READS_MISSED = 3
SHORTEST_SILENCE_S = 10.0


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
        objects, keyring = await stack.enter_async_context(_sealed(webhook, client))
        authenticator = Authenticator(
            client, webhook.identity.internal_key, Certificates(webhook.identity, webhook.tls)
        )

        on_cluster = await client.form() == "cluster"
        lanes = [
            *event_lanes(consumer, on_cluster=on_cluster),
            enrichment_lane(consumer, on_cluster=on_cluster),
        ]
        queues: list[RedisQueue] = []

        def queue_of(lane: Lane) -> RedisQueue:
            blocking = store.connect(webhook.redis, block_s=consumer.block_timeout.total_seconds())
            stack.push_async_callback(blocking.aclose)
            queue = _queue(lane, client, blocking, consumer)
            queues.append(queue)
            return queue

        for lane in lanes:
            queue_of(lane)
        backlog = Backlog(client, queues, consumer.quarantine_stream)
        breakers = {lane.stage: Breakers(client, lane.stage, breaker_policy(consumer)) for lane in lanes}
        dead_letters, canaries = DeadLetters(client, lanes), Canaries(client)
        admin = ConsumerAdmin(
            backlog,
            dead_letters,
            Opener(keyring),
            tools=Tools(client, lanes, list(breakers.values()), dead_letters),
            redrive=Redrive(client, dead_letters, canaries),
            claim_idle_ms=_milliseconds(consumer.claim_idle_time.total_seconds()),
        )
        key = webhook.identity.internal_key
        contexts = ContextClient(
            await stack.enter_async_context(
                connected(webhook.services.context, key=key, deadline_s=CONTEXT_DEADLINE_S, tls=webhook.tls)
            )
        )
        normalize = Normalizer.load().normalize
        archive = Archive(client, objects, keyring.master_keys, webhook.archive, webhook.retention.rules)
        archived = ArchiveServicer(
            archive.catalogue,
            Replays(client, archive.catalogue, Partitions(consumer.stream, consumer.partitions)),
            Rehearsal(Opener(keyring), normalize, contexts),
            Opener(keyring),
        )
        await stack.enter_async_context(_on_record(webhook, client, keyring.master_keys, admin, archived))
        workers: list[Worker] = []
        port = await stack.enter_async_context(
            serving(
                settings.process.listen_address or webhook.services.consumer,
                [
                    admin.service(),
                    archived.service(),
                    _forgetting(client, lanes, webhook, archive, Opener(keyring)),
                ],
                authenticator=authenticator,
                ready={
                    "redis": partial(store.ping, client),
                    "reading": partial(_reading, workers, _silence_s(consumer)),
                },
                drain_s=drain_s,
                tls=webhook.tls,
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
        await stack.enter_async_context(_kept(archive, client, lanes, webhook))
        events = archive.of(EventStage(Opener(keyring), normalize, contexts, archive.forgotten))
        enrichment = EnrichmentStage(
            contexts,
            intelligence,
            settle_s=consumer.enrichment.settle_delay.total_seconds(),
            late_s=lambda: _late_s(queues, crew),
        )
        stages: dict[str, tuple[Handler, Limits, metrics.StageMetrics]] = {
            "events": (
                _watched(events, webhook.migration, client, Place.REDIS_PROCESSED),
                event_limits(consumer, drain_s),
                metrics.EVENTS,
            ),
            "enrichment": (enrichment, enrichment_limits(consumer, drain_s), metrics.ENRICHMENTS),
        }

        def employ(lane: Lane) -> Worker:
            queue = next((queue for queue in queues if queue.lane == lane), None)
            if queue is None:
                lanes.append(lane)
                queue = queue_of(lane)
            handler, limits, counted = stages[lane.stage]
            return Worker(
                queue,
                handler,
                limits,
                retry_policy(consumer),
                counted,
                holds=Holds(breakers[lane.stage]),
                budget=retry_budget(consumer),
                canaries=canaries,
            )

        crew = Crew(workers, employ, partial(left_behind, client, consumer, on_cluster=on_cluster))
        for lane in lanes:
            crew.add(lane)
        if webhook.migration.reads_sqs:
            queue, stage = await stack.enter_async_context(_sqs(webhook, lanes[0], client, objects, events))
            backlog.elsewhere.append(queue)
            workers.append(
                Worker(
                    queue,
                    stage,
                    event_limits(consumer, drain_s),
                    retry_policy(consumer),
                    metrics.EVENTS,
                    holds=Holds(breakers[lanes[0].stage]),
                    budget=retry_budget(consumer),
                    canaries=canaries,
                )
            )
        watchdog = Watchdog(consumer.watchdog_timeout.total_seconds())
        await stack.enter_async_context(watchdog.watching())
        async with crew.at_work():
            yield Running(port)


@asynccontextmanager
async def _sqs(
    webhook: ConsumerWebhook, lane: Lane, client: Client, objects: ObjectStore, events: Handler
) -> AsyncIterator[tuple[EventQueue, Handler]]:
    """The queue on SQS, and stage one for what it brings."""
    # Only where SQS is read: the driver costs a process that does not 25 MB and half a second.
    from webhook_consumer.sqs.consumption import sqs_queue, sqs_stage  # noqa: PLC0415  # see above

    consumer = webhook.consumer
    async with sqs_queue(
        webhook.migration,
        lane,
        client,
        objects,
        block_ms=_milliseconds(consumer.block_timeout.total_seconds()),
        visibility_ms=_milliseconds(consumer.claim_idle_time.total_seconds()),
    ) as queue:
        watched = _watched(events, webhook.migration, client, Place.SQS_PROCESSED)
        yield queue, sqs_stage(watched, client, objects)


def _watched(stage: Handler, migration: MigrationSection, client: Client, place: Place) -> Handler:
    """The stage, and while both queues are written a note of what it has done."""
    if not migration.dual_write:
        return stage
    return Witness(
        stage, Ledger(client, place, retention_s=round(migration.parity_retention.total_seconds()))
    )


def event_limits(consumer: ConsumerSection, drain_s: float) -> Limits:
    """How much stage one takes on, of each partition its share."""
    return Limits(
        workers=math.ceil(consumer.num_workers / consumer.partitions),
        batch=consumer.batch_size,
        prefetch=math.ceil(consumer.prefetch_count / consumer.partitions),
        idle_ms=_milliseconds(consumer.claim_idle_time.total_seconds()),
        drain_s=drain_s,
        handler_s=consumer.handler_timeout.total_seconds(),
    )


def enrichment_limits(consumer: ConsumerSection, drain_s: float) -> Limits:
    """How much stage two takes on."""
    return Limits(
        workers=consumer.enrichment.num_workers,
        batch=consumer.enrichment.batch_size,
        prefetch=consumer.enrichment.prefetch_count,
        idle_ms=_milliseconds(consumer.claim_idle_time.total_seconds()),
        drain_s=drain_s,
        handler_s=consumer.handler_timeout.total_seconds(),
    )


def _queue(lane: Lane, client: Client, blocking: Client, consumer: ConsumerSection) -> RedisQueue:
    return RedisQueue(
        lane,
        client,
        blocking,
        block_ms=_milliseconds(consumer.block_timeout.total_seconds()),
        lease_ms=_milliseconds(consumer.claim_idle_time.total_seconds()),
    )


def _silence_s(consumer: ConsumerSection) -> float:
    return max(SHORTEST_SILENCE_S, READS_MISSED * consumer.block_timeout.total_seconds())


async def _reading(workers: list[Worker], silence_s: float) -> None:
    """Raise where a stage should be reading and has not managed to for so long."""
    silent = [worker for worker in workers if worker.silent_s > silence_s]
    if silent:
        raise RuntimeError(f"{len(silent)} stages do not read")


async def _late_s(queues: list[RedisQueue], crew: Crew) -> float:
    """How late events are, seconds; 0 where that can't be seen, or nobody here gets to them any more."""
    if crew.ends:
        return 0.0
    of_events = [queue.late_s() for queue in queues if queue.lane.stage == metrics.EVENTS.stage]
    try:
        return max(await asyncio.gather(*of_events))
    except QUEUE_TROUBLE:
        return 0.0


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


@asynccontextmanager
async def _gauges(backlog: Backlog) -> AsyncIterator[None]:
    watching = asyncio.create_task(backlog.watch())
    try:
        yield
    finally:
        await ended([watching])


@asynccontextmanager
async def _kept(
    archive: Archive, client: Client, lanes: list[Lane], webhook: ConsumerWebhook
) -> AsyncIterator[None]:
    """What is kept is written while inside, and dropped when its time is over."""
    section = webhook.retention
    retention = Retention.of("dead_letters", section.dead_letters, section.rules)
    letters = LetterRetention(client, lanes, retention, every_s=section.sweep_interval.total_seconds())
    async with archive.at_work(), letters.at_work():
        yield


def _forgetting(
    client: Client, lanes: list[Lane], webhook: ConsumerWebhook, archive: Archive, opener: Opener
) -> Service:
    places = partial(places_of, client, lanes, webhook.consumer.quarantine_stream)
    normalize, reads_sqs = Normalizer.load().normalize, webhook.migration.reads_sqs
    return ForgettingServicer(Forgetting(places, archive, opener, normalize, reads_sqs=reads_sqs)).service()


@asynccontextmanager
async def _sealed(webhook: ConsumerWebhook, client: Client) -> AsyncIterator[tuple[ObjectStore, Keyring]]:
    """Where objects lie, and what seals."""
    async with object_store.opened(webhook.cold_storage) as objects:
        master_keys = all_of(webhook.encryption)
        await master_key_record.settle(client, master_keys, objects)
        yield objects, Keyring(client, master_keys)


@asynccontextmanager
async def _on_record(
    webhook: ConsumerWebhook,
    client: Client,
    master_keys: MasterKeys,
    admin: ConsumerAdmin,
    archived: ArchiveServicer,
) -> AsyncIterator[None]:
    """What administrators do is put on record while inside."""
    own, kept = consumer_admin_service_pb2.DESCRIPTOR, archive_service_pb2.DESCRIPTOR
    async with recording(client, master_keys, webhook.security, audit_pb2) as (_, recorder):
        if recorder is not None:
            put_on_record(admin, own.services_by_name["ConsumerAdminService"], recorder)
            put_on_record(archived, kept.services_by_name["ArchiveService"], recorder)
        yield
