"""Finding archived events: in segments by their indexes, and among those that still wait."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from webhook_consumer.archive.events import Archived, Chunk, Damaged
from webhook_consumer.archive.segments import Row, Segment, Segments, day_of
from webhook_consumer.archive.waiting import Waiting, WaitingChunk

# How many indexes one page looks at, whatever the filter leaves of them.
MOST_INDEXES = 32
FOREVER_MS = 10**13 - 1
# Between the making of an event's id and the time at which it says it was received.
ID_LEEWAY_MS = 10 * 60 * 1000

Position = str
"""Of an event among all: its time, then its id and tenant; in the order of their bytes."""
START: Position = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events; empty fields admit all.

    Attributes:
        from_ms: Received not earlier, Unix milliseconds...
        until_ms: ...and earlier than this.
        may_see: Which tenants' events may be told of at all.
    """

    event_id: str = ""
    tool: str = ""
    type: str = ""
    tenant: str = ""
    from_ms: int = 0
    until_ms: int = FOREVER_MS
    may_see: Callable[[str], bool] = lambda _: True

    def admits(self, event: Row | Archived) -> bool:
        """Whether this is one of them."""
        return (
            self.from_ms <= event.received_ms < self.until_ms
            and self.event_id in ("", event.event_id)
            and self.tool in ("", event.tool)
            and self.type in ("", event.type)
            and self.tenant in ("", event.tenant)
            and self.may_see(event.tenant)
        )

    def span_ms(self) -> tuple[int, int]:
        """When they were received, as far as it can be told; the second is not included."""
        made_ms = _made_ms(self.event_id)
        if made_ms is None:
            return self.from_ms, self.until_ms
        # The id of an event tells when it was made: one day's indexes are looked at, not all.
        return max(self.from_ms, made_ms - ID_LEEWAY_MS), min(self.until_ms, made_ms + ID_LEEWAY_MS)


class Found(NamedTuple):
    """An archived event and where it is: in a segment, or in a chunk that waits.

    Attributes:
        segment: None where it waits.
        chunk_id: Empty where it is in a segment.
    """

    row: Row
    segment: Segment | None
    chunk_id: bytes

    @property
    def position(self) -> Position:
        """Among all events."""
        row = self.row
        return f"{row.received_ms:013d} {row.event_id} {row.tenant}"


class Portion(NamedTuple):
    """Some events in order; none that has yet to come stands before `horizon`, the position it reaches to."""

    events: list[Found]
    horizon: Position


@dataclass(frozen=True, slots=True)
class Page:
    """Some events, newest first; `token` is empty at the end."""

    events: list[Found]
    token: str


