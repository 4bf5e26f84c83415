"""Opens everything that the gateway needs, in order, and closes it in the other one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from webhook.ingest.v1 import (
    ingest_admin_service_pb2_grpc,
    ingest_service_pb2_grpc,
    migration_service_pb2_grpc,
)
from webhook_shared import redis
from webhook_shared.networks import Networks
from webhook_shared.partitions import Partitions
from webhook_shared.rpc import server
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import Authenticator, Certificates, Role
from webhook_shared.settings import RedisSection
from webhook_shared.tasks import ended

from webhook_gateway.admin_servicer import IngestAdminServicer
from webhook_gateway.conflicts import ConflictReports, Conflicts
from webhook_gateway.edge import server as http_server
from webhook_gateway.edge.addresses import Proxies
from webhook_gateway.edge.connection import Timeouts
from webhook_gateway.edge.handler import Edge
from webhook_gateway.edge.refusal_reports import RefusalReports
from webhook_gateway.edge.tls import HttpTls, refuse_plain_http
from webhook_gateway.feed import feeding
from webhook_gateway.forgetting import Forgetting
from webhook_gateway.health import REDIS, SQS, Health, unless_spooled
from webhook_gateway.intake import Intake
from webhook_gateway.limits import Crowd, Disbelief, Room, connections_allowed
from webhook_gateway.migration_servicer import MigrationServicer
from webhook_gateway.publishing.durability import Assurance
from webhook_gateway.publishing.keeping import Keeper, drained
from webhook_gateway.publishing.spool import Spool
from webhook_gateway.publishing.spool import opened as spooling
from webhook_gateway.publishing.stream import QUARANTINE, Publisher
from webhook_gateway.quarantine import Quarantine
from webhook_gateway.quarantine_bounds import bounded
from webhook_gateway.reports import reporting
from webhook_gateway.retries import Retries
from webhook_gateway.routes import Routes
from webhook_gateway.security_client import RouteKeeper, SecurityClient, kept
from webhook_gateway.servicer import IngestServicer
from webhook_gateway.settings import GatewaySection, GatewaySettings, GatewayWebhook, SpoolSection
from webhook_gateway.tail import Tail

if TYPE_CHECKING:
    from webhook_gateway.publishing.migration import Migration

log = structlog.get_logger()

# A quarter of what one Admit may hold. Not measured.
MAX_ITEMS = 64
# Measured with 1, 2 and 4 in turn, three times each: 2 was fastest every time. With 1, judging and publishing
# don't overlap; with 4, the batches are small and cost more calls.
IN_FLIGHT = 2


@dataclass(frozen=True)
class Running:
    """Where the gateway listens.

    Attributes:
        port: Of the RPC door.
        http_port: Of the HTTP edge.
    """

    port: int
    http_port: int


@asynccontextmanager
async def running(settings: GatewaySettings) -> AsyncIterator[Running]:
    """The gateway, while the context lasts. On leaving it takes nothing new and finishes what it has.

    Raises:
        RuntimeError: Redis may evict the stream, or a port is taken.
        ValueError: The settings contradict each other.
    """
    webhook, gateway = settings.webhook, settings.webhook.gateway
    drain_s = settings.process.drain_timeout.total_seconds()
    admit_timeout_s = gateway.admit_timeout.total_seconds()
    publish_timeout_s = gateway.publish_timeout.total_seconds()
    is_sqs = webhook.migration.backend == SQS
    https = _http_tls(gateway)
    async with AsyncExitStack() as stack:
        # First, so that a directory that can't be had is told at once, whether Redis is there or not.
        spool = await stack.enter_async_context(_spool(gateway.spool))
        store = redis.connect(webhook.redis)
        stack.push_async_callback(store.aclose)
        met = await stack.enter_async_context(
            _meeting(webhook.redis, patience_s=publish_timeout_s if spool or is_sqs else None)
        )
        channel = await stack.enter_async_context(
            connected(
                webhook.services.security,
                key=webhook.identity.internal_key,
                deadline_s=admit_timeout_s,
                tls=webhook.tls,
            )
        )
        security = SecurityClient(channel, admit_timeout_s=admit_timeout_s)
        routes = Routes()
        keeper = RouteKeeper(security, routes, refresh_s=gateway.policy_refresh.total_seconds())
        await stack.enter_async_context(kept(keeper))
        assurance = Assurance(
            store,
            replicas=gateway.durability_replicas,
            timeout_s=min(gateway.durability_timeout.total_seconds(), publish_timeout_s / 2),
        )
        if met.done():
            with contextlib.suppress(*redis.REDIS_TROUBLE):
                await assurance.probe()
        partitions = Partitions(webhook.consumer.stream, webhook.consumer.partitions)
        conflicts = await stack.enter_async_context(reporting(ConflictReports(security)))
        publisher = Publisher(
            store,
            patience_s=publish_timeout_s,
            assurance=assurance,
            partitions=partitions,
            conflicted=conflicts.note,
        )
        migration = await stack.enter_async_context(
            _migration(webhook, publisher, store, partitions, conflicts, drain_s=drain_s / 2)
        )
        way = migration.publisher if migration else publisher
        await stack.enter_async_context(drained(way, spool, _found() if is_sqs else met))
        await stack.enter_async_context(bounded(store, gateway.quarantine))
        keep = Keeper(way, spool, await stack.enter_async_context(feeding(store)))
        intake = await stack.enter_async_context(
            Intake(
                security,
                keep,
                max_items=MAX_ITEMS,
                in_flight=IN_FLIGHT,
                patience_s=admit_timeout_s + publish_timeout_s,
            )
        )
        tail = Tail(store)
        room = Room(gateway.max_body_memory)
        queue = SQS if is_sqs else REDIS
        probes: dict[str, server.Probe] = {
            queue: migration.probe if migration and is_sqs else partial(redis.ping, store),
            "security": keeper.refresh,
        }
        port = await stack.enter_async_context(
            server.serving(
                settings.process.listen_address or webhook.services.gateway,
                [
                    _ingest_service(IngestServicer(intake, routes, tail, room)),
                    _admin_service(
                        IngestAdminServicer(
                            Retries(security, keep),
                            Quarantine(store),
                            Conflicts(store, (*partitions.streams, QUARANTINE)),
                            Forgetting(store, spool),
                        )
                    ),
                    _migration_service(MigrationServicer(migration)),
                ],
                authenticator=Authenticator(
                    store, webhook.identity.internal_key, Certificates(webhook.identity, webhook.tls)
                ),
                ready={**probes, queue: unless_spooled(probes[queue], spool)},
                drain_s=drain_s,
                tls=webhook.tls,
            )
        )
        # Before the RPC door drains: a reader would stay as long as it may.
        stack.callback(tail.end)
        proxies = _proxies(gateway)
        http_port = await stack.enter_async_context(
            http_server.serving(
                gateway.http_address,
                Edge(
                    routes,
                    intake,
                    Health(probes, spool),
                    proxies=proxies,
                    disbelief=_disbelief(gateway),
                    reports=await stack.enter_async_context(reporting(RefusalReports(security))),
                ),
                timeouts=Timeouts(
                    header_s=gateway.header_timeout.total_seconds(),
                    body_s=gateway.body_timeout.total_seconds(),
                    keep_alive_s=gateway.keep_alive_timeout.total_seconds(),
                ),
                crowd=Crowd(
                    connections_allowed(gateway.max_connections),
                    gateway.max_connections_per_address,
                    is_exempt=proxies.trusts if proxies else None,
                ),
                room=room,
                drain_s=drain_s,
                tls=https,
            )
        )
        yield Running(port=port, http_port=http_port)


@asynccontextmanager
async def _migration(
    webhook: GatewayWebhook,
    publisher: Publisher,
    store: redis.Client,
    partitions: Partitions,
    conflicts: ConflictReports,
    *,
    drain_s: float,
) -> AsyncIterator[Migration | None]:
    """The way of events that knows SQS; none where nothing goes there."""
    if not webhook.migration.writes_sqs:
        yield None
        return
    # Only where SQS is used: the driver costs a gateway that does not 25 MB and half a second.
    from webhook_gateway.publishing.queues import queues  # noqa: PLC0415  # see above

    async with queues(
        webhook.migration,
        webhook.cold_storage,
        publisher,
        store,
        partitions=partitions,
        patience_s=webhook.gateway.publish_timeout.total_seconds(),
        drain_s=drain_s,
        conflicted=conflicts.note,
    ) as migration:
        yield migration


def _found() -> asyncio.Future[None]:
    """What there is to know of a queue whose fitness needs no proof."""
    found: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    found.set_result(None)
    return found


def _proxies(gateway: GatewaySection) -> Proxies | None:
    if not gateway.trusted_proxies:
        return None
    return Proxies(Networks.parse(gateway.trusted_proxies), gateway.forwarded_header.lower().encode())


def _disbelief(gateway: GatewaySection) -> Disbelief | None:
    return Disbelief(gateway.unbelieved_rate_limit) if gateway.unbelieved_rate_limit else None


def _http_tls(gateway: GatewaySection) -> HttpTls | None:
    if gateway.http_tls_cert_file:
        return HttpTls(gateway.http_tls_cert_file, gateway.http_tls_key_file)
    refuse_plain_http(gateway.http_address, allowed=gateway.http_allow_plain_text)
    return None


@asynccontextmanager
async def _meeting(settings: RedisSection, *, patience_s: float | None) -> AsyncIterator[asyncio.Task[None]]:
    """Redis is looked for, and found fit or not, before the gateway begins; longer only in the background."""

    async def met() -> None:
        async with redis.opened(settings):
            pass

    meeting = asyncio.create_task(met())
    try:
        done, _ = await asyncio.wait({meeting}, timeout=patience_s)
        if done:
            meeting.result()
        else:
            log.warning("redis.missing_at_start", consequence="events go to the spool")
        yield meeting
    finally:
        await ended([meeting])


@asynccontextmanager
async def _spool(section: SpoolSection) -> AsyncIterator[Spool | None]:
    if not section.directory:
        log.info("spool.none", consequence="while Redis is away deliveries are answered 503")
        yield None
        return
    async with spooling(
        Path(section.directory), max_events=section.max_events, max_bytes=section.max_bytes
    ) as spool:
        yield spool


def _ingest_service(servicer: IngestServicer) -> server.Service:
    return server.Service(
        name="webhook.ingest.v1.IngestService",
        add=partial(ingest_service_pb2_grpc.add_IngestServiceServicer_to_server, servicer),
        role=Role.WRITER,
        roles={"TailEvents": Role.OPERATOR},
    )


def _migration_service(servicer: MigrationServicer) -> server.Service:
    return server.Service(
        name="webhook.ingest.v1.MigrationService",
        add=partial(migration_service_pb2_grpc.add_MigrationServiceServicer_to_server, servicer),
        role=Role.OPERATOR,
    )


def _admin_service(servicer: IngestAdminServicer) -> server.Service:
    return server.Service(
        name="webhook.ingest.v1.IngestAdminService",
        add=partial(ingest_admin_service_pb2_grpc.add_IngestAdminServiceServicer_to_server, servicer),
        role=Role.OPERATOR,
        roles={"Forget": Role.INTERNAL},
    )
