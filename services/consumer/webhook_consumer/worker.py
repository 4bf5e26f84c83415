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

from webhook_consumer.buffer import Buffer
from webhook_consumer.entry import Cause, Dead, Entry, Handler, Outage, Outcome, Retry
from webhook_consumer.metrics import StageMetrics, paused
from webhook_consumer.queue_redis import QUEUE_TROUBLE, RedisQueue
from webhook_consumer.reader import Reader
from webhook_consumer.retry import RetryPolicy
from webhook_consumer.settlement import Settlement
from webhook_consumer.upkeep import Upkeep

# More deliveries than this without an end look like an entry that kills its worker. It runs alone then.
SUSPICIOUS_DELIVERIES = 5
# So often started alone without coming to an end: it does.
MOST_ACCUSATIONS = 2
OUTAGE_BACKOFF_BASE_S = 0.1
OUTAGE_BACKOFF_CAP_S = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one process takes on.

    Attributes:
        workers: Batches at once.
        batch: Most entries of a batch.
        prefetch: Most entries buffered or running.
        idle_ms: How long an entry may be silent before another process takes it over.
        drain_s: How long running batches may take to finish at the end, seconds.
    """

    workers: int
    batch: int
    prefetch: int
    idle_ms: int
    drain_s: float


class Worker:
    """One stage at work while inside.

    Nothing is acknowledged before its effect is durable, and whatever goes wrong the entry stays in one
    place: pending here, delayed, dead, or taken over by another process.
    """

    def __init__(
        self,
        queue: RedisQueue,
        handler: Handler,
        limits: Limits,
        policy: RetryPolicy,
        metrics: StageMetrics,
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._limits = limits
        self._metrics = metrics
        self._buffer = Buffer(limits.prefetch, SUSPICIOUS_DELIVERIES)
        self._reader = Reader(queue, self._buffer, metrics)
        self._settlement = Settlement(queue, self._buffer, policy, metrics)
        self._upkeep = Upkeep(queue, self._buffer, self._reader, metrics, limits.idle_ms)
        self._stopping = asyncio.Event()
        self._alone = asyncio.Lock()
        self._reading: asyncio.Task[None]
        self._working: list[asyncio.Task[None]] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._beating: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        start = asyncio.create_task
        self._reading = start(self._reader.run(), name=f"{self._metrics.stage}.read")
        self._working = [start(self._work()) for _ in range(self._limits.workers)]
        self._keeping = [start(self._upkeep.reclaim()), start(self._upkeep.promote())]
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
        while batch := await self._buffer.take(self._limits.batch):
            queued_ms = int(batch[0].id.partition(b"-")[0])
            self._metrics.dwell.observe(time.time() - queued_ms / 1000, len(batch))
            if self._buffer.is_suspect(batch[0]):
                await self._run_alone(batch[0])
            else:
                await self._run(batch)

    async def _run(self, batch: Sequence[Entry]) -> None:
        started = time.perf_counter()
        outcomes = await self._outcomes(batch)
        if outcomes is None:
            await self._hand_back([entry.id for entry in batch])
            return
        self._metrics.duration.observe(time.perf_counter() - started, len(batch))
        self._buffer.settling([entry.id for entry in batch])
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

    async def _outcomes(self, batch: Sequence[Entry]) -> Sequence[Outcome] | None:
        """What the handler made of the batch; None where an outage outlasted this process."""
        backoff = Backoff(base_s=OUTAGE_BACKOFF_BASE_S, cap_s=OUTAGE_BACKOFF_CAP_S)
        waiting = False
        while True:
            try:
                outcomes = await self._handled(batch)
            except Outage as outage:
                if not waiting:
                    log.warning("stage.paused", stage=self._metrics.stage, why=str(outage))
                waiting = True
            else:
                if waiting:
                    log.info("stage.resumed", stage=self._metrics.stage)
                return outcomes
            with paused.labels(self._metrics.stage).track_inprogress():
                if await self._stops_within(backoff.next_delay_s()):
                    return None

    async def _handled(self, batch: Sequence[Entry]) -> Sequence[Outcome]:
        try:
            return await self._handler.handle(batch)
        except Outage:
            raise
        except Exception as error:  # noqa: BLE001  # a handler's mistake costs its entry, not the worker
            if len(batch) > 1:
                return [outcome for entry in batch for outcome in await self._handled([entry])]
            log.error("worker.handler_failed", stage=self._metrics.stage, exc_info=True)
            return [Retry(f"unexpected {type(error).__name__}")]

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
