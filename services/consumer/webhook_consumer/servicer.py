"""ConsumerAdminService: messages on the one side, the queue on the other."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from webhook.consumer.v1 import consumer_admin_service_pb2 as messages
from webhook.consumer.v1.consumer_admin_service_pb2_grpc import (
    ConsumerAdminServiceServicer,
    add_ConsumerAdminServiceServicer_to_server,
)
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.errors import InvalidArgument, NotFound
from webhook_shared.identity import Role, caller
from webhook_shared.server import Service

from webhook_consumer.backlog import Backlog
from webhook_consumer.dead_letters import DeadLetter, DeadLetters
from webhook_consumer.entry import Outage
from webhook_consumer.opener import Opener
from webhook_consumer.queue_redis import Counts, Lane

NAME = "webhook.consumer.v1.ConsumerAdminService"
USUAL_CONSUMERS, MOST_CONSUMERS = 100, 1000
USUAL_LETTERS, MOST_LETTERS = 50, 500

Context = grpc.aio.ServicerContext[Any, Any]


class ConsumerAdmin(ConsumerAdminServiceServicer):
    """Administration of the queue."""

    def __init__(self, backlog: Backlog, dead_letters: DeadLetters, opener: Opener) -> None:
        self._backlog = backlog
        self._dead_letters = dead_letters
        self._opener = opener

    def service(self) -> Service:
        """To be served, for operators."""
        return Service(
            NAME, lambda server: add_ConsumerAdminServiceServicer_to_server(self, server), Role.OPERATOR
        )

    async def GetBacklog(
        self, request: messages.GetBacklogRequest, context: Context
    ) -> messages.GetBacklogResponse:
        """Exact counts of where events are, per stage."""
        stages = [_stage(queue.lane, await queue.counts()) for queue in self._backlog.queues]
        return messages.GetBacklogResponse(stages=stages)

    async def ListConsumers(
        self, request: messages.ListConsumersRequest, context: Context
    ) -> messages.ListConsumersResponse:
        """The workers of each group and what they hold, by stage and name."""
        size = _size(request.page_size, USUAL_CONSUMERS, MOST_CONSUMERS)
        consumers = [
            messages.Consumer(
                stage=queue.lane.stage, name=name, in_flight_count=pending, idle=_duration(idle_ms)
            )
            for queue in self._backlog.queues
            for name, pending, idle_ms in await queue.consumers()
        ]
        consumers.sort(key=_token)
        # A name as the token, not a number: consumers come and go between two pages.
        further = [consumer for consumer in consumers if _token(consumer) > request.page_token]
        page = further[:size]
        return messages.ListConsumersResponse(
            consumers=page, next_page_token=_token(page[-1]) if len(further) > size else ""
        )

    async def ListDeadLetters(
        self, request: messages.ListDeadLettersRequest, context: Context
    ) -> messages.ListDeadLettersResponse:
        """Events that were given up, newest first. A page may be short with more to come."""
        size = _size(request.page_size, USUAL_LETTERS, MOST_LETTERS)
        try:
            page = await self._dead_letters.page(
                size, request.page_token, tool=request.tool, tenant=request.tenant
            )
        except ValueError as error:
            raise InvalidArgument("the page token is of no use", fields={"page_token": str(error)}) from None
        return messages.ListDeadLettersResponse(
            dead_letters=[self._letter(letter) for letter in page.letters], next_page_token=page.token
        )

    async def GetDeadLetter(
        self, request: messages.GetDeadLetterRequest, context: Context
    ) -> messages.GetDeadLetterResponse:
        """One of them. Errors: NOT_FOUND/DEAD_LETTER_NOT_FOUND."""
        letter = await self._dead_letters.find(request.dead_letter_id)
        if letter is None:
            raise NotFound(
                "DEAD_LETTER_NOT_FOUND", "there is no such dead letter", dead_letter_id=request.dead_letter_id
            )
        payload = b""
        if request.include_payload and caller().may(letter.entry.text(b"tenant")):
            payload = await self._payload(letter)
        return messages.GetDeadLetterResponse(dead_letter=self._letter(letter), payload=payload)

    async def _payload(self, letter: DeadLetter) -> bytes:
        try:
            [opened] = await self._opener.open([letter.entry])
        except Outage:
            return b""
        return opened.payload if isinstance(opened, WebhookEvent) else b""

    def _letter(self, letter: DeadLetter) -> messages.DeadLetter:
        entry = letter.entry
        return messages.DeadLetter(
            dead_letter_id=self._dead_letters.name(letter),
            event_id=entry.text(b"id"),
            tenant=entry.text(b"tenant"),
            tool=entry.tool,
            type=entry.text(b"type"),
            stage=letter.lane.stage,
            received_time=_timestamp(entry.fields.get(b"received", b"")),
            dead_time=_timestamp(entry.id.partition(b"-")[0]),
            attempts=entry.failures,
            cause=entry.text(b"cause"),
            detail=entry.text(b"detail"),
            traceparent=entry.text(b"traceparent"),
        )


def _stage(lane: Lane, counts: Counts) -> messages.StageBacklog:
    return messages.StageBacklog(
        stage=lane.stage,
        stream=lane.stream,
        group=lane.group,
        waiting_count=counts.waiting,
        in_flight_count=counts.in_flight,
        delayed_count=counts.delayed,
        dead_count=counts.dead,
        oldest_age=_duration(counts.oldest_ms) if counts.oldest_ms is not None else None,
    )


def _size(asked: int, usual: int, most: int) -> int:
    if asked < 0:
        raise InvalidArgument("the page size is of no use", fields={"page_size": "is negative"})
    return min(asked or usual, most)


def _token(consumer: messages.Consumer) -> str:
    return f"{consumer.stage}/{consumer.name}"


def _duration(milliseconds: int) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(milliseconds)
    return duration


def _timestamp(milliseconds: bytes) -> Timestamp | None:
    # More digits than that are no time of ours, and more than a Timestamp holds.
    if not milliseconds.isdigit() or len(milliseconds) > 14:
        return None
    timestamp = Timestamp()
    timestamp.FromMilliseconds(int(milliseconds))
    return timestamp
