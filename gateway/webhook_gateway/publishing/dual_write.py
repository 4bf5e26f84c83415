"""Copies what went through Redis to SQS as well, behind the answer.

The answer depends on Redis alone. A copy waits in a bounded buffer until SQS has it; what finds no room
there, what SQS refuses for good, and what is left when the process ends is counted and, as both queues'
ledgers are compared by event id, named by `webhook-cli migration compare`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import structlog
from webhook_shared.redis import REDIS_TROUBLE, Backoff, RedisError
from webhook_shared.sqs.parity import Ledger
from webhook_shared.tasks import ended

from webhook_gateway import metrics
from webhook_gateway.outcome import Accepted, Publication, Published
from webhook_gateway.publishing.event_publisher import EventPublisher
from webhook_gateway.publishing.sqs_sending import AT_ONCE, Sender

log = structlog.get_logger()

# Of one round of calls.
MOST_AT_ONCE = 10 * AT_ONCE
SEND_TIMEOUT_S = 10.0
# How long the ledger may keep an answer waiting.
NOTE_TIMEOUT_S = 0.25
OVERHEAD_BYTES = 512

_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)


class _Waiting(NamedTuple):
    publication: Publication
    since_s: float

    @property
    def size_bytes(self) -> int:
        return len(self.publication.sealed) + OVERHEAD_BYTES


class Copier:
    """Copies events to SQS, in the background, for as long as it takes.

    Args:
        sender: To SQS.
        ledger: Of what is there.
        max_events: Most that wait.
        max_bytes: Most bytes that wait, 512 of each beside its sealed ones.

    Attributes:
        lost: Events that will have no copy.
    """

    def __init__(self, sender: Sender, ledger: Ledger, *, max_events: int, max_bytes: int) -> None:
        self._sender = sender
        self._ledger = ledger
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._waiting: deque[_Waiting] = deque()
        self._size_bytes = 0
        self._some = asyncio.Event()
        self._is_failing = False
        self._is_ending = False
        self.lost = 0

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._waiting)

    def offer(self, publications: Sequence[Publication]) -> None:
        """Take events up, as far as there is room."""
        now_s = time.monotonic()
        for publication in publications:
            waiting = _Waiting(publication, now_s)
            if (
                len(self._waiting) >= self._max_events
                or self._size_bytes + waiting.size_bytes > self._max_bytes
            ):
                self._lose([waiting], "full")
                continue
            self._waiting.append(waiting)
            self._size_bytes += waiting.size_bytes
        self._show()
        if self._waiting:
            self._some.set()

    async def run(self) -> None:
        """Copy what comes, until `end` has been called and nothing is left."""
        backoff = Backoff(base_s=0.1, cap_s=1.0)
        while self._waiting or not self._is_ending:
            await self._some.wait()
            try:
                advanced = await self._step()
            except Exception:
                # A copier that has died would lose all copies from here on.
                log.exception("copy.failed")
                advanced = False
            if advanced:
                backoff.reset()
            else:
                await backoff.wait()

    async def end(self, running: asyncio.Task[None], within_s: float) -> None:
        """Let `run`, whose task this is, copy what is left, and count what it can't in this time, seconds."""
        self._is_ending = True
        self._some.set()
        await asyncio.wait({running}, timeout=within_s / 2)
        await ended([running])
        if self._waiting:
            # The call may hang that was under way, and the next one not.
            again = asyncio.create_task(self.run())
            await asyncio.wait({again}, timeout=within_s / 2)
            await ended([again])
        if self._waiting:
            log.error("copy.left_behind", events=len(self._waiting))
            self._lose(list(self._waiting), "shutdown")
            self._waiting.clear()
            self._show()

    async def _step(self) -> bool:
        """One round. False where it is better to wait before the next."""
        batch = [self._waiting[at] for at in range(min(MOST_AT_ONCE, len(self._waiting)))]
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                results = await self._sender.send([waiting.publication for waiting in batch])
        except TimeoutError:
            return self._told(failing="TimeoutError")
        for _ in batch:
            self._size_bytes -= self._waiting.popleft().size_bytes
        copied = [waiting for waiting, sent in zip(batch, results, strict=True) if not sent.fault]
        again = [pair for pair in zip(batch, results, strict=True) if pair[1].fault and not pair[1].final]
        self._lose([waiting for waiting, sent in zip(batch, results, strict=True) if sent.final], "refused")
        # What is to be tried again stays in front.
        self._waiting.extendleft(waiting for waiting, _ in reversed(again))
        self._size_bytes += sum(waiting.size_bytes for waiting, _ in again)
        if not (self._waiting or self._is_ending):
            self._some.clear()
        self._show()
        await self._note(copied)
        return self._told(failing=again[0][1].fault if again else "")

    async def _note(self, copied: Sequence[_Waiting]) -> None:
        now_s = time.monotonic()
        for waiting in copied:
            metrics.copies.inc()
            metrics.copy_lag.observe(now_s - waiting.since_s)
        try:
            await self._ledger.note(
                (each.publication.event_id, each.publication.received_ms) for each in copied
            )
        except _TROUBLE as error:
            # They will seem to be missing in SQS: a comparison errs on the loud side.
            metrics.parity_unnoted.inc(len(copied))
            log.warning("parity.not_noted", error=type(error).__name__, events=len(copied))

    def _told(self, *, failing: str) -> bool:
        if failing and not self._is_failing:
            log.warning("copy.waiting", error=failing, events=len(self._waiting))
        elif self._is_failing and not failing:
            log.info("copy.resumed", events=len(self._waiting))
        self._is_failing = bool(failing)
        return not failing

    def _lose(self, lost: Sequence[_Waiting], cause: str) -> None:
        if lost:
            self.lost += len(lost)
            metrics.copies_lost.labels(cause).inc(len(lost))

    def _show(self) -> None:
        metrics.copies_waiting.set(len(self._waiting))


