"""What keeps a queue sound beside the work: leases, abandoned entries, delayed entries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from webhook_shared.telemetry import log

from webhook_consumer.failures.holds import Holds
from webhook_consumer.metrics import StageMetrics, lease_lost, lease_renewed, reclaimed, stream_lost
from webhook_consumer.queue.protocol import EventQueue
from webhook_consumer.queue.redis import QUEUE_TROUBLE, START, StreamLost
from webhook_consumer.workers.buffer import Buffer
from webhook_consumer.workers.reader import Reader

# Three chances to renew before anybody may take over.
RENEWALS_PER_IDLE_TIME = 3
MOST_PROMOTED = 200
PROMOTE_PERIOD_S = 0.5
# What a process hands back at its end is found this soon.
RECLAIM_PERIOD_S = 2.0
SHORTEST_PAUSE_S = 0.01
NOT_YET_JOINED_S = 0.1
MOST_UNPARKED = 500
# So many may wait in the stream for entries to be put back. Fewer than the reader looks past, so that it does
# not put the same ones aside over and over.
MOST_WAITING = 200
# Put back once per period in any case, however much waits before them.
LEAST_UNPARKED = 50
# A tool that may go on is noticed this soon; from then on this often.
UNPARK_PERIOD_S = 0.25
UNPARK_PAUSE_S = 0.02
# A consumer that holds nothing and has been silent for so long will not come back.
DEAD_AFTER_MS = 3_600_000
REAP_PERIOD_S = 60.0
MOST_REAPED = 200


class Upkeep:
    """The periodic tasks of one stage in one process.

    Args:
        queue: The stage's queue.
        buffer: What this process holds.
        reader: Told when this process has lost its name.
        metrics: The stage's.
        idle_ms: How long an entry may be silent before it counts as abandoned.
        holds: Which tools' entries stay aside.
    """

    def __init__(
        self,
        queue: EventQueue,
        buffer: Buffer,
        reader: Reader,
        metrics: StageMetrics,
        idle_ms: int,
        *,
        holds: Holds,
    ) -> None:
        self._queue = queue
        self._buffer = buffer
        self._reader = reader
        self._metrics = metrics
        self._idle_ms = idle_ms
        self._holds = holds
        self._cursor = START
        self._least_at = 0.0
        self._unparking_until = 0.0

    async def heartbeat(self) -> None:
        """Renew, for as long as it runs, the name and every entry that is held."""
        await self._forever(self._renew, pause_s=self._idle_ms / 1000 / RENEWALS_PER_IDLE_TIME)

    async def reclaim(self) -> None:
        """Take over, for as long as it runs, what other processes left behind."""
        period_s = min(RECLAIM_PERIOD_S, self._idle_ms / 1000 / RENEWALS_PER_IDLE_TIME)
        await self._forever(self._take_over, pause_s=period_s)

    async def promote(self) -> None:
        """Put, for as long as it runs, delayed entries back when they are due."""
        await self._forever(self._put_back, pause_s=PROMOTE_PERIOD_S)

    async def unpark(self) -> None:
        """Put, for as long as it runs, entries back that were put aside, when their tool may go on."""
        await self._forever(self._bring_back, pause_s=UNPARK_PERIOD_S)

    async def reap(self) -> None:
        """Forget, for as long as it runs, consumers that are long gone and hold nothing."""
        await self._forever(self._forget_the_dead, pause_s=REAP_PERIOD_S)

    async def _forever(self, step: Callable[[], Awaitable[float | None]], *, pause_s: float) -> None:
        while True:
            pause = pause_s
            try:
                pause = min(await step() or pause_s, pause_s)
            except StreamLost:
                # The reader finds out as well, and heals it.
                log.warning("queue.lost", stage=self._metrics.stage, task=step.__name__)
            except QUEUE_TROUBLE as error:
                log.warning("queue.unreachable", stage=self._metrics.stage, error=type(error).__name__)
            except Exception:  # noqa: BLE001  # entries of a stage without upkeep are lost from sight
                log.error("upkeep.failed", stage=self._metrics.stage, task=step.__name__, exc_info=True)
            await asyncio.sleep(pause)

    async def _renew(self) -> None:
        if not await self._queue.keep_name():
            # Whoever has the name now works on what was pending under it.
            log.warning("queue.name_lost", stage=self._metrics.stage)
            lease_lost.labels(self._metrics.stage).inc()
            self._buffer.forget(self._buffer.ids())
            self._reader.rejoin()
            return
        held = self._buffer.ids()
        if not held:
            return
        lease_renewed.labels(self._metrics.stage).inc(len(held))
        # What was settled meanwhile is not lost.
        lost = [entry_id for entry_id in await self._queue.renew(held) if entry_id in self._buffer]
        if lost:
            lease_lost.labels(self._metrics.stage).inc(len(lost))
            self._buffer.forget(lost)

    async def _take_over(self) -> float | None:
        room = await self._buffer.room()
        if not self._queue.name or room <= 0 or self._holds.is_draining:
            return NOT_YET_JOINED_S
        found = await self._queue.claim(
            self._cursor, held=self._buffer.ids(), room=room, idle_ms=self._idle_ms
        )
        self._cursor = found.cursor or START
        stream_lost.labels(self._metrics.stage).inc(found.lost)
        if found.entries:
            reclaimed.labels(self._metrics.stage).inc(len(found.entries))
            log.info("queue.reclaimed", stage=self._metrics.stage, entries=len(found.entries))
            await self._buffer.add(found.entries)
        return SHORTEST_PAUSE_S if found.cursor else None

    async def _put_back(self) -> float | None:
        moved, next_ms = await self._queue.promote(MOST_PROMOTED)
        if moved == MOST_PROMOTED:
            return SHORTEST_PAUSE_S
        return None if next_ms is None else max(next_ms / 1000, SHORTEST_PAUSE_S)

    async def _bring_back(self) -> float | None:
        now = asyncio.get_running_loop().time()
        is_turn = now >= self._least_at
        if is_turn:
            self._least_at = now + UNPARK_PERIOD_S
        moved = await self._queue.unpark(
            MOST_UNPARKED,
            self._holds.allowances(),
            wanted=MOST_WAITING,
            least=LEAST_UNPARKED if is_turn else 0,
        )
        if moved:
            self._unparking_until = now + 2 * UNPARK_PERIOD_S
        return UNPARK_PAUSE_S if now < self._unparking_until else None

    async def _forget_the_dead(self) -> float | None:
        names = await self._queue.reap(DEAD_AFTER_MS, MOST_REAPED)
        if names:
            log.info("queue.consumers_reaped", stage=self._metrics.stage, consumers=len(names))
        return SHORTEST_PAUSE_S if len(names) == MOST_REAPED else None
