"""The other services on one real socket, as far as an erasure asks them: they remember what was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from webhook.consumer.v1 import forgetting_service_pb2, forgetting_service_pb2_grpc
from webhook.erasure.v1.erasure_pb2 import Place
from webhook.ingest.v1 import ingest_admin_service_pb2, ingest_admin_service_pb2_grpc
from webhook.intelligence.v1 import intelligence_service_pb2, intelligence_service_pb2_grpc
from webhook.security.v1 import security_admin_service_pb2, security_admin_service_pb2_grpc
from webhook_shared.settings import ServicesSection


@dataclass
class Neighbours:
    """What was asked, by service, and what the consumer answers."""

    asked: dict[str, list[Any]] = field(default_factory=dict)
    places: list[Place] = field(
        default_factory=lambda: [Place(name="archive", found_count=2, erased_count=2)]
    )
    address: str = ""

    def hear(self, service: str, request: Any) -> None:
        self.asked.setdefault(service, []).append(request)

    @property
    def services(self) -> ServicesSection:
        """All of them at this address."""
        return ServicesSection(
            gateway=self.address,
            security=self.address,
            consumer=self.address,
            intelligence=self.address,
        )


class _Consumer(forgetting_service_pb2_grpc.ForgettingServiceServicer):
    def __init__(self, heard: Neighbours) -> None:
        self._heard = heard

    async def Forget(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._heard.hear("consumer", request)
        yield forgetting_service_pb2.ForgetResponse(places=self._heard.places)
        yield forgetting_service_pb2.ForgetResponse(done=True)


class _Gateway(ingest_admin_service_pb2_grpc.IngestAdminServiceServicer):
    def __init__(self, heard: Neighbours) -> None:
        self._heard = heard

    async def Forget(self, request: Any, context: Any) -> Any:
        self._heard.hear("gateway", request)
        return ingest_admin_service_pb2.ForgetResponse(places=[Place(name="spool")])


class _Intelligence(intelligence_service_pb2_grpc.IntelligenceServiceServicer):
    def __init__(self, heard: Neighbours) -> None:
        self._heard = heard

    async def Forget(self, request: Any, context: Any) -> Any:
        self._heard.hear("intelligence", request)
        return intelligence_service_pb2.ForgetResponse(places=[Place(name="vectors")])


class _Security(security_admin_service_pb2_grpc.SecurityAdminServiceServicer):
    def __init__(self, heard: Neighbours) -> None:
        self._heard = heard

    async def Forget(self, request: Any, context: Any) -> Any:
        self._heard.hear("security", request)
        return security_admin_service_pb2.ForgetResponse(places=[Place(name="rejections")])


@asynccontextmanager
async def neighbours() -> AsyncIterator[Neighbours]:
    """All of them, serving while inside."""
    heard, server = Neighbours(), grpc.aio.server()
    forgetting_service_pb2_grpc.add_ForgettingServiceServicer_to_server(_Consumer(heard), server)
    ingest_admin_service_pb2_grpc.add_IngestAdminServiceServicer_to_server(_Gateway(heard), server)
    intelligence_service_pb2_grpc.add_IntelligenceServiceServicer_to_server(_Intelligence(heard), server)
    security_admin_service_pb2_grpc.add_SecurityAdminServiceServicer_to_server(_Security(heard), server)
    heard.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield heard
    finally:
        await server.stop(None)
