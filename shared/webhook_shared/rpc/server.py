"""A gRPC server as every service has it: guarded, healthy only when it is, reflected, drained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from webhook_shared import telemetry
from webhook_shared.rpc.channel import LARGEST_MESSAGE_BYTES, PLAIN
from webhook_shared.rpc.identity import Authenticator, Role
from webhook_shared.rpc.interceptors import ByName, Guarded, UnaryTraced
from webhook_shared.rpc.tls import (
    CertificateFiles,
    refuse_plain_text,
    server_credentials,
    stays_on_this_machine,
)
from webhook_shared.settings import TlsSection
from webhook_shared.tasks import ended

log = structlog.get_logger()

PROBE_PERIOD_S = 1.0
PROBE_TIMEOUT_S = 2.0
MOST_PENDING_CALLS = 50_000
LONGEST_PENDING_S = 600
_OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.max_send_message_length", LARGEST_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    # The core's own pings, which measure bandwidth, count too: a busy caller was sent away for them.
    ("grpc.http2.max_ping_strikes", 0),
    # Calls that wait for the event loop. By default gRPC drops some from 1,000 on, all from 3,000 on, and
    # what has waited for 30 s: with CANCELLED, as if the caller had. Here they wait, until their deadline.
    ("grpc.server.max_pending_requests", MOST_PENDING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", MOST_PENDING_CALLS),
    ("grpc.server_max_unrequested_time_in_server", LONGEST_PENDING_S),
)

Probe = Callable[[], Awaitable[None]]
"""Raises while something that the service depends on is not there."""


@dataclass(frozen=True)
class Service:
    """One gRPC service to serve.

    Attributes:
        name: "webhook.context.v1.ContextService".
        add: Adds the servicer to a server, or to what guards one.
        role: What a caller needs for any method...
        roles: ...but for these, by method name.
    """

    name: str
    add: Callable[[Any], None]
    role: Role
    roles: Mapping[str, Role] = field(default_factory=dict)


def _role_of(services: Sequence[Service], method: str) -> Role | None:
    _, name, call = method.split("/")
    service = next((service for service in services if service.name == name), None)
    return service.roles.get(call, service.role) if service else None


@asynccontextmanager
async def serving(
    address: str,
    services: Sequence[Service],
    *,
    authenticator: Authenticator,
    ready: Mapping[str, Probe],
    drain_s: float,
    tls: TlsSection = PLAIN,
) -> AsyncIterator[int]:
    """Serve while inside.

    Args:
        address: host:port; port 0 means any.
        services: What to serve, beside health and reflection.
        authenticator: Knows the credentials.
        ready: What must be there for the health check to say SERVING, by name.
        drain_s: How long calls in flight may take to finish on leaving, seconds.
        tls: The certificates; new connections see the files as they are then.

    Yields:
        The port.

    Raises:
        RuntimeError: The port is taken.
        TlsProblem: The certificates can't be used, or there are none and the address is off this machine.
    """
    credentials = _credentials(address, tls)
    interceptors: list[grpc.aio.ServerInterceptor] = []
    if telemetry.tracing_is_on():
        from opentelemetry.instrumentation.grpc import (  # noqa: PLC0415  # slow to import, rarely needed
            aio_server_interceptor,
            filters,
        )

        # A health check is nobody's work.
        tracer: grpc.aio.ServerInterceptor = aio_server_interceptor(  # type: ignore[no-untyped-call]
            filter_=filters.negate(filters.health_check())
        )
        interceptors.append(UnaryTraced(tracer))
    server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
    checks = health.aio.HealthServicer()
    # Health and reflection stay open.
    open_to_all: Any = ByName(server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, open_to_all)
    guarded = Guarded(server, authenticator, partial(_role_of, services))
    for service in services:
        service.add(guarded)
    names = [service.name for service in services]
    shown = reflection.aio.ReflectionServicer([*names, health.SERVICE_NAME, reflection.SERVICE_NAME])
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(  # type: ignore[no-untyped-call]  # gRPC's
        shown, open_to_all
    )
    try:
        port = (
            server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        )
    except RuntimeError:
        raise RuntimeError(
            f"can't listen on {address}: is it taken? Set WEBHOOK_LISTEN_ADDRESS to another host:port"
        ) from None
    await server.start()
    prober = asyncio.create_task(_probe_forever(checks, names, ready))
    log.info("rpc.listening", address=address, port=port, tls=_speech(tls))
    try:
        yield port
    finally:
        await ended([prober])
        await checks.enter_graceful_shutdown()
        await server.stop(drain_s)


def _credentials(address: str, tls: TlsSection) -> grpc.ServerCredentials | None:
    if not tls.cert_file:
        refuse_plain_text(address, tls)
        if not stays_on_this_machine(address):
            log.warning("rpc.plain_text", address=address, key="webhook.tls.allow_plain_text")
        return None
    return server_credentials(
        CertificateFiles.of(tls), callers_show_theirs=tls.client_certificates == "required"
    )


def _speech(tls: TlsSection) -> str:
    if not tls.cert_file:
        return "none"
    return "mutual" if tls.client_certificates == "required" else "server"


async def _probe_forever(
    checks: health.aio.HealthServicer, names: Sequence[str], ready: Mapping[str, Probe]
) -> None:
    was: str | None = None
    while True:
        missing = [name for name, probe in ready.items() if not await _answers(probe)]
        state = ",".join(missing)
        if state != was:
            status = (
                health_pb2.HealthCheckResponse.NOT_SERVING
                if missing
                else health_pb2.HealthCheckResponse.SERVING
            )
            for name in ("", *names):
                await checks.set(name, status)
            if missing:
                log.warning("health.not_serving", missing=state)
            else:
                log.info("health.serving")
            was = state
        await asyncio.sleep(PROBE_PERIOD_S)


async def _answers(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await probe()
    except Exception:  # noqa: BLE001  # whatever it is, the dependency is not there
        return False
    return True
