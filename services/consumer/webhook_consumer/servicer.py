"""ConsumerAdminService: messages on the one side, the queue on the other."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from webhook.consumer.v1 import consumer_admin_service_pb2 as messages
from webhook.consumer.v1.consumer_admin_service_pb2_grpc import (
    ConsumerAdminServiceServicer,
    add_ConsumerAdminServiceServicer_to_server,
)
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.errors import InvalidArgument, NotFound
from webhook_shared.rpc.identity import Role, caller
from webhook_shared.rpc.server import Service

from webhook_consumer.admin import answers
from webhook_consumer.admin.backlog import Backlog
from webhook_consumer.admin.tools import Tools
from webhook_consumer.dead_letters.letters import DeadLetter, DeadLetters, Letter, LetterFilter
from webhook_consumer.dead_letters.redrive import Manner, Phase, Progress, Redrive, Result
from webhook_consumer.entry import Outage
from webhook_consumer.failures.breaker import ALL_TOOLS, State
from webhook_consumer.opener import Opener

NAME = "webhook.consumer.v1.ConsumerAdminService"
USUAL_CONSUMERS, MOST_CONSUMERS = 100, 1000
USUAL_LETTERS, MOST_LETTERS = 50, 500
USUAL_REDRIVEN_PER_S, MOST_REDRIVEN_PER_S = 100, 10_000
USUAL_CANARY_TIMEOUT_S = 60.0
MOST_NAMED = 1000
MOST_SAMPLES = 20
LONGEST_NOTE_CHARS = 200
LONGEST_TOOL_CHARS = 100
DRAIN_PERIOD_S = 0.25
# Three renewals fit into what workers take for abandoned; a living one is not silent for longer than one.
RENEWALS_PER_IDLE_TIME = 3

Context = grpc.aio.ServicerContext[Any, Any]


class ConsumerAdmin(ConsumerAdminServiceServicer):
    """Administration of the queue."""

    def __init__(
        self,
        backlog: Backlog,
        dead_letters: DeadLetters,
        opener: Opener,
        *,
        tools: Tools,
        redrive: Redrive,
        claim_idle_ms: int,
    ) -> None:
        self._backlog = backlog
        self._dead_letters = dead_letters
        self._opener = opener
        self._tools = tools
        self._redrive = redrive
        self._claim_idle_ms = claim_idle_ms

    def service(self) -> Service:
        """To be served, for operators."""
        return Service(
            NAME, lambda server: add_ConsumerAdminServiceServicer_to_server(self, server), Role.OPERATOR
        )

    async def GetBacklog(
        self, request: messages.GetBacklogRequest, context: Context
    ) -> messages.GetBacklogResponse:
        """Where events are, per stage: exact counts of what is on Redis, SQS's own of what is there."""
        estimates = [answers.estimate(lane, counts) for lane, counts in await self._backlog.estimates()]
        return messages.GetBacklogResponse(
            stages=[*await self._stages(), *estimates], draining=await self._tools.is_draining()
        )

    async def _stages(self) -> list[messages.StageBacklog]:
        return [answers.stage(lane, counts) for lane, counts in await self._backlog.stages()]

    async def ListConsumers(
        self, request: messages.ListConsumersRequest, context: Context
    ) -> messages.ListConsumersResponse:
        """The workers of each group and what they hold, by stage and name."""
        size = _size(request.page_size, USUAL_CONSUMERS, MOST_CONSUMERS)
        consumers = [
            messages.Consumer(
                stage=queue.lane.stage,
                name=f"{queue.lane.partition}:{name}" if queue.lane.partition else name,
                in_flight_count=pending,
                idle=answers.duration(idle_ms),
            )
            for queue in tuple(self._backlog.queues)
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
            which = LetterFilter(
                tool=request.tool,
                tenant=request.tenant,
                cause=request.cause,
                fingerprint=request.fingerprint,
            )
            page = await self._dead_letters.page(size, request.page_token, which)
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
            raise _no_such_letter(request.dead_letter_id)
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
        return answers.letter(self._dead_letters.name(letter), letter)

    async def CountDeadLetters(
        self, request: messages.CountDeadLettersRequest, context: Context
    ) -> messages.CountDeadLettersResponse:
        """How many were given up for which reason, the most frequent first."""
        counts, truncated = await self._dead_letters.counts(answers.letter_filter(request.filter))
        return messages.CountDeadLettersResponse(
            counts=[answers.letter_count(count) for count in counts], truncated=truncated
        )

    async def RedriveDeadLetters(
        self, request: messages.RedriveDeadLettersRequest, context: Context
    ) -> AsyncIterator[messages.RedriveDeadLettersResponse]:
        """Put dead letters back, the first ones ahead.

        Errors: INVALID_ARGUMENT/FIELD_INVALID, NOT_FOUND/DEAD_LETTER_NOT_FOUND.
        """
        letters = await self._chosen(request)
        most = request.max_count or None
        if request.dry_run:
            yield await self._dry_run(letters, most)
            return
        manner = Manner(
            canary=not request.skip_canary,
            canary_timeout_s=request.canary_timeout.ToNanoseconds() / 1e9 or USUAL_CANARY_TIMEOUT_S,
            per_second=_size(
                request.max_per_second, USUAL_REDRIVEN_PER_S, MOST_REDRIVEN_PER_S, field="max_per_second"
            ),
            most=most,
        )
        async for progress in self._redrive.run(letters, manner):
            yield answers.progress(progress, [])

    async def _chosen(self, request: messages.RedriveDeadLettersRequest) -> AsyncIterator[Letter]:
        which = answers.letter_filter(request.filter)
        if request.max_count < 0:
            raise InvalidArgument("that count is of no use", fields={"max_count": "is negative"})
        if request.dead_letter_ids:
            if not which.is_empty or request.all or len(request.dead_letter_ids) > MOST_NAMED:
                problem = f"name at most {MOST_NAMED}, or give a filter"
                raise InvalidArgument(
                    "ids, a filter or all: one of them", fields={"dead_letter_ids": problem}
                )
            return await self._named(request.dead_letter_ids)
        if which.is_empty != request.all:
            raise InvalidArgument(
                "ids, a filter or all: one of them", fields={"all": "to redrive everything, and only then"}
            )
        return self._dead_letters.matching(which)

    async def _named(self, names: Iterable[str]) -> AsyncIterator[Letter]:
        letters: list[Letter] = []
        for name in names:
            letter = self._dead_letters.locate(name)
            if letter is None or await self._dead_letters.read(letter) is None:
                raise _no_such_letter(name)
            letters.append(letter)

        async def each() -> AsyncIterator[Letter]:
            for letter in letters:
                yield letter

        return each()

    async def _dry_run(
        self, letters: AsyncIterator[Letter], most: int | None
    ) -> messages.RedriveDeadLettersResponse:
        count = 0
        samples: list[messages.DeadLetter] = []
        async for letter in letters:
            if most is not None and count >= most:
                break
            count += 1
            if len(samples) < MOST_SAMPLES and (found := await self._dead_letters.read(letter)):
                samples.append(self._letter(found))
        return answers.progress(Progress(Phase.REST, count, result=Result.DRY_RUN), samples)

    async def ListTools(
        self, request: messages.ListToolsRequest, context: Context
    ) -> messages.ListToolsResponse:
        """Where events are per tool."""
        pauses = await self._tools.pauses()
        states = {(breaker.stage, breaker.tool): breaker.state for breaker in await self._tools.breakers()}
        return messages.ListToolsResponse(
            tools=[
                answers.tool(
                    found, pauses.get(found.tool), states.get((found.stage, found.tool), State.CLOSED)
                )
                for found in await self._tools.backlog()
            ]
        )

    async def PauseTool(
        self, request: messages.PauseToolRequest, context: Context
    ) -> messages.PauseToolResponse:
        """From here on no event of the tool is worked on."""
        if len(request.note) > LONGEST_NOTE_CHARS:
            raise InvalidArgument(
                "the note is too long", fields={"note": f"has more than {LONGEST_NOTE_CHARS} characters"}
            )
        return messages.PauseToolResponse(
            pause=answers.pause(await self._tools.pause(_tool(request.tool), request.note))
        )

    async def ResumeTool(
        self, request: messages.ResumeToolRequest, context: Context
    ) -> messages.ResumeToolResponse:
        """End a tool's pause. Errors: NOT_FOUND/TOOL_NOT_PAUSED."""
        if not await self._tools.resume(_tool(request.tool)):
            raise NotFound("TOOL_NOT_PAUSED", "that tool is not paused", tool=request.tool)
        return messages.ResumeToolResponse()

    async def ListCircuitBreakers(
        self, request: messages.ListCircuitBreakersRequest, context: Context
    ) -> messages.ListCircuitBreakersResponse:
        """The breakers of the tools whose events fail, and of those that did a moment ago."""
        found = await self._tools.breakers()
        return messages.ListCircuitBreakersResponse(breakers=[answers.breaker(one) for one in found])

    async def ResetCircuitBreaker(
        self, request: messages.ResetCircuitBreakerRequest, context: Context
    ) -> messages.ResetCircuitBreakerResponse:
        """Close a tool's breakers. Errors: NOT_FOUND/CIRCUIT_BREAKER_NOT_FOUND."""
        found = await self._tools.reset(_tool(request.tool))
        if not found:
            raise NotFound(
                "CIRCUIT_BREAKER_NOT_FOUND", "no event of that tool has failed lately", tool=request.tool
            )
        return messages.ResetCircuitBreakerResponse(breakers=[answers.breaker(one) for one in found])

    async def ClaimPending(
        self, request: messages.ClaimPendingRequest, context: Context
    ) -> messages.ClaimPendingResponse:
        """Declare abandoned what has been silent for so long; the workers take it over at once."""
        idle_ms = request.idle_time.ToMilliseconds()
        least_ms = self._claim_idle_ms // RENEWALS_PER_IDLE_TIME
        if idle_ms < least_ms:
            problem = f"living workers may be silent for {least_ms / 1000:g} s: ask for more"
            raise InvalidArgument("that would rob living workers", fields={"idle_time": problem})
        queues = [queue for queue in self._backlog.queues if request.stage in ("", queue.lane.stage)]
        if not queues:
            raise InvalidArgument("there is no such stage", fields={"stage": "is not one of this queue"})
        claimed: Counter[str] = Counter()
        for queue in queues:
            claimed[queue.lane.stage] += await queue.abandon(idle_ms, self._claim_idle_ms)
        return messages.ClaimPendingResponse(
            stages=[
                messages.ClaimedStage(stage=stage, claimed_count=count) for stage, count in claimed.items()
            ]
        )

    async def DrainQueue(
        self, request: messages.DrainQueueRequest, context: Context
    ) -> AsyncIterator[messages.DrainQueueResponse]:
        """Read nothing new, and say how much is in flight until nothing is."""
        await self._tools.drain()
        while True:
            stages = await self._stages()
            drained = not any(stage.in_flight_count for stage in stages)
            yield messages.DrainQueueResponse(stages=stages, drained=drained)
            if drained or request.no_wait or not await self._tools.is_draining():
                return
            await asyncio.sleep(DRAIN_PERIOD_S)

    async def ResumeQueue(
        self, request: messages.ResumeQueueRequest, context: Context
    ) -> messages.ResumeQueueResponse:
        """End a drain. Errors: NOT_FOUND/QUEUE_NOT_DRAINED."""
        if not await self._tools.flow():
            raise NotFound("QUEUE_NOT_DRAINED", "the queue is not being drained")
        return messages.ResumeQueueResponse()


def _no_such_letter(name: str) -> NotFound:
    return NotFound("DEAD_LETTER_NOT_FOUND", "there is no such dead letter", dead_letter_id=name)


def _tool(name: str) -> str:
    if not name or len(name) > LONGEST_TOOL_CHARS or name == ALL_TOOLS or not name.isprintable():
        raise InvalidArgument("that is no name of a tool", fields={"tool": "is no name of a tool"})
    return name


def _size(asked: int, usual: int, most: int, *, field: str = "page_size") -> int:
    if asked < 0:
        raise InvalidArgument("that number is of no use", fields={field: "is negative"})
    return min(asked or usual, most)


def _token(consumer: messages.Consumer) -> str:
    return f"{consumer.stage}/{consumer.name}"
