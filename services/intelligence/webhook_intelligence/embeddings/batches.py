"""Texts of many callers in few calls: a batch is closed by count, tokens, bytes, or a moment's quiet.

Queries go before events, events before what is filled in afterwards, and where a call is no journey they do
not share one: whoever waits for a query does not wait for what lies beside it. A text that is alone waits for
company as long as the linger, and no longer; each that joins it may bring others, so the wait begins anew, at
most ten times over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from types import TracebackType
from typing import Self

from webhook_shared.errors import ServiceError

from webhook_intelligence.providers.pace import Pace
from webhook_intelligence.providers.protocol import Embedding

#: Times the linger: the longest that a text waits for company where ever more comes.
MOST_LINGERS = 10

Result = Embedding | ServiceError


class Lane(IntEnum):
    """How urgent a text is."""

    QUERY = 0
    EVENT = 1
    BACKFILL = 2


@dataclass(frozen=True)
class Bounds:
    """How much one call may hold.

    Attributes:
        linger_s: How long a text waits for company; 0: not at all.
        mixed: Whether texts that are urgent and such that are not may share a call.
    """

    texts: int
    tokens: int
    bytes: int
    linger_s: float = 0.0
    mixed: bool = True


@dataclass(frozen=True, eq=False)
class Waiting:
    """A text that waits for a call.

    Attributes:
        text: Not empty.
        tokens: About how many it has.
        lane: How urgent it is.
        deadline: When nobody waits for it any more, in the time of the loop.
    """

    text: str
    tokens: int
    lane: Lane
    deadline: float
    since: float
    landed: asyncio.Future[Result] = field(repr=False)

    @property
    def bytes(self) -> int:
        """At most so many in UTF-8, without encoding it."""
        return len(self.text) if self.text.isascii() else 3 * len(self.text)


Ask = Callable[[list[Waiting]], Awaitable[Sequence[Result]]]


class Batches:
    """Puts texts together. Use as an async context manager."""

    def __init__(self, ask: Ask, bounds: Bounds, pace: Pace) -> None:
        """Batch for one model.

        Args:
            ask: Makes one call; one result per text, in order. What it raises goes to all of them.
            bounds: Of one call.
            pace: How many calls at once.
        """
        self._ask = ask
        self._bounds = bounds
        self._pace = pace
        self._lanes: dict[Lane, deque[Waiting]] = {lane: deque() for lane in Lane}
        self._tokens = self._bytes = 0
        self._newest = 0.0
        self._expected = 0
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._looks_soon = False
        self._is_closing = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._look()
        while self._running:
            await asyncio.wait(self._running)

    def __len__(self) -> int:
        """How many texts wait."""
        return sum(map(len, self._lanes.values()))

    def expect(self, texts: int) -> None:
        """Texts are on their way here, so company is near; a negative number: they have come, or will not."""
        self._expected += texts

    def submit(self, text: str, *, tokens: int, lane: Lane, deadline: float) -> asyncio.Future[Result]:
        """Queue a text; the future has its result. Cancelling the future does not stop the call."""
        loop = asyncio.get_running_loop()
        self._newest = loop.time()
        waiting = Waiting(text, tokens, lane, deadline, self._newest, loop.create_future())
        self._lanes[lane].append(waiting)
        self._tokens += tokens
        self._bytes += waiting.bytes
        if not self._looks_soon and (self._timer is None or self._is_full()):
            # One turn of the loop later, so that all who come in this turn count.
            self._looks_soon = True
            loop.call_soon(self._look)
        return waiting.landed

    def _look(self) -> None:
        """Send what may go, and look again when the rest may."""
        self._looks_soon = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self) and self._has_room():
            wait_s = 0.0 if self._is_full() else self._wait_s()
            if wait_s > 0:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)
                return
            task = asyncio.get_running_loop().create_task(self._run(self._take()))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._look()

    def _has_room(self) -> bool:
        kept = 0 if self._lanes[Lane.QUERY] else self._pace.kept_for_queries
        return len(self._running) < self._pace.allowed - kept

    def _is_full(self) -> bool:
        bounds = self._bounds
        return len(self) >= bounds.texts or self._tokens >= bounds.tokens or self._bytes >= bounds.bytes

    def _wait_s(self) -> float:
        if self._is_closing:
            return 0.0
        now, linger_s = asyncio.get_running_loop().time(), self._bounds.linger_s
        oldest = min(lane[0].since for lane in self._lanes.values() if lane)
        quiet_since = now if self._expected > 0 else self._newest
        return min(quiet_since + linger_s, oldest + MOST_LINGERS * linger_s) - now

    def _take(self) -> list[Waiting]:
        """The most urgent that fit in one call; a text that is too much by itself goes alone."""
        bounds = self._bounds
        batch: list[Waiting] = []
        tokens = size = 0
        for lane in self._lanes.values():
            fitting = 0
            for waiting in islice(lane, bounds.texts - len(batch)):
                tokens, size = tokens + waiting.tokens, size + waiting.bytes
                if (batch or fitting) and (tokens > bounds.tokens or size > bounds.bytes):
                    break
                fitting += 1
            batch += [lane.popleft() for _ in range(fitting)]
            if len(batch) == bounds.texts or lane or (batch and not bounds.mixed):
                break
        self._tokens -= sum(waiting.tokens for waiting in batch)
        self._bytes -= sum(waiting.bytes for waiting in batch)
        return batch

    async def _run(self, batch: list[Waiting]) -> None:
        try:
            results = await self._ask(batch)
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.landed.cancel()
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to the callers
            for waiting in batch:
                if not waiting.landed.done():
                    waiting.landed.set_exception(error)
            return
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.landed.done():
                waiting.landed.set_result(result)
