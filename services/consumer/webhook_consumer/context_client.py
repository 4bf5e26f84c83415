"""Calls to the context store. The only file that knows its contract."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

import grpc
from google.protobuf import field_mask_pb2, timestamp_pb2
from webhook.context.v1 import context_pb2, context_service_pb2
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.errors import ServiceError, from_item_status, from_rpc_error

from webhook_consumer import append
from webhook_consumer.insight import Happening, Insight, Known

MOST_APPENDS = 1000
MOST_CONTEXTS = 256
# A quarter of what a message may be: what the other side makes of it must fit as well.
MOST_BYTES = 16 * 2**20
CONTEXT_DELETED, EVENT_ERASED = "CONTEXT_DELETED", "EVENT_ERASED"
BYTE_QUOTA_EXCEEDED, CONTEXT_QUOTA_EXCEEDED = "BYTE_QUOTA_EXCEEDED", "CONTEXT_QUOTA_EXCEEDED"
ETAG_MISMATCH = "ETAG_MISMATCH"


@dataclass(frozen=True, slots=True)
class Addition:
    """One append, the event and trace that it comes from, and the replay that brings it again, if any."""

    event: WebhookEvent
    append: append.Append
    traceparent: str
    replay_id: str = ""


class Prospect(IntEnum):
    """What would become of an append; numbers as in the contract."""

    APPENDED = 1
    CREATED = 2
    DUPLICATE = 3
    REVIVED = 4
    DIFFERENT = 5


class ContextClient:
    """The context store, as this service uses it. Every method raises ServiceError where a call fails."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = ContextServiceStub(channel)

    async def append(self, additions: Sequence[Addition]) -> list[ServiceError | None]:
        """Make these durable. One result per addition, in order; None where all is well."""
        results: list[ServiceError | None] = []
        for request in _requests(additions):
            try:
                response = await self._stub.AppendEvents(request)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from None
            results += [_error(result) for result in response.results]
        return results

    async def foresee(self, additions: Sequence[Addition]) -> list[Prospect | ServiceError]:
        """What would become of these; nothing is written. One result per addition, in order."""
        results: list[Prospect | ServiceError] = []
        for request in _requests(additions, dry_run=True):
            try:
                response = await self._stub.AppendEvents(request)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from None
            results += [_error(result) or Prospect(result.outcome) for result in response.results]
        return results

    async def known(
        self, tenant: str, context_ids: Sequence[str], most_events: int
    ) -> list[Known | ServiceError]:
        """What is known of contexts of one tenant, with their newest events. One result per id, in order."""
        results: list[Known | ServiceError] = []
        for at in range(0, len(context_ids), MOST_CONTEXTS):
            request = context_service_pb2.BatchGetContextsRequest(
                context_ids=context_ids[at : at + MOST_CONTEXTS], tenant=tenant, max_events=most_events
            )
            try:
                response = await self._stub.BatchGetContexts(request)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error) from None
            results += [_error(result) or _known(result.context) for result in response.results]
        return results

    async def enrich(self, known: Known, insight: Insight, *, even_if_changed: bool) -> None:
        """Write down what was understood.

        Args:
            known: What was read.
            insight: What it was understood to mean.
            even_if_changed: Also where the context has changed since; it then still counts as changed.
        """
        context = context_pb2.Context(
            context_id=known.context_id, tenant=known.tenant, enrichment=_enrichment(known, insight)
        )
        request = context_service_pb2.UpdateContextRequest(
            context=context,
            update_mask=field_mask_pb2.FieldMask(paths=["enrichment"]),
            etag="" if even_if_changed else known.etag,
            request_id=str(uuid.uuid4()),
        )
        try:
            await self._stub.UpdateContext(request)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None


def _requests(
    additions: Sequence[Addition], *, dry_run: bool = False
) -> Iterator[context_service_pb2.AppendEventsRequest]:
    request, size = context_service_pb2.AppendEventsRequest(dry_run=dry_run), 0
    for addition in additions:
        added = _add(request, addition).ByteSize()
        if len(request.appends) > MOST_APPENDS or (len(request.appends) > 1 and size + added > MOST_BYTES):
            del request.appends[-1]
            yield request
            request, size = context_service_pb2.AppendEventsRequest(dry_run=dry_run), 0
            _add(request, addition)
        size += added
    if request.appends:
        yield request


def _add(request: context_service_pb2.AppendEventsRequest, addition: Addition) -> context_service_pb2.Append:
    event, said = addition.event, addition.append
    # Filled where it is sent from, from plain values: a message that is put into another is copied, its
    # payload too.
    message = request.appends.add(
        tenant=event.tenant,
        context_id=said.context_id,
        tool=event.tool,
        kind=said.kind,
        event={
            "event_id": event.id,
            "type": said.type,
            "action": said.action,
            "actor": said.actor,
            "text": said.text,
            "url": said.url,
            "received_time": event.received_time,
            "payload": event.payload,
            "content_type": event.content_type,
        },
        title=said.title,
        url=said.context_url,
        state=said.state,
        labels=said.labels,
        links=[{"relation": link.relation, "context_id": link.context_id} for link in said.links],
        traceparent=addition.traceparent,
        replay_id=addition.replay_id,
    )
    if said.occurred is not None:
        message.event.occurred_time.FromDatetime(said.occurred)
    return message


def _error(
    result: context_service_pb2.AppendResult | context_service_pb2.BatchGetResult,
) -> ServiceError | None:
    return from_item_status(result.status.code, result.status.reason, result.status.message)


def _known(context: context_pb2.Context) -> Known:
    enrichment = context.enrichment
    return Known(
        tenant=context.tenant,
        context_id=context.context_id,
        kind=context.kind,
        title=context.title,
        summary=enrichment.summary,
        event_count=context.event_count,
        covered_event_count=enrichment.covered_event_count,
        covered_event_id=enrichment.covered_event_id,
        happenings=tuple(
            Happening(
                event_id=event.event_id,
                action=event.action or event.type,
                actor=event.actor,
                text=event.text,
                occurred_ns=event.occurred_time.ToNanoseconds() if event.HasField("occurred_time") else None,
            )
            for event in context.events
        ),
        etag=context.etag,
        links=tuple(link.context_id for link in context.links),
    )


def _enrichment(known: Known, insight: Insight) -> context_pb2.Enrichment:
    now = timestamp_pb2.Timestamp()
    now.GetCurrentTime()
    return context_pb2.Enrichment(
        summary=insight.summary,
        summary_model=insight.summary_model,
        importance=insight.importance,
        importance_factors=[
            context_pb2.ImportanceFactor(name=name, contribution=value) for name, value in insight.factors
        ],
        entities=[context_pb2.Entity(kind=kind, value=value) for kind, value in insight.entities],
        vector=insight.vector,
        embedding_model=context_pb2.EmbeddingModel(
            provider=insight.model.provider, name=insight.model.name, dimension=insight.model.dimension
        ),
        covered_event_count=known.event_count,
        covered_event_id=known.covered_by(insight.deferred_count),
        update_time=now,
    )