class Catalogue:
    """All archived events.

    Every method raises ObjectTrouble, REDIS_TROUBLE or Unreadable where not all can be seen: an answer is
    whole or there is none.
    """

    def __init__(self, segments: Segments, waiting: Waiting) -> None:
        self._segments = segments
        self._waiting = waiting
        self._latest: WaitingChunk | None = None

    async def page(self, wanted: Wanted, size: int, token: str) -> Page:
        """At most `size` events, newest first. May be short, even empty, with more to come.

        Raises:
            ValueError: The token is not one of ours.
        """
        before = _position(token)
        if before:
            wanted = replace(wanted, until_ms=min(wanted.until_ms, _ms(before) + 1))
        events: list[Found] = []
        looked = 0
        async for portion in self.portions(wanted, newest_first=True):
            events += [found for found in portion.events if not before or found.position < before]
            if len(events) > size:
                return Page(events[:size], _token(events[size - 1].position))
            looked += 1
            # Segments that overlap must all be read before anything of them can be told.
            if looked >= MOST_INDEXES and (not before or portion.horizon < before):
                return Page(events, _token(portion.horizon))
        return Page(events, "")

    async def find(self, event_id: str, may_see: Callable[[str], bool]) -> Found | None:
        """One of them, the newest of that id."""
        wanted = Wanted(event_id=event_id, may_see=may_see)
        async for portion in self.portions(wanted, newest_first=True):
            if portion.events:
                return portion.events[0]
        return None

    async def sealed(self, found: Found) -> bytes | None:
        """The sealed event; None where it has been deleted meanwhile."""
        if found.segment is not None:
            return await self._segments.sealed(found.segment, found.row)
        one = await self._chunk(found.chunk_id)
        if one is not None:
            return one.chunk.data[found.row.offset : found.row.offset + found.row.length]
        # It has been written into a segment since.
        row = found.row
        here = Wanted(
            event_id=row.event_id,
            tenant=row.tenant,
            from_ms=row.received_ms,
            until_ms=row.received_ms + 1,
        )
        async for portion in self._in_segments(here, {}, newest_first=True):
            for again in portion.events:
                if again.segment is not None:
                    return await self._segments.sealed(again.segment, again.row)
        return None

    async def _chunk(self, chunk_id: bytes) -> WaitingChunk | None:
        # Events are asked for in order, and a chunk has hundreds.
        if self._latest is None or self._latest.id != chunk_id:
            self._latest = await self._waiting.find(chunk_id)
        return self._latest

    async def portions(
        self, wanted: Wanted, *, after: Position = START, newest_first: bool = False
    ) -> AsyncIterator[Portion]:
        """All that is wanted, each event once, as far as it was archived by now.

        Args:
            wanted: Which.
            after: Only those behind this position; goes with the oldest first.
            newest_first: The other way round.
        """
        if after:
            wanted = replace(wanted, from_ms=max(wanted.from_ms, _ms(after)))
        # Before the segments: what is written into one meanwhile is seen in both, and told once.
        waiting = await self._in_waiting(wanted)
        async for portion in self._in_segments(wanted, waiting, newest_first=newest_first):
            yield portion._replace(events=[found for found in portion.events if found.position > after])

    async def _in_segments(
        self, wanted: Wanted, waiting: dict[str, list[Found]], *, newest_first: bool
    ) -> AsyncIterator[Portion]:
        from_ms, until_ms = wanted.span_ms()
        first, last = day_of(from_ms), day_of(until_ms - 1)
        days = {day async for day in self._segments.days()} | waiting.keys()
        for day in sorted((day for day in days if first <= day <= last), reverse=newest_first):
            segments = [
                segment
                for segment in await self._segments.of_day(day)
                if segment.first_ms < until_ms and segment.last_ms >= from_ms
            ]
            merged = self._merged(wanted, segments, waiting.get(day, []), newest_first=newest_first)
            async for portion in merged:
                yield portion

    async def _merged(
        self, wanted: Wanted, segments: list[Segment], waiting: list[Found], *, newest_first: bool
    ) -> AsyncIterator[Portion]:
        """The events of one day. One is told as soon as no index that is yet to be read can precede it."""
        segments.sort(key=lambda one: one.last_ms if newest_first else one.first_ms, reverse=newest_first)
        held = {found.position: found for found in waiting}
        for at, segment in enumerate(segments):
            for row in await self._segments.index(segment):
                if wanted.admits(row):
                    found = Found(row, segment, b"")
                    held[found.position] = found
            following = segments[at + 1 :]
            if following:
                # Positions of one millisecond begin alike: the bound falls before or behind all of them.
                horizon = _at(following[0].last_ms + 1 if newest_first else following[0].first_ms)
                ready = [one for one in held if (one >= horizon) == newest_first]
                yield Portion([held.pop(one) for one in sorted(ready, reverse=newest_first)], horizon)
        rest = sorted(held, reverse=newest_first)
        # At the end of the day, for a list that goes on in the day before.
        ends = [one.first_ms for one in segments] + [found.row.received_ms for found in waiting]
        yield Portion([held[one] for one in rest], _at(min(ends, default=0)))

    async def _in_waiting(self, wanted: Wanted) -> dict[str, list[Found]]:
        by_day: dict[str, list[Found]] = {}
        after = b""
        while page := await self._waiting.page(after):
            for one in page:
                for row in await asyncio.to_thread(_rows, one.chunk):
                    if wanted.admits(row):
                        by_day.setdefault(day_of(row.received_ms), []).append(Found(row, None, one.id))
            after = page[-1].id
        return by_day


def _rows(chunk: Chunk) -> list[Row]:
    try:
        pairs = zip(chunk.events(), chunk.offsets(), strict=True)
        return [Row(*event[:-1], offset, len(event.sealed), 0) for event, offset in pairs]
    except Damaged:
        return []


def _made_ms(event_id: str) -> int | None:
    """When an id was made, Unix milliseconds; None where it does not tell."""
    try:
        parsed = uuid.UUID(event_id)
    except ValueError:
        return None
    return parsed.int >> 80 if parsed.version == 7 else None


def _at(ms: int) -> Position:
    return f"{ms:013d}"


def _ms(position: Position) -> int:
    return int(position[:13])


def _token(position: Position) -> str:
    return base64.urlsafe_b64encode(position.encode()).decode()


def _position(token: str) -> Position:
    try:
        position = base64.urlsafe_b64decode(token.encode()).decode()
    except ValueError:
        position = "?"
    if position and not position[:13].isdigit():
        raise ValueError("not a page token of this list")
    return position
