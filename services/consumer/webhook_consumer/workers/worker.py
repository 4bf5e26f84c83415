"""Runs one stage in one process: read, work, settle, and a clean end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from webhook_shared.redis import Backoff
from webhook_shared.tasks import ended
from webhook_shared.telemetry import log

from webhook_consumer.dead_letters.redrive import Canaries
from webhook_consumer.entry import ID, Cause, Dead, Entry, Handler
from webhook_consumer.failures.holds import Holds
from webhook_consumer.failures.retry import RetryBudget, RetryPolicy
from webhook_consumer.metrics import StageMetrics
from webhook_consumer.queue.protocol import EventQueue
from webhook_consumer.queue.redis import QUEUE_TROUBLE
from webhook_consumer.workers.buffer import Buffer
from webhook_consumer.workers.handling import Handling
from webhook_consumer.workers.reader import Reader
from webhook_consumer.workers.settlement import Settlement
from webhook_consumer.workers.upkeep import Upkeep

# More deliveries than this without an end look like an entry that kills its worker. It runs alone then.
SUSPICIOUS_DELIVERIES = 5
# So often started alone without coming to an end: it does.
MOST_ACCUSATIONS = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one process takes on.

    Attributes:
        workers: Batches at once.
        batch: Most entries of a batch.
        prefetch: Most entries buffered or running.
        idle_ms: How long an entry may be silent before another process takes it over.
        drain_s: How long running batches may take to finish at the end, seconds.
        handler_s: How long a handler may take over a batch, seconds.
    """

    workers: int
    batch: int
    prefetch: int
    idle_ms: int
    drain_s: float
    handler_s: float = 300.0


class Worker:
    """One stage at work while inside.

    Nothing is acknowledged before its effect is durable, and whatever goes wrong the entry stays in one
    place: pending here, delayed, dead, or taken over by another process.
    """

    def __init__(
        self,
        queue: EventQueue,
        handler: Handler,
        limits: Limits,
        policy: RetryPolicy,
        metrics: StageMetrics,
        *,
        holds: Holds | None = None,
        budget: RetryBudget | None = None,
        canaries: Canaries | None = None,
    ) -> None:
        self._queue = queue
        self._limits = limits
        self._metrics = metrics
        self._buffer = Buffer(limits.prefetch, SUSPICIOUS_DELIVERIES)
        self._holds = holds = holds or Holds()
        self._handling = Handling(handler, self._buffer, metrics, limits.handler_s)
        self._reader = Reader(queue, self._buffer, metrics, holds)
        self._settlement = Settlement(
            queue, self._buffer, policy, metrics, holds=holds, budget=budget, canaries=canaries
        )
        self._upkeep = Upkeep(
            queue,
            self._buffer,
            self._reader,
            metrics,
            limits.idle_ms,
            holds=holds,
        )
        self._stopping = asyncio.Event()
        self._alone = asyncio.Lock()
        self._reading: asyncio.Task[None]
        self._working: list[asyncio.Task[None]] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._beating: asyncio.Task[None]

    @property
    def silent_s(self) -> float:
        """How long reading has not succeeded though there was room, seconds."""
        return self._reader.silent_s

    async def __aenter__(self) -> Self:
        start = asyncio.create_task
        self._reading = start(self._reader.run(), name=f"{self._metrics.stage}.read")
        self._working = [start(self._work()) for _ in range(self._limits.workers)]
        self._keeping = [
            start(task())
            for task in (
                self._upkeep.reclaim,
                self._upkeep.promote,
                self._upkeep.unpark,
                self._upkeep.reap,
                self._holds.watch,
            )
        ]
        self._beating = start(self._upkeep.heartbeat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        await ended(self._keeping)
        unstarted = await self._buffer.close()
        await self._reader.stop(self._reading)
        unstarted += await self._buffer.close()
        await self._hand_back(unstarted)
        _, late = await asyncio.wait(self._working, timeout=self._limits.drain_s)
        if late:
            log.warning("worker.cut_short", stage=self._metrics.stage, batches=len(late))
        await ended([*late, self._beating])
        try:
            await self._queue.leave()
        except QUEUE_TROUBLE:
            log.info("worker.name_not_freed", stage=self._metrics.stage)

    async def _work(self) -> None:
        while taken := await self._buffer.take(self._limits.batch):
            try:
                await self._work_on(taken)
            except Exception:  # noqa: BLE001  # a mistake of ours costs a batch its time, not the stage a worker
                log.error("worker.failed", stage=self._metrics.stage, entries=len(taken), exc_info=True)
                # How far they came is not known. Held by nobody, they come again when they have been silent.
                self._buffer.drop(list(map(ID, taken)))

    async def _work_on(self, taken: list[Entry]) -> None:
        batch = await self._let_through(taken) if self._holds.some else taken
        if not batch:
            return
        # Of tools that take turns the first entry need not be the oldest.
        queued_ms = int(min(map(ID, batch)).partition(b"-")[0])
        self._metrics.dwell.observe(time.time() - queued_ms / 1000, len(batch))
        if self._buffer.is_suspect(batch[0]):
            await self._run_alone(batch[0])
        else:
            await self._run(batch)

    async def _let_through(self, batch: list[Entry]) -> list[Entry]:
        go, aside = await self._holds.admit(batch)
        if aside:
            await self._settlement.park(aside, "held")
        return go

    async def _run(self, batch: Sequence[Entry]) -> None:
        started = time.perf_counter()
        outcomes = await self._handling.outcomes(batch, self._stops_within)
        if outcomes is None:
            await self._hand_back([entry.id for entry in batch])
            return
        self._metrics.duration.observe(time.perf_counter() - started, len(batch))
        self._buffer.settling(map(ID, batch))
        await self._settlement.settle(batch, outcomes)

    async def _run_alone(self, suspect: Entry) -> None:
        async with self._alone:
            accusations = await self._accused(suspect)
            if accusations is None:
                await self._hand_back([suspect.id])
                return
            if accusations > MOST_ACCUSATIONS:
                detail = f"delivered {suspect.deliveries} times, never finished"
                await self._settlement.settle([suspect], [Dead(Cause.CRASH_LOOP, detail)])
            else:
                await self._run([suspect])
            await self._acquit(suspect)

    async def _accused(self, suspect: Entry) -> int | None:
        """How often it has been started alone, this time included. Unnoted it must not start."""
        backoff = Backoff()
        while True:
            try:
                return await self._queue.accuse(suspect.id)
            except QUEUE_TROUBLE as error:
                log.warning("queue.unreachable", stage=self._metrics.stage, error=type(error).__name__)
            if await self._stops_within(backoff.next_delay_s()):
                return None

    async def _acquit(self, suspect: Entry) -> None:
        try:
            await self._queue.acquit(suspect.id)
        except QUEUE_TROUBLE:
            log.info("worker.suspect_not_acquitted", stage=self._metrics.stage)

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _hand_back(self, ids: list[bytes]) -> None:
        try:
            await self._queue.release(ids, self._limits.idle_ms)
        except QUEUE_TROUBLE:
            # Then they are found when they have been idle for long enough.
            log.warning("worker.not_handed_back", stage=self._metrics.stage, entries=len(ids))
        self._buffer.drop(ids)
