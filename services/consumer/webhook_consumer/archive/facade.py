"""The archive: processed events, kept sealed for a while, to be found and to be forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress

from pydantic import SecretStr
from webhook_shared.objects.protocol import ObjectStore
from webhook_shared.redis import Client
from webhook_shared.retention import Retention, RetentionRule
from webhook_shared.sealing.master_keys import MasterKeys
from webhook_shared.tasks import ended

from webhook_consumer.archive import metrics
from webhook_consumer.archive.archiver import Archiver
from webhook_consumer.archive.events import Archived, Damaged
from webhook_consumer.archive.forgotten import Forgotten
from webhook_consumer.archive.retention import ArchiveRetention
from webhook_consumer.archive.search import Catalogue
from webhook_consumer.archive.segments import Segments
from webhook_consumer.archive.settings import ArchiveSection
from webhook_consumer.archive.stage import ArchivedStage
from webhook_consumer.archive.waiting import Waiting
from webhook_consumer.entry import Handler

EVENTS_AT_ONCE = 256


class Archive:
    """One process's part in the archive.

    Args:
        client: Where processed events wait.
        store: Where segments lie.
        master_key: Seals segments.
        settings: For how long and how.
        rules: What differs by tenant and tool.

    Attributes:
        catalogue: Finds events.
        archiver: Writes and sweeps.
        forgotten: What must not be kept.
    """

    def __init__(
        self,
        client: Client,
        store: ObjectStore,
        master_key: MasterKeys | SecretStr,
        settings: ArchiveSection,
        rules: Sequence[RetentionRule] = (),
    ) -> None:
        self._keeps = settings.enabled
        self._waiting = Waiting(client, limit_bytes=settings.waiting_limit)
        self._segments = Segments(store, master_key)
        self.forgotten = Forgotten(client)
        retention = ArchiveRetention(Retention.of("archive", settings.retention, rules))
        self.archiver = Archiver(
            client, self._waiting, self._segments, self.forgotten, settings, retention=retention
        )
        self.catalogue = Catalogue(self._segments, self._waiting)

    def of(self, stage: Handler) -> Handler:
        """The stage, with its events kept where that is wanted."""
        return ArchivedStage(stage, self._waiting) if self._keeps else stage

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Segments are written and swept while inside; those of earlier times too where nothing is kept."""
        working = asyncio.create_task(self.archiver.run())
        try:
            yield
        finally:
            await ended([working])

    async def flush(self) -> int:
        """Write all that waits by now into segments; returns how many events. Any process may."""
        until = await self._waiting.newest()
        count = 0
        while until is not None and await self._waiting.has(until):
            count += await self.archiver.write()
        return count

    async def events_of(self, tenant: str, since_ms: int = 0) -> AsyncIterator[list[Archived]]:
        """What is kept of a tenant, in portions; one that is just being written may come twice.

        Args:
            tenant: Whose.
            since_ms: Not what was written into segments before then, Unix milliseconds.

        Raises:
            ObjectTrouble: The store can't be reached; the rest is not told.
            REDIS_TROUBLE: As much.
            Unreadable: A segment is damaged.
        """
        after = b""
        while page := await self._waiting.page(after):
            for one in page:
                with suppress(Damaged):
                    yield [event for event in one.chunk.events() if event.tenant == tenant]
            after = page[-1].id
        async for segment in self._segments.all():
            if segment.written_ms < since_ms:
                continue
            held = [row for row in await self._segments.index(segment) if row.tenant == tenant]
            for start in range(0, len(held), EVENTS_AT_ONCE):
                events = []
                for row in held[start : start + EVENTS_AT_ONCE]:
                    sealed = await self._segments.sealed(segment, row)
                    if sealed is not None:
                        events.append(Archived(*row[:7], sealed))
                yield events

    async def forget(self, tenant: str, event_ids: Collection[str] | None = None) -> int:
        """Let there be none of these events in the archive, nor ever again.

        Segments that have some of them are written anew without; their retention stays what it was.
        Whoever dies on the way, or meets an error, calls again.

        Args:
            tenant: Whose.
            event_ids: Which; None: all that the tenant has had until now.

        Returns:
            How many were dropped from segments.

        Raises:
            ObjectTrouble: The store can't be reached: not all may be gone.
            REDIS_TROUBLE: As much.
            Unreadable: A segment is damaged, so nobody knows what it has.
        """
        now_ms = await self.forgotten.note(tenant, event_ids)
        # From here on nothing of it is written; what had been is found.
        await self.flush()
        count = 0
        async for segment in self._segments.all():
            rows = await self._segments.index(segment)
            kept = [
                row
                for row in rows
                if row.tenant != tenant
                or (row.received_ms > now_ms if event_ids is None else row.event_id not in event_ids)
            ]
            if len(kept) < len(rows):
                await self._segments.keep_only(segment, kept)
                count += len(rows) - len(kept)
        metrics.forgotten.inc(count)
        return count
