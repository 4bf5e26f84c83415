"""Fills the buffer from the stream, and finds what was delivered but never arrived."""

from __future__ import annotations

import asyncio

from webhook_shared.redis import Backoff
from webhook_shared.telemetry import log

from webhook_consumer.buffer import Buffer
from webhook_consumer.metrics import StageMetrics, stream_lost
from webhook_consumer.queue_redis import QUEUE_TROUBLE, START, RedisQueue, StreamLost

# Longer reads starve the event loop, shorter ones pay more round trips.
MOST_PER_READ = 500
# How often a read is woken while the reader winds up: it may be about to block again.
WAKE_PERIOD_S = 0.05


class Reader:
    """Reads a stage's stream with one blocking connection.

    A read is never cancelled: the server has marked its entries as delivered by then, and they would be
    in nobody's hands. After any trouble the list of this process's pending entries is read first.
    """

    def __init__(self, queue: RedisQueue, buffer: Buffer, metrics: StageMetrics) -> None:
        self._queue = queue
        self._buffer = buffer
        self._metrics = metrics
        self._stopping = False
        self._joined = False

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

    def rejoin(self) -> None:
        """Before the next read: have a name and a group, and look for pending entries."""
        self._joined = False

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
            await self._queue.join()
            self._joined = True
            await self._resume()
        room = await self._buffer.room()
        if room > 0 and not self._stopping:
            await self._buffer.add(await self._queue.read(min(room, MOST_PER_READ)))

    async def _resume(self) -> None:
        cursor = START
        while cursor and not self._stopping:
            room = await self._buffer.room()
            claimed = await self._queue.claim(cursor, held=self._buffer.ids(), room=room)
            stream_lost.labels(self._metrics.stage).inc(claimed.lost)
            await self._buffer.add(claimed.entries)
            cursor = claimed.cursor
            if claimed.entries:
                log.info("queue.resumed", stage=self._metrics.stage, entries=len(claimed.entries))
