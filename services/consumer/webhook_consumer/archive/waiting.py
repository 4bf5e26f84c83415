"""Processed events on their way into a segment: chunks in a stream of Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from webhook_shared.redis import Client, Script

from webhook_consumer.archive.events import Chunk

STREAM = "webhook-archive"
HELD = "archive:{webhook-archive}:held"
"""HASH: bytes and events that wait."""
# A chunk is about a quarter of a MiB: so many are read at once.
PAGE = 16


@dataclass(frozen=True, slots=True)
class WaitingChunk:
    """A chunk that waits, and its id in the stream."""

    id: bytes
    chunk: Chunk

    @property
    def size_bytes(self) -> int:
        """What it takes of the room."""
        return len(self.chunk.data) + len(self.chunk.sizes)


@dataclass(frozen=True, slots=True)
class Amount:
    """What waits; `since_ms` is when the oldest came, Unix milliseconds, None where nothing waits."""

    bytes: int
    events: int
    since_ms: int | None


class Waiting:
    """The chunks that wait. Every method raises REDIS_TROUBLE where Redis can't be reached.

    Args:
        client: Where they are.
        limit_bytes: Most that may wait.
    """

    def __init__(self, client: Client, *, limit_bytes: int) -> None:
        self._client = client
        self._limit_bytes = limit_bytes
        self._add = Script.load("webhook_consumer", "archive_add")
        self._drop = Script.load("webhook_consumer", "archive_drop")

    async def add(self, chunk: Chunk) -> bool:
        """Make a chunk durable. False: so much waits already that there is no room.

        Repeating it after an answer was lost adds it twice; whoever reads looks at ids.
        """
        arguments = [self._limit_bytes, chunk.data, chunk.sizes, chunk.count]
        return bool(await self._add(self._client, [STREAM, HELD], arguments))

    async def amount(self) -> Amount:
        """How much waits."""
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.hmget(HELD, "bytes", "events")
            pipeline.xrange(STREAM, count=1)
            (size, events), oldest = await pipeline.execute()
        since_ms = int(oldest[0][0].partition(b"-")[0]) if oldest else None
        return Amount(int(size or 0), int(events or 0), since_ms)

    async def oldest(self, most_bytes: int) -> list[WaitingChunk]:
        """The oldest chunks, until they have so many bytes."""
        found: list[WaitingChunk] = []
        size = 0
        while size < most_bytes:
            page = await self.page(found[-1].id if found else b"")
            for one in page:
                if size < most_bytes:
                    found.append(one)
                    size += one.size_bytes
            if len(page) < PAGE:
                break
        return found

    async def page(self, after: bytes) -> list[WaitingChunk]:
        """Up to PAGE chunks behind this one, the oldest first."""
        rows: Any = await self._client.xrange(STREAM, min=b"(" + after if after else b"-", count=PAGE)
        return [_chunk(row) for row in rows]

    async def newest(self) -> bytes | None:
        """The id of the chunk that came last; None where nothing waits."""
        rows: Any = await self._client.xrevrange(STREAM, count=1)
        return bytes(rows[0][0]) if rows else None

    async def has(self, not_after: bytes) -> bool:
        """Whether a chunk waits that came no later than this one."""
        return bool(await self._client.xrange(STREAM, max=not_after, count=1))

    async def find(self, chunk_id: bytes) -> WaitingChunk | None:
        """One of them; None where it waits no longer."""
        rows: Any = await self._client.xrange(STREAM, min=chunk_id, max=chunk_id)
        return _chunk(rows[0]) if rows else None

    async def drop(self, chunks: Sequence[WaitingChunk]) -> None:
        """These are in a segment, or are to be forgotten."""
        arguments: list[Any] = []
        for one in chunks:
            arguments += [one.id, one.size_bytes, one.chunk.count]
        if arguments:
            await self._drop(self._client, [STREAM, HELD], arguments)


def _chunk(row: Any) -> WaitingChunk:
    chunk_id, fields = row
    return WaitingChunk(chunk_id, Chunk(fields.get(b"data", b""), fields.get(b"sizes", b"")))
