"""Opens everything that the gateway needs, in order, and closes it in the other one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from webhook.ingest.v1 import ingest_service_pb2_grpc
from webhook_shared import redis, server
from webhook_shared.channel import connected
from webhook_shared.identity import Authenticator, Role

from webhook_gateway import http_server
from webhook_gateway.edge import Edge
from webhook_gateway.health import Health
from webhook_gateway.http_connection import Timeouts
from webhook_gateway.intake import Intake
from webhook_gateway.publish import Publisher
from webhook_gateway.routes import Routes
from webhook_gateway.security_client import RouteKeeper, SecurityClient, kept
from webhook_gateway.servicer import IngestServicer
from webhook_gateway.settings import GatewaySettings

# A quarter of what one Admit may hold. Not measured: the benchmark's 64 connections can't fill more.
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
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(redis.opened(webhook.redis))
        channel = await stack.enter_async_context(
            connected(
                webhook.services.security, key=webhook.identity.internal_key, deadline_s=admit_timeout_s
            )
        )
        security = SecurityClient(channel, admit_timeout_s=admit_timeout_s)
        routes = Routes()
        keeper = RouteKeeper(security, routes, refresh_s=gateway.policy_refresh.total_seconds())
        await stack.enter_async_context(kept(keeper))
        intake = await stack.enter_async_context(
            Intake(
                security,
                Publisher(store, patience_s=publish_timeout_s),
                max_items=MAX_ITEMS,
                in_flight=IN_FLIGHT,
                patience_s=admit_timeout_s + publish_timeout_s,
            )
        )
        probes: dict[str, server.Probe] = {"redis": partial(redis.ping, store), "security": keeper.refresh}
        port = await stack.enter_async_context(
            server.serving(
                settings.process.listen_address or webhook.services.gateway,
                [_ingest_service(IngestServicer(intake, routes))],
                authenticator=Authenticator(store, webhook.identity.internal_key),
                ready=probes,
                drain_s=drain_s,
            )
        )
        http_port = await stack.enter_async_context(
            http_server.serving(
                gateway.http_address,
                Edge(routes, intake, Health(probes)),
                timeouts=Timeouts(
                    header_s=gateway.header_timeout.total_seconds(),
                    body_s=gateway.body_timeout.total_seconds(),
                    keep_alive_s=gateway.keep_alive_timeout.total_seconds(),
                ),
                drain_s=drain_s,
            )
        )
        yield Running(port=port, http_port=http_port)


def _ingest_service(servicer: IngestServicer) -> server.Service:
    return server.Service(
        name="webhook.ingest.v1.IngestService",
        add=partial(ingest_service_pb2_grpc.add_IngestServiceServicer_to_server, servicer),
        role=Role.WRITER,
    )
