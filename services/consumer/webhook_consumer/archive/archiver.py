"""Writes processed events into segments, and deletes those that have been kept for long enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.redis import Backoff, Client
from webhook_shared.telemetry import log

from webhook_consumer.archive import metrics
from webhook_consumer.archive.events import Archived, Damaged
from webhook_consumer.archive.forgotten import Forgotten
from webhook_consumer.archive.lease import Lease
from webhook_consumer.archive.retention import ArchiveRetention
from webhook_consumer.archive.segments import Segment, Segments, Unreadable
from webhook_consumer.archive.settings import ArchiveSection
from webhook_consumer.archive.waiting import Waiting, WaitingChunk
from webhook_consumer.queue.redis import QUEUE_TROUBLE

TROUBLE: tuple[type[BaseException], ...] = (ObjectTrouble, *QUEUE_TROUBLE)
LOOK_PERIOD_S = 1.0
LEASE_TTL_MS = 60_000
# A write may be under way for as long as both its objects may take, and some more.
LEFTOVER_AGE_MS = 15 * 60 * 1000
KEPT = "archive:{webhook-archive}:kept"
"""HASH: events, bytes and the oldest segment's time, as the latest sweep counted them."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found and did."""

    events: int
    bytes: int
    oldest_ms: int
    expired_events: int


