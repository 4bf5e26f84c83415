"""Has a batch worked on, whatever its handler does: answer, fail, hang, or miss its neighbour."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from webhook_shared.redis import Backoff
from webhook_shared.tasks import ended
from webhook_shared.telemetry import log

from webhook_consumer.entry import Entry, Handler, Outage, Outcome, Retry
from webhook_consumer.metrics import StageMetrics, paused
from webhook_consumer.workers.buffer import Buffer

OUTAGE_BACKOFF_BASE_S = 0.1
OUTAGE_BACKOFF_CAP_S = 2.0
# So often without an answer, while other batches had theirs: it is about the batch.
MOST_SILENCES = 3


class Handling:
    """A stage's handler, made safe.

    Args:
        handler: Works on batches.
        buffer: Told while there is an outage.
        metrics: The stage's.
        timeout_s: How long a handler may take over a batch, seconds.
    """

    def __init__(self, handler: Handler, buffer: Buffer, metrics: StageMetrics, timeout_s: float) -> None:
        self._handler = handler
        self._buffer = buffer
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._answered = 0
        # Set by the next answer; None while nobody waits for it.
        self._healed: asyncio.Event | None = None

    async def outcomes(
        self, batch: Sequence[Entry], stops_within: Callable[[float], Coroutine[Any, Any, bool]]
    ) -> Sequence[Outcome] | None:
        """What became of a batch, entry by entry; None where an outage outlasted this process.

        Args:
            batch: At least one entry.
            stops_within: Waits so many seconds, and says whether this process is to end.
        """
        backoff = Backoff(base_s=OUTAGE_BACKOFF_BASE_S, cap_s=OUTAGE_BACKOFF_CAP_S)
        silences, waiting, woken, answered = 0, False, False, self._answered
        while True:
            try:
                outcomes = await self._handled(batch)
            except Outage as outage:
                if not waiting:
                    log.warning("stage.paused", stage=self._metrics.stage, why=str(outage))
                waiting = True
                silences += outage.is_silence
            else:
                if waiting:
                    log.info("stage.resumed", stage=self._metrics.stage)
                self._answered += 1
                if self._healed is not None:
                    self._healed.set()
                    self._healed = None
                return outcomes
            if silences >= MOST_SILENCES and self._answered > answered:
                return await self._one_by_one(batch)
            with paused.labels(self._metrics.stage).track_inprogress(), self._buffer.outage():
                # Woken once and still without an answer, a batch waits for its own time: others may go on
                # having theirs.
                pause = stops_within(backoff.next_delay_s())
                woken, stops = (False, await pause) if woken else await self._healed_within(pause)
                if stops:
                    return None

    async def _healed_within(self, pause: Coroutine[Any, Any, bool]) -> tuple[bool, bool]:
        """Pause, at most until another batch has its answer.

        Returns:
            Whether one had, and else whether the pause says that this process is to end.
        """
        if self._healed is None:
            self._healed = asyncio.Event()
        pausing, healing = asyncio.ensure_future(pause), asyncio.ensure_future(self._healed.wait())
        try:
            await asyncio.wait((pausing, healing), return_when=asyncio.FIRST_COMPLETED)
            return (False, pausing.result()) if pausing.done() else (True, False)
        finally:
            await ended([pausing, healing])

    async def _handled(self, batch: Sequence[Entry]) -> Sequence[Outcome]:
        limit = asyncio.timeout(self._timeout_s)
        try:
            async with limit:
                return await self._handler.handle(batch)
        except Outage:
            raise
        except Exception as error:  # noqa: BLE001  # a handler's mistake costs its entry, not the worker
            if limit.expired():
                return await self._hung(batch)
            if len(batch) > 1:
                return [outcome for entry in batch for outcome in await self._handled([entry])]
            log.error("worker.handler_failed", stage=self._metrics.stage, exc_info=True)
            return [Retry(f"unexpected {type(error).__name__}")]

    async def _hung(self, batch: Sequence[Entry]) -> Sequence[Outcome]:
        log.error("worker.handler_hung", stage=self._metrics.stage, entries=len(batch))
        if len(batch) == 1:
            return [Retry("the handler did not come to an end in time")]
        return await self._one_by_one(batch)

    async def _one_by_one(self, batch: Sequence[Entry]) -> Sequence[Outcome]:
        """Each alone, side by side: one after the other, those that hang would take for ever."""
        ends = await asyncio.gather(*(self._handled([entry]) for entry in batch), return_exceptions=True)
        outcomes: list[Outcome] = []
        for end in ends:
            if isinstance(end, Outage):
                outcomes.append(Retry(f"no answer in time while others had theirs: {end}"))
            elif isinstance(end, BaseException):
                raise end
            else:
                outcomes += end
        return outcomes
