"""The places where entries are, as far as looking through them and taking some out goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from webhook_shared.redis import Client, Script

from webhook_consumer.entry import Entry
from webhook_consumer.queue.redis import UNIT_SEPARATOR, Lane, fields_of

PAGE = 100
"""Entries that are looked at at once: they come with their sealed bytes."""


class StreamPlace:
    """A stream.

    Args:
        client: Where it is.
        name: What counts its entries: "queue".
        stream: Its key.
        group: Whose entries may be in flight; empty where there is none.
    """

    def __init__(self, client: Client, name: str, stream: str, group: str = "") -> None:
        self.name = name
        self._client = client
        self._stream = stream
        self._group = group

    async def pages(self) -> AsyncIterator[list[Entry]]:
        """All entries, in portions."""
        after = "-"
        while True:
            rows: Any = await self._client.xrange(self._stream, min=after, count=PAGE)
            if not rows:
                return
            yield [Entry(entry_id, fields) for entry_id, fields in rows]
            after = f"({rows[-1][0].decode()}"

    async def drop(self, entries: Sequence[Entry]) -> None:
        """Let there be none of these, whoever works on them."""
        ids = [entry.id for entry in entries]
        if not ids:
            return
        async with self._client.pipeline(transaction=False) as pipeline:
            if self._group:
                # First: what is acknowledged and there still is found again, what is pending and gone is not.
                pipeline.xack(self._stream, self._group, *ids)
            pipeline.xdel(self._stream, *ids)
            await pipeline.execute()


class DelayedPlace:
    """What waits for its next try, or was put aside."""

    name = "queue"

    def __init__(self, client: Client, lane: Lane) -> None:
        self._client = client
        self._lane = lane
        self._page = Script.load("webhook_consumer", "delayed_page")

    async def pages(self) -> AsyncIterator[list[Entry]]:
        """All entries, in portions; one may come twice."""
        cursor: Any = "0"
        while True:
            cursor, *found = await self._page(self._client, [self._lane.bodies], [cursor, PAGE])
            if found:
                yield [Entry(found[at], fields_of(found[at + 1])) for at in range(0, len(found), 2)]
            if int(cursor) == 0:
                return

    async def drop(self, entries: Sequence[Entry]) -> None:
        """Let there be none of these."""
        if not entries:
            return
        lane, ids = self._lane, [entry.id for entry in entries]
        aside = [f"{entry.tool.replace(UNIT_SEPARATOR, '?')}{UNIT_SEPARATOR}".encode() + entry.id
                 for entry in entries]  # fmt: skip
        async with self._client.pipeline(transaction=False) as pipeline:
            # The content first: whoever finds only its time drops that.
            pipeline.hdel(lane.bodies, *ids)
            pipeline.zrem(lane.delayed, *ids)
            pipeline.zrem(lane.parked, *aside)
            pipeline.zrem(lane.arrivals, *ids)
            await pipeline.execute()


Place = StreamPlace | DelayedPlace


def places_of(client: Client, lanes: Sequence[Lane], quarantine: str) -> list[Place]:
    """Where entries of these stages may be, in the order of their way."""
    places: list[Place] = []
    for lane in lanes:
        places.append(StreamPlace(client, "queue", lane.stream, lane.group))
        places.append(DelayedPlace(client, lane))
    # Behind all queues: what dies meanwhile is found there.
    places += [StreamPlace(client, "dead_letters", lane.dead_letters) for lane in lanes]
    places.append(StreamPlace(client, "quarantine", quarantine))
    return places
