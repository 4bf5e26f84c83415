"""One credential's view of the system over gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc
from webhook.consumer.v1 import (
    archive_service_pb2_grpc,
    consumer_admin_service_pb2,
    consumer_admin_service_pb2_grpc,
)
from webhook.context.v1 import (
    context_admin_service_pb2_grpc,
    context_pb2,
    context_service_pb2,
    context_service_pb2_grpc,
)
from webhook.ingest.v1 import ingest_service_pb2_grpc
from webhook.intelligence.v1 import intelligence_service_pb2, intelligence_service_pb2_grpc
from webhook.security.v1 import security_admin_service_pb2_grpc
from webhook_shared.errors import ServiceError, from_rpc_error

from tests.patience import eventually

DEFAULT_TENANT = "default"


class Client:
    """Stubs of every service; beside them, the questions that tests ask most."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self.channels = channels
        self.ingest = ingest_service_pb2_grpc.IngestServiceStub(channels["gateway"])
        self.security_admin = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channels["security"])
        self.consumer_admin = consumer_admin_service_pb2_grpc.ConsumerAdminServiceStub(channels["consumer"])
        self.archive = archive_service_pb2_grpc.ArchiveServiceStub(channels["consumer"])
        self.intelligence = intelligence_service_pb2_grpc.IntelligenceServiceStub(channels["intelligence"])
        self.contexts = context_service_pb2_grpc.ContextServiceStub(channels["context"])
        self.context_admin = context_admin_service_pb2_grpc.ContextAdminServiceStub(channels["context"])

    async def context(
        self, context_id: str, *, tenant: str = DEFAULT_TENANT, max_events: int = 1000
    ) -> context_pb2.Context | None:
        """A context with everything in it, or None where there is none.

        Raises:
            ServiceError: Anything but CONTEXT_NOT_FOUND.
        """
        request = context_service_pb2.GetContextRequest(
            tenant=tenant,
            context_id=context_id,
            max_events=max_events,
            include_payloads=True,
            include_vector=True,
        )
        try:
            return (await self.contexts.GetContext(request)).context
        except grpc.aio.AioRpcError as error:
            failure = from_rpc_error(error)
            if failure.reason != "CONTEXT_NOT_FOUND":
                raise failure from None
            return None

    async def grown(
        self, context_id: str, events: int, *, tenant: str = DEFAULT_TENANT, within_s: float = 20.0
    ) -> context_pb2.Context:
        """A context, as soon as it has that many events."""

        async def attempt() -> context_pb2.Context:
            context = await self._reached(context_id, tenant)
            assert context.event_count >= events, f"{context_id}: {context.event_count} of {events} events"
            return context

        return await eventually(attempt, within_s=within_s)

    async def enriched(
        self, context_id: str, *, tenant: str = DEFAULT_TENANT, within_s: float = 20.0
    ) -> context_pb2.Context:
        """A context, as soon as its enrichment has seen all its events."""

        async def attempt() -> context_pb2.Context:
            context = await self._reached(context_id, tenant)
            covered = context.enrichment.covered_event_count
            assert covered == context.event_count, f"{context_id}: {covered} of {context.event_count} covered"
            return context

        return await eventually(attempt, within_s=within_s)

    async def _reached(self, context_id: str, tenant: str) -> context_pb2.Context:
        """A context that is there; to be asked again where it is not, or not to be reached."""
        try:
            context = await self.context(context_id, tenant=tenant)
        except ServiceError as error:
            raise AssertionError(f"{context_id}: {error}") from error
        assert context is not None, f"{context_id}: there is none"
        return context

    async def search(
        self, query: str, *, tenant: str = DEFAULT_TENANT
    ) -> Sequence[context_service_pb2.Match]:
        """What is found by meaning and by words, best first."""
        embedded = await self.intelligence.Embed(
            intelligence_service_pb2.EmbedRequest(texts=[query], tenant=tenant)
        )
        (result,) = embedded.results
        assert result.status.code == 0, result.status
        model = context_pb2.EmbeddingModel(
            provider=embedded.model.provider, name=embedded.model.name, dimension=embedded.model.dimension
        )
        request = context_service_pb2.SearchContextsRequest(
            tenant=tenant, query=query, query_vector=result.vector, query_model=model
        )
        return (await self.contexts.SearchContexts(request)).matches

    async def backlog(self) -> Mapping[str, consumer_admin_service_pb2.StageBacklog]:
        """Where events are, by stage."""
        response = await self.consumer_admin.GetBacklog(consumer_admin_service_pb2.GetBacklogRequest())
        return {stage.stage: stage for stage in response.stages}


def refusal(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a refused call."""
    failure: ServiceError = from_rpc_error(error)
    return failure.code, failure.reason