class DualWriter:
    """Publishes to Redis, and has what is new copied to SQS; see `EventPublisher`.

    Args:
        redis: Whose word is the answer.
        copier: Is told what was new.
        ledger: Of what is in Redis.
    """

    def __init__(self, redis: EventPublisher, copier: Copier, ledger: Ledger) -> None:
        self._redis = redis
        self._copier = copier
        self._ledger = ledger

    @property
    def gave_up(self) -> bool:
        """As of Redis."""
        return self._redis.gave_up

    def assume_missing(self) -> None:
        """As of Redis."""
        self._redis.assume_missing()

    async def probe(self) -> None:
        """As of Redis."""
        await self._redis.probe()

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """As of Redis."""
        return await self._copied(publications, await self._redis.publish(publications))

    async def attempt(self, publications: Sequence[Publication]) -> list[Published]:
        """As of Redis."""
        return await self._copied(publications, await self._redis.attempt(publications))

    async def _copied(self, publications: Sequence[Publication], results: list[Published]) -> list[Published]:
        new = [
            publication
            for publication, result in zip(publications, results, strict=True)
            if isinstance(result, Accepted) and not result.quarantined
        ]
        if new:
            self._copier.offer(new)
            await self._note(new)
        return results

    async def _note(self, new: Sequence[Publication]) -> None:
        # Before the answer, so that whatever dies from here on, the event is known to need its copy.
        try:
            async with asyncio.timeout(NOTE_TIMEOUT_S):
                await self._ledger.note((each.event_id, each.received_ms) for each in new)
        except _TROUBLE as error:
            metrics.parity_unnoted.inc(len(new))
            log.warning("parity.not_noted", error=type(error).__name__, events=len(new))


@asynccontextmanager
async def copying(copier: Copier, drain_s: float) -> AsyncIterator[Copier]:
    """A copier at work while inside; on leaving it has `drain_s` for what is left."""
    task = asyncio.create_task(copier.run())
    try:
        yield copier
    finally:
        await copier.end(task, drain_s)
