"""`webhook.ingest.v1.IngestService`: the door of our own producers, with the same intake behind it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable

import grpc
from webhook.ingest.v1 import ingest_service_pb2, ingest_service_pb2_grpc
from webhook.status.v1 import status_pb2
from webhook_shared import telemetry
from webhook_shared.errors import (
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    item_status,
)
from webhook_shared.errors import Unavailable as UnavailableError
from webhook_shared.rpc.identity import Caller, caller

from webhook_gateway import metrics
from webhook_gateway.feed import Row
from webhook_gateway.intake import Intake
from webhook_gateway.limits import Room
from webhook_gateway.outcome import OUR_FAULT, Accepted, Duplicate, Outcome, Refused
from webhook_gateway.routes import ROUTE_NAME, Routes
from webhook_gateway.security_client import Arrival, Producer
from webhook_gateway.tail import Tail

MAX_EVENTS = 1000
MAX_TOTAL_BYTES = 16 * 2**20
MAX_TEXT_CHARACTERS = 200
RETRY_AFTER_S = 2.0
_TOOL = re.compile(ROUTE_NAME)


class IngestServicer(ingest_service_pb2_grpc.IngestServiceServicer):
    """Turns produced events into arrivals, and outcomes into results."""

    def __init__(self, intake: Intake, routes: Routes, tail: Tail, room: Room) -> None:
        self._intake = intake
        self._routes = routes
        self._tail = tail
        self._room = room

    async def IngestEvents(
        self,
        request: ingest_service_pb2.IngestEventsRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> ingest_service_pb2.IngestEventsResponse:
        """Store each event durably, or say of each why not.

        Raises:
            InvalidArgument: FIELD_INVALID: no event, too many, or too many bytes together.
            PermissionDenied: TENANT_NOT_ALLOWED.
            Unavailable: TOO_BUSY: No room for these payloads now.
        """
        if not 1 <= len(request.events) <= MAX_EVENTS:
            raise InvalidArgument("send 1 to 1,000 events", fields={"events": "1 to 1,000"})
        size_bytes = sum(len(event.payload) for event in request.events)
        if size_bytes > MAX_TOTAL_BYTES:
            raise InvalidArgument("the payloads are too large", fields={"events": "16 MiB together"})
        producer = caller()
        tenant = producer.tenant(request.tenant)
        if not self._room.take(size_bytes):
            metrics.shed.labels("bodies").inc()
            raise UnavailableError("TOO_BUSY", "there is no room for it now", retry_after_s=RETRY_AFTER_S)
        try:
            results = await asyncio.gather(
                *(self._ingest(producer, tenant, event) for event in request.events)
            )
        finally:
            self._room.give_back(size_bytes)
        return ingest_service_pb2.IngestEventsResponse(results=results)

    async def TailEvents(
        self,
        request: ingest_service_pb2.TailEventsRequest,
        context: grpc.aio.ServicerContext[object, object],
    ) -> AsyncIterator[ingest_service_pb2.TailEventsResponse]:
        """Follow what all gateways accept.

        Raises:
            InvalidArgument: FIELD_INVALID: The token is none of ours.
            PermissionDenied: TENANT_NOT_ALLOWED.
            ResourceExhausted: TOO_MANY_TAILS.
        """
        may_see = _seen_by(caller(), request.tenant, frozenset(request.tools))
        async with contextlib.aclosing(self._tail.follow(request.resume_token, may_see)) as pages:
            async for page in pages:
                yield ingest_service_pb2.TailEventsResponse(
                    events=[_event(row) for row in page.rows],
                    resume_token=page.token,
                    gap=page.gap,
                )

    async def _ingest(
        self, producer: Caller, tenant: str, event: ingest_service_pb2.ProducedEvent
    ) -> ingest_service_pb2.IngestResult:
        fields = _faults_of(event)
        if fields:
            return _failure(InvalidArgument("this event can't be taken", fields=fields))
        route = self._routes.find_tool(tenant, event.tool)
        tool = route.tool if route else metrics.UNKNOWN_TOOL
        metrics.events_received.labels(tool).inc()
        outcome = await self._intake.submit(_arrival(producer, tenant, event))
        return _result(outcome, tool)


def _seen_by(reader: Caller, tenant: str, tools: frozenset[str]) -> Callable[[Row], bool]:
    if tenant:
        reader.tenant(tenant)

    def may_see(row: Row) -> bool:
        _, owner, tool, *_ = row
        return (owner == tenant if tenant else reader.may(owner)) and (not tools or tool in tools)

    return may_see


def _event(row: Row) -> ingest_service_pb2.AcceptedEvent:
    event_id, tenant, tool, type_, received_ms, traceparent, quarantined = row
    event = ingest_service_pb2.AcceptedEvent(
        event_id=event_id,
        tenant=tenant,
        tool=tool,
        type=type_,
        traceparent=traceparent,
        quarantined=quarantined,
    )
    event.received_time.FromMilliseconds(received_ms)
    return event


def _faults_of(event: ingest_service_pb2.ProducedEvent) -> dict[str, str]:
    fields = {}
    if not _TOOL.fullmatch(event.tool):
        fields["tool"] = f"^{ROUTE_NAME}$"
    if not event.payload:
        fields["payload"] = "is needed"
    if len(event.type) > MAX_TEXT_CHARACTERS:
        fields["type"] = f"at most {MAX_TEXT_CHARACTERS} characters"
    if len(event.delivery_id) > MAX_TEXT_CHARACTERS:
        fields["delivery_id"] = f"at most {MAX_TEXT_CHARACTERS} characters"
    return fields


def _arrival(producer: Caller, tenant: str, event: ingest_service_pb2.ProducedEvent) -> Arrival:
    return Arrival(
        tenant=tenant,
        tool=event.tool,
        method="POST",
        query=b"",
        headers=((b"content-type", b"application/json"),),
        body=event.payload,
        peer="",
        received_ns=time.time_ns(),
        arrived_s=time.perf_counter(),
        traceparent=telemetry.traceparent(),
        producer=Producer(producer.key_id, event.type, event.delivery_id),
    )


def _result(outcome: Outcome, tool: str) -> ingest_service_pb2.IngestResult:
    if isinstance(outcome, Accepted):
        return ingest_service_pb2.IngestResult(event_id=outcome.event_id)
    if isinstance(outcome, Duplicate):
        metrics.duplicates_detected.labels(tool).inc()
        return ingest_service_pb2.IngestResult(event_id=outcome.first_event_id, duplicate=True)
    error = _error(outcome)
    if error.code is grpc.StatusCode.UNAVAILABLE:
        metrics.events_failed.labels(tool).inc()
    return _failure(error)


def _error(outcome: Outcome) -> ServiceError:
    if isinstance(outcome, Refused):
        if outcome.cause == "BODY_TOO_LARGE":
            return ResourceExhausted("PAYLOAD_TOO_LARGE", "the payload is over the limit of this tool")
        if outcome.cause == "RATE":
            return ResourceExhausted(
                "RATE_LIMITED", "too many events of this tool", retry_after_s=outcome.retry_after_s
            )
        if outcome.cause == "PAYLOAD_INVALID":
            return InvalidArgument("the payload is not JSON in UTF-8", reason="PAYLOAD_INVALID")
        if outcome.cause == "UNKNOWN_SOURCE":
            return InvalidArgument("there is no such tool", fields={"tool": "is not a source of this tenant"})
        if outcome.cause not in OUR_FAULT:
            return InvalidArgument("this event was refused", fields={"payload": outcome.cause.lower()})
    retry_after_s = getattr(outcome, "retry_after_s", 0) or RETRY_AFTER_S
    return UnavailableError(
        "STREAM_UNREACHABLE", "the event could not be kept; send it again", retry_after_s=retry_after_s
    )


def _failure(error: ServiceError) -> ingest_service_pb2.IngestResult:
    result = ingest_service_pb2.IngestResult(status=status_pb2.ItemStatus(**item_status(error)))
    if error.retry_after_s is not None:
        result.retry_after.FromNanoseconds(int(error.retry_after_s * 1_000_000_000))
    return result
