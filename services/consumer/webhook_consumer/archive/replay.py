"""Queues archived events once more.

Every event of a replay is a new entry of the stream with the event's own id and the replay's. The event's id
keeps it from having its effect twice in a context that has it; the replay's id, the nonce, keeps one replay
from queueing it twice, however often it is repeated, and lets it bring back a deleted context once.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson
from webhook_shared.errors import FailedPrecondition
from webhook_shared.partitions import Partitions
from webhook_shared.redis import Client, Script
from webhook_shared.telemetry import log

from webhook_consumer.archive import metrics
from webhook_consumer.archive.events import Archived
from webhook_consumer.archive.search import Catalogue, Found, Wanted

MOST_AT_ONCE, MOST_BYTES_AT_ONCE = 100, 2**20
MOST_PER_SECOND = 100_000
# For as long as this a replay that was cut short can be taken up again.
REMEMBERED_MS = 7 * 86_400_000


class ReplayDiffers(FailedPrecondition):
    """A replay's id is used again for something else."""

    def __init__(self, replay_id: str) -> None:
        super().__init__(
            "REPLAY_DIFFERS", "this replay_id began with another filter: use a new one", replay_id=replay_id
        )


@dataclass(frozen=True, slots=True)
class Order:
    """What to replay.

    Attributes:
        replay_id: Names the replay; the same order may be given again under it.
        wanted: Which events.
        per_second: Most events queued in a second.
        most: Most events in all; None: no limit.
    """

    replay_id: str
    wanted: Wanted
    per_second: int
    most: int | None = None

    def digest(self) -> str:
        """Tells orders apart."""
        wanted = self.wanted
        facts = [wanted.event_id, wanted.tool, wanted.type, wanted.tenant, wanted.from_ms, wanted.until_ms]
        return hashlib.sha256(orjson.dumps([*facts, self.most])).hexdigest()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is: events found, queued, and passed over since it had queued them before."""

    found: int = 0
    queued: int = 0
    skipped: int = 0


class _Event(NamedTuple):
    found: Found
    sealed: bytes


class Replays:
    """Carries out replays.

    Args:
        client: Where the streams are.
        catalogue: Finds the events.
        partitions: The streams.
    """

    def __init__(self, client: Client, catalogue: Catalogue, partitions: Partitions) -> None:
        self._client = client
        self._catalogue = catalogue
        self._partitions = partitions
        self._begin = Script.load("webhook_consumer", "replay_begin")
        self._add = Script.load("webhook_consumer", "replay_add")

    async def run(self, order: Order) -> AsyncIterator[Progress]:
        """Queue events, the oldest first; tells after each portion how far it is.

        Ended and begun again, it goes on where it stopped.

        Raises:
            ReplayDiffers: The replay began with another filter.
            ObjectTrouble: The archive can't be reached.
            REDIS_TROUBLE: Redis can't be; some may have been queued.
            Unreadable: A segment is damaged.
        """
        wanted = await self._begun(order)
        progress = Progress()
        started_s = time.monotonic()
        portions = self._events(wanted, most=order.most, per_portion=min(MOST_AT_ONCE, order.per_second))
        async for events in portions:
            queued = await self._queue(order.replay_id, events)
            metrics.replayed.inc(queued)
            progress = Progress(
                progress.found + len(events),
                progress.queued + queued,
                progress.skipped + len(events) - queued,
            )
            yield progress
            ahead_s = progress.queued / order.per_second - (time.monotonic() - started_s)
            if queued and ahead_s > 0:
                await asyncio.sleep(ahead_s)
        log.info("replay.ended", replay_id=order.replay_id, queued=progress.queued, skipped=progress.skipped)
        yield progress

    async def look(self, order: Order) -> AsyncIterator[list[Archived]]:
        """The events that a replay would queue, by portions. Writes nothing."""
        async for events in self._events(order.wanted, most=order.most, per_portion=MOST_AT_ONCE):
            yield [_archived(event) for event in events]

    async def _begun(self, order: Order) -> Wanted:
        until_ms = min(order.wanted.until_ms, int(time.time() * 1000) + 1)
        key = f"replay:{{{self._partitions.streams[0]}}}:{order.replay_id}"
        asked, held_until_ms = await self._begin(
            self._client, [key], [order.digest(), until_ms, REMEMBERED_MS]
        )
        if asked.decode() != order.digest():
            raise ReplayDiffers(order.replay_id)
        # What comes later is not part of it, however often it is taken up.
        return replace(order.wanted, until_ms=int(held_until_ms))

    async def _events(
        self, wanted: Wanted, *, most: int | None, per_portion: int
    ) -> AsyncIterator[list[_Event]]:
        left = most
        async for portion in self._catalogue.portions(wanted):
            found = portion.events if left is None else portion.events[:left]
            for some in _cut(found, per_portion):
                events = [
                    _Event(one, sealed)
                    for one in some
                    if (sealed := await self._catalogue.sealed(one)) is not None
                ]
                if events:
                    yield events
            if left is not None:
                left -= len(found)
                if left == 0:
                    return

    async def _queue(self, replay_id: str, events: Sequence[_Event]) -> int:
        by_stream: dict[str, list[_Event]] = {}
        for event in events:
            row = event.found.row
            by_stream.setdefault(self._partitions.stream_of(row.tenant, row.tool), []).append(event)
        calls = [
            (
                [stream, f"replay:{{{stream}}}:{replay_id}:reached"],
                [replay_id, REMEMBERED_MS, *_arguments(some)],
            )
            for stream, some in by_stream.items()
        ]
        return sum(map(int, await self._add.all(self._client, calls)))


def _arguments(events: Sequence[_Event]) -> Iterator[Any]:
    for event in events:
        fields = _archived(event).fields()
        yield event.found.position
        yield 2 * len(fields)
        for name, value in fields.items():
            yield name
            yield value


def _archived(event: _Event) -> Archived:
    return Archived(*event.found.row[:7], event.sealed)


def _cut(found: Sequence[Found], most: int) -> Iterator[list[Found]]:
    """In order, at most so many at once and not much more than MOST_BYTES_AT_ONCE."""
    portion: list[Found] = []
    size = 0
    for one in found:
        portion.append(one)
        size += one.row.length
        if len(portion) == most or size >= MOST_BYTES_AT_ONCE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
