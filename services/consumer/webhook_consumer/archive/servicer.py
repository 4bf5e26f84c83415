"""ArchiveService: messages on the one side, the archive and its replays on the other."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from webhook.consumer.v1 import archive_service_pb2 as messages
from webhook.consumer.v1.archive_service_pb2_grpc import (
    ArchiveServiceServicer,
    add_ArchiveServiceServicer_to_server,
)
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook.status.v1.status_pb2 import ItemStatus
from webhook_shared.errors import InvalidArgument, NotFound, ServiceError, Unavailable, item_status
from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.redis import REDIS_TROUBLE
from webhook_shared.rpc.identity import Role, caller
from webhook_shared.rpc.server import Service
from webhook_shared.telemetry import log

from webhook_consumer.archive.events import Archived
from webhook_consumer.archive.replay import MOST_PER_SECOND, Order, Progress, Replays
from webhook_consumer.archive.replay_rehearsal import Effect, Rehearsal, entry_of
from webhook_consumer.archive.search import FOREVER_MS, Catalogue, Found, Wanted
from webhook_consumer.archive.segments import Unreadable
from webhook_consumer.entry import Outage
from webhook_consumer.opener import Opener

NAME = "webhook.consumer.v1.ArchiveService"
USUAL_EVENTS, MOST_EVENTS = 50, 500
USUAL_PER_SECOND = 500
LONGEST_NAME = 256

Context = grpc.aio.ServicerContext[Any, Any]


class ArchiveServicer(ArchiveServiceServicer):
    """Serves operators; each sees the events of its own tenants."""

    def __init__(self, catalogue: Catalogue, replays: Replays, rehearsal: Rehearsal, opener: Opener) -> None:
        self._catalogue = catalogue
        self._replays = replays
        self._rehearsal = rehearsal
        self._opener = opener

    def service(self) -> Service:
        """To be served, for operators."""
        return Service(NAME, lambda server: add_ArchiveServiceServicer_to_server(self, server), Role.OPERATOR)

    async def ListArchivedEvents(
        self, request: messages.ListArchivedEventsRequest, context: Context
    ) -> messages.ListArchivedEventsResponse:
        """A page, newest first."""
        if request.page_size < 0:
            raise InvalidArgument("the page size is of no use", fields={"page_size": "is negative"})
        size = min(request.page_size or USUAL_EVENTS, MOST_EVENTS)
        wanted = _wanted(request.filter)
        with _reachable():
            try:
                page = await self._catalogue.page(wanted, size, request.page_token)
            except ValueError as error:
                raise InvalidArgument(
                    "the page token is of no use", fields={"page_token": str(error)}
                ) from None
        return messages.ListArchivedEventsResponse(
            events=[_event(found) for found in page.events], next_page_token=page.token
        )

    async def GetArchivedEvent(
        self, request: messages.GetArchivedEventRequest, context: Context
    ) -> messages.GetArchivedEventResponse:
        """One event, opened where that is asked for."""
        if not request.event_id:
            raise InvalidArgument("event_id is needed", fields={"event_id": "is needed"})
        with _reachable():
            found = await self._catalogue.find(request.event_id, caller().may)
            sealed = await self._catalogue.sealed(found) if found and request.include_payload else b""
        if found is None or sealed is None:
            raise NotFound(
                "ARCHIVED_EVENT_NOT_FOUND", "the archive has no such event", event_id=request.event_id
            )
        answer = messages.GetArchivedEventResponse(event=_event(found))
        if sealed:
            opened = await self._opened(Archived(*found.row[:7], sealed))
            answer.payload, answer.content_type = opened.payload, opened.content_type
        return answer

    async def _opened(self, event: Archived) -> WebhookEvent:
        try:
            [opened] = await self._opener.open([entry_of(event)])
        except Outage as error:
            raise Unavailable("STORE_UNREACHABLE", str(error)) from error
        if isinstance(opened, WebhookEvent):
            return opened
        raise ServiceError(grpc.StatusCode.DATA_LOSS, "ARCHIVED_EVENT_UNREADABLE", opened.detail)

    async def ReplayEvents(
        self, request: messages.ReplayEventsRequest, context: Context
    ) -> AsyncIterator[messages.ReplayEventsResponse]:
        """Told as it goes; whoever hangs up ends it."""
        order = _order(request)
        told = messages.ReplayEventsResponse(replay_id=order.replay_id)
        # At once: who is cut off must know by which name to go on.
        yield told
        with _reachable():
            async for told in self._rehearsed(order) if request.dry_run else self._replayed(order):
                yield told
        del told.effects[:]
        told.done = True
        yield told

    async def _replayed(self, order: Order) -> AsyncIterator[messages.ReplayEventsResponse]:
        async for progress in self._replays.run(order):
            yield _told(order, progress)

    async def _rehearsed(self, order: Order) -> AsyncIterator[messages.ReplayEventsResponse]:
        count = 0
        async for events in self._replays.look(order):
            effects = await self._rehearsal.foresee(order.replay_id, events)
            count += len(events)
            told = _told(order, Progress(found=count, queued=count))
            told.effects.extend(map(_effect, effects))
            yield told


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except ObjectTrouble as error:
        log.warning("archive.unreachable", what=str(error))
        raise Unavailable("ARCHIVE_UNREACHABLE", "the archive can't be reached; try again") from None
    except Unreadable as error:
        log.error("archive.unreadable", segment=str(error))
        raise ServiceError(
            grpc.StatusCode.DATA_LOSS, "ARCHIVE_UNREADABLE", "a segment of the archive is damaged"
        ) from None
    except Outage as error:
        raise Unavailable("STORE_UNREACHABLE", str(error)) from None
    except REDIS_TROUBLE as error:
        log.warning("archive.redis_unreachable", error=type(error).__name__)
        raise Unavailable("STORE_UNREACHABLE", "Redis can't be reached; try again") from None


def _order(request: messages.ReplayEventsRequest) -> Order:
    wrong: dict[str, str] = {}
    if request.max_events < 0:
        wrong["max_events"] = "is negative"
    if not 0 <= request.max_events_per_second <= MOST_PER_SECOND:
        wrong["max_events_per_second"] = f"must be 0 to {MOST_PER_SECOND}"
    replay_id = request.replay_id or str(uuid.uuid4())
    if not _is_uuid(replay_id):
        wrong["replay_id"] = "must be a UUID"
    if request.filter == messages.ArchiveFilter() and not request.everything:
        wrong["filter"] = "is empty: say which events, or everything"
    if wrong:
        raise InvalidArgument("the replay can't be carried out", fields=wrong)
    return Order(
        replay_id,
        _wanted(request.filter),
        per_second=request.max_events_per_second or USUAL_PER_SECOND,
        most=request.max_events or None,
    )


def _wanted(asked: messages.ArchiveFilter) -> Wanted:
    names = {name: getattr(asked, name) for name in ("event_id", "tool", "type", "tenant")}
    wrong = {name: "is too long" for name, value in names.items() if len(value) > LONGEST_NAME}
    from_ms = _milliseconds(asked.received_from) if asked.HasField("received_from") else 0
    until_ms = _milliseconds(asked.received_until) if asked.HasField("received_until") else FOREVER_MS
    if from_ms >= until_ms:
        wrong["received_until"] = "must be later than received_from"
    if wrong:
        raise InvalidArgument("the filter is of no use", fields={f"filter.{k}": v for k, v in wrong.items()})
    if asked.tenant:
        caller().tenant(asked.tenant)
    return Wanted(**names, from_ms=from_ms, until_ms=until_ms, may_see=caller().may)


def _milliseconds(time: Timestamp) -> int:
    return min(max(time.seconds * 1000 + time.nanos // 1_000_000, 0), FOREVER_MS)


def _event(found: Found) -> messages.ArchivedEvent:
    row = found.row
    event = messages.ArchivedEvent(
        event_id=row.event_id,
        tenant=row.tenant,
        tool=row.tool,
        type=row.type,
        size_bytes=row.length,
        traceparent=row.traceparent,
        segment=found.segment.stem if found.segment else "",
    )
    event.received_time.FromMilliseconds(row.received_ms)
    return event


def _told(order: Order, progress: Progress) -> messages.ReplayEventsResponse:
    return messages.ReplayEventsResponse(
        replay_id=order.replay_id,
        found_count=progress.found,
        queued_count=progress.queued,
        skipped_count=progress.skipped,
    )


def _effect(effect: Effect) -> messages.ReplayEffect:
    return messages.ReplayEffect(
        event_id=effect.event.event_id,
        tenant=effect.event.tenant,
        context_id=effect.context_id,
        change=messages.ReplayChange.ValueType(effect.change),
        status=ItemStatus(**item_status(effect.error)),
    )


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