class Archiver:
    """The periodic work on the archive; one process does it, every process shows how it stands.

    Args:
        client: Where the waiting chunks and the counts are.
        waiting: The chunks.
        segments: What they become.
        forgotten: What must not be kept.
        settings: When.
        retention: How long events are kept.
    """

    def __init__(
        self,
        client: Client,
        waiting: Waiting,
        segments: Segments,
        forgotten: Forgotten,
        settings: ArchiveSection,
        *,
        retention: ArchiveRetention,
    ) -> None:
        self._client = client
        self._waiting = waiting
        self._segments = segments
        self._forgotten = forgotten
        self._lease = Lease(client, ttl_ms=LEASE_TTL_MS)
        self._segment_bytes = settings.segment_bytes
        self._segment_age_ms = round(settings.segment_age.total_seconds() * 1000)
        self._retention = retention
        self._sweep_period_s = settings.sweep_interval.total_seconds()
        self._look_period_s = min(LOOK_PERIOD_S, settings.segment_age.total_seconds())
        self._keeps = settings.enabled
        self._prepared = False
        self._swept_at_s = float("-inf")

    async def run(self) -> None:
        """Write and sweep for as long as it runs."""
        backoff = Backoff(base_s=self._look_period_s, cap_s=30.0)
        try:
            while True:
                try:
                    more = await self.step()
                    backoff.reset()
                except TROUBLE as error:
                    metrics.failures.inc()
                    log.warning("archive.unreachable", error=type(error).__name__, what=_what(error))
                    await backoff.wait()
                except Exception:  # noqa: BLE001  # a full archive is found out too late
                    metrics.failures.inc()
                    log.error("archive.failed", exc_info=True)
                    await backoff.wait()
                else:
                    await asyncio.sleep(0 if more else self._look_period_s)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        try:
            await self._lease.let_go()
        except QUEUE_TROUBLE:
            log.info("archive.lease_not_freed")

    async def step(self) -> bool:
        """Look once. Returns whether there is more to do at once.

        Raises:
            ObjectTrouble: The store can't be reached; nothing is lost.
            REDIS_TROUBLE: As much.
        """
        due = await self._is_due()
        if not await self._lease.hold():
            return False
        if self._keeps and not self._prepared:
            await self._segments.prepare()
            self._prepared = True
        if due:
            await self.write()
            return True
        if time.monotonic() - self._swept_at_s >= self._sweep_period_s:
            await self.sweep()
            self._swept_at_s = time.monotonic()
        return False

    async def _is_due(self) -> bool:
        amount = await self._waiting.amount()
        kept: Any = await self._client.hmget(KEPT, "events", "bytes", "oldest_ms")
        now_ms = time.time() * 1000
        age_ms = max(0.0, now_ms - amount.since_ms) if amount.since_ms is not None else 0.0
        metrics.waiting.set(amount.events)
        metrics.waiting_bytes.set(amount.bytes)
        metrics.lag.set(age_ms / 1000)
        metrics.events.set(int(kept[0] or 0))
        metrics.size.set(int(kept[1] or 0))
        metrics.oldest_age.set(max(0.0, (now_ms - int(kept[2])) / 1000) if kept[2] else 0.0)
        return amount.since_ms is not None and (
            amount.bytes >= self._segment_bytes or age_ms >= self._segment_age_ms
        )

    async def write(self) -> int:
        """Write what has waited the longest, of one segment's size; returns how many events.

        What waits is dropped only when its segment has been read back. Whoever dies in between leaves
        it to be written once more; readers look at ids.
        """
        chunks = await self._waiting.oldest(self._segment_bytes)
        events = await asyncio.to_thread(_events, chunks)
        for segment in await self._written(events):
            metrics.written.inc(segment.count)
            metrics.written_bytes.inc(segment.size_bytes)
        await self._waiting.drop(chunks)
        return len(events)

    async def _written(self, events: Sequence[Archived]) -> list[Segment]:
        while True:
            events = await self._forgotten.without(events)
            written = await self._segments.write(events)
            if len(await self._forgotten.without(events)) == len(events):
                # Whoever has something forgotten from now on finds these segments.
                return written
            for segment in written:
                await self._segments.delete(segment)

    async def sweep(self) -> Swept:
        """Delete what has been kept for long enough, and what was left behind; count the rest."""
        now_ms = int(time.time() * 1000)
        events, size, oldest_ms, expired = 0, 0, now_ms, 0
        stems: set[str] = set()
        async for segment in self._segments.all():
            if self._retention.is_over(segment, now_ms):
                await self._segments.delete(segment)
                expired += segment.count
                continue
            expired += await self._expired(segment, now_ms)
            stems.add(segment.stem)
            events, size = events + segment.count, size + segment.size_bytes
            oldest_ms = min(oldest_ms, segment.written_ms)
        self._retention.forget(stems)
        async for leftover in self._segments.leftovers():
            if leftover.written_ms + LEFTOVER_AGE_MS <= now_ms:
                await self._segments.delete(leftover)
        if self._retention.longest_ms:
            await self._forgotten.expire(now_ms - self._retention.longest_ms)
        metrics.expired.inc(expired)
        await self._client.hset(KEPT, mapping={"events": events, "bytes": size, "oldest_ms": oldest_ms})
        return Swept(events, size, oldest_ms, expired)

    async def _expired(self, segment: Segment, now_ms: int) -> int:
        """Drop what of a segment has been kept for long enough, though not all has; how many events."""
        if not self._retention.wants_look(segment, now_ms):
            return 0
        try:
            rows = await self._segments.index(segment)
            kept = [row for row in rows if self._retention.keeps(segment, row, now_ms)]
            if len(kept) < len(rows):
                await self._segments.keep_only(segment, kept)
        except Unreadable as error:
            # It goes when all of it is due; until then somebody may mend it.
            log.error("archive.damaged_segment", segment=str(error))
            return 0
        self._retention.looked(segment, now_ms)
        return len(rows) - len(kept)


def _events(chunks: list[WaitingChunk]) -> list[Archived]:
    """The events of chunks, each once."""
    found: dict[tuple[str, str], Archived] = {}
    for one in chunks:
        try:
            events = one.chunk.events()
        except Damaged:
            # Somebody else wrote it: there is nothing in it that could be kept.
            log.error("archive.damaged_chunk", chunk=one.id.decode())
            continue
        for event in events:
            found.setdefault((event.tenant, event.event_id), event)
    return list(found.values())


def _what(error: BaseException) -> str:
    return str(error) if isinstance(error, ObjectTrouble) else ""
