"""Fills the buffer from the stream, and finds what was delivered but never arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from webhook_shared.redis import Backoff
from webhook_shared.telemetry import log

from webhook_consumer.entry import Entry
from webhook_consumer.failures.holds import Holds
from webhook_consumer.metrics import StageMetrics, parkings, redis_reconnects, stream_lost
from webhook_consumer.queue.protocol import EventQueue
from webhook_consumer.queue.redis import QUEUE_TROUBLE, START, StreamLost
from webhook_consumer.workers.buffer import NEVER, Buffer

# Longer reads starve the event loop, shorter ones pay more round trips.
MOST_PER_READ = 500
# How often a read is woken while the reader winds up: it may be about to block again.
WAKE_PERIOD_S = 0.05
DRAINING_PAUSE_S = 0.1
# What waits longer than this is to be looked through for tools that a noisier one keeps waiting.
BEHIND_S = 1.0


class Reader:
    """Reads a stage's stream with one blocking connection.

    A read is never cancelled: the server has marked its entries as delivered by then, and they would be
    in nobody's hands. After any trouble the list of this process's pending entries is read first.
    """

    def __init__(self, queue: EventQueue, buffer: Buffer, metrics: StageMetrics, holds: Holds) -> None:
        self._queue = queue
        self._buffer = buffer
        self._metrics = metrics
        self._holds = holds
        self._stopping = False
        self._joined = False
        self._waits_for_room = False
        self._behind_at = NEVER
        self._succeeded = time.monotonic()

    async def run(self) -> None:
        """Read until `stop`."""
        backoff = Backoff()
        while not self._stopping:
            try:
                await self._step()
                backoff.reset()
            except StreamLost:
                stream_lost.labels(self._metrics.stage).inc()
                log.error("queue.lost", stage=self._metrics.stage, stream=self._queue.lane.stream)
                self.rejoin()
                await backoff.wait()
            except QUEUE_TROUBLE as error:
                log.warning("queue.unreachable", stage=self._metrics.stage, error=type(error).__name__)
                self.rejoin()
                await backoff.wait()
            except Exception:  # noqa: BLE001  # a stage that no longer reads is worse than any mistake
                log.error("reader.failed", stage=self._metrics.stage, exc_info=True)
                self.rejoin()
                await backoff.wait()

    @property
    def silent_s(self) -> float:
        """How long no read has succeeded though there was room, seconds."""
        if self._waits_for_room or self._holds.is_draining:
            return 0.0
        return time.monotonic() - self._succeeded

    def rejoin(self) -> None:
        """Before the next read: have a name and a group, and look for pending entries."""
        self._joined = False
        redis_reconnects.labels(self._metrics.stage).inc()

    async def stop(self, running: asyncio.Task[None]) -> None:
        """End `run`, whose task this is, without losing what its last read is given."""
        self._stopping = True
        while not running.done():
            try:
                await self._queue.wake()
            except QUEUE_TROUBLE:
                # Then the read ends by itself when its time is up.
                await asyncio.wait({running})
            await asyncio.wait({running}, timeout=WAKE_PERIOD_S)

    async def _step(self) -> None:
        if not self._joined:
            # Before joining: the name may be lost while that is under way, and then it has to be done again.
            self._joined = True
            await self._queue.join()
            await self._resume()
        if self._holds.is_draining:
            await asyncio.sleep(DRAINING_PAUSE_S)
            return
        room = await self._room(self._behind_at)
        if room > 0 and not self._stopping and not self._holds.is_draining:
            most = min(room, MOST_PER_READ)
            entries = await self._queue.read(most)
            self._succeeded = time.monotonic()
            self._note_age(entries, is_full=len(entries) >= most)
            if beyond := await self._buffer.add(entries, shared=True):
                # Where this fails they are found among this process's own, as after any trouble.
                await self._queue.park(beyond)
                parkings.labels(self._metrics.stage, "share").inc(len(beyond))

    async def _room(self, behind_at: float = NEVER) -> int:
        self._waits_for_room = True
        try:
            return await self._buffer.room(behind_at)
        finally:
            self._waits_for_room = False
            self._succeeded = time.monotonic()

    def _note_age(self, entries: Sequence[Entry], *, is_full: bool) -> None:
        # Where a read was full, more waits that is hardly younger; else nothing waited a moment ago.
        age_s = time.time() - int(entries[-1].id.partition(b"-")[0]) / 1000 if is_full else 0.0
        self._behind_at = asyncio.get_running_loop().time() + BEHIND_S - age_s

    async def _resume(self) -> None:
        cursor = START
        while cursor and not self._stopping:
            room = await self._room()
            claimed = await self._queue.claim(cursor, held=self._buffer.ids(), room=room)
            stream_lost.labels(self._metrics.stage).inc(claimed.lost)
            await self._buffer.add(claimed.entries)
            cursor = claimed.cursor
            if claimed.entries:
                log.info("queue.resumed", stage=self._metrics.stage, entries=len(claimed.entries))
