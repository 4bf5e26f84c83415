"""Asking a process whether it can work."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2
from webhook_shared.rpc.channel import PLAIN, opened
from webhook_shared.settings import TlsSection

from webhook_ops.trust import trust


class Health(StrEnum):
    """What a process says of itself."""

    SERVING = "serving"
    NOT_SERVING = "not serving"
    UNREACHABLE = "unreachable"


async def grpc_health(address: str, *, deadline_s: float = 2.0, tls: TlsSection = PLAIN) -> Health:
    """The health of a gRPC server, all its services together.

    Args:
        address: host:port.
        deadline_s: How long to wait for an answer; seconds.
        tls: What to show and whom to believe.

    Raises:
        TlsProblem: The certificates can't be used, or there are none and the address is off this machine.
    """
    # A pool of its own per call: a shared one would keep an earlier refusal's reconnection backoff.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    async with opened(address, tls, options=options) as channel:
        try:
            answer = await _check(channel)(health_pb2.HealthCheckRequest(), timeout=deadline_s)
        except grpc.aio.AioRpcError:
            return Health.UNREACHABLE
    serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    return Health.SERVING if serving else Health.NOT_SERVING


async def http_health(base_url: str, *, deadline_s: float = 2.0, tls: TlsSection = PLAIN) -> Health:
    """The health of the HTTP edge.

    Args:
        base_url: "http://127.0.0.1:8080".
        deadline_s: How long to wait for an answer; seconds.
        tls: Whom to believe where it is https.
    """
    async with httpx.AsyncClient(timeout=deadline_s, trust_env=False, verify=trust(tls)) as client:
        try:
            answer = await client.get(f"{base_url}/health/webhook")
        except httpx.HTTPError:
            return Health.UNREACHABLE
    return Health.SERVING if answer.status_code == httpx.codes.OK else Health.NOT_SERVING


def _check(channel: grpc.aio.Channel) -> Any:
    # The published stub class has no types for a channel of grpc.aio.
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
