"""Segments: many archived events in one object, and an index of them in another.

A segment is there as soon as its index is, and gone as soon as its index is: events are written first and
deleted last. Names are made once, so nothing is ever replaced. Both objects are sealed under a key that
follows from the master key, and bound to their names; the events in them are sealed for their tenants
beside that. A name tells no more than times and sizes.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import orjson
from pydantic import SecretStr
from webhook_shared.objects.protocol import MOST_NAMES, ObjectMissing, ObjectStore, ObjectTrouble
from webhook_shared.sealing.master_keys import MasterKeyMissing, MasterKeys, Purpose, opened

from webhook_consumer.archive.events import Archived

ROOT = "archive/v1/"
INDEX, EVENTS = f"{ROOT}index/", f"{ROOT}events/"
FORMAT = 1
DAY_MS = 86_400_000
OPENED_SEGMENTS = 2
_MAGIC = b"WHA2"
"""The id of the master key follows, 8 bytes."""
_MAGIC_OF_THE_FIRST = b"WHA1"
"""Sealed under the first master key; no id follows."""
_HEAD_BYTES = len(_MAGIC) + 8
_STEM = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)/(?P<first>\d{13})-(?P<last>\d{13})-(?P<written>\d{13})"
    r"-(?P<count>\d+)-(?P<size>\d+)-[0-9a-f]{16}"
)


class Unreadable(Exception):
    """An object is not what was written."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment, as its name tells of it.

    Attributes:
        stem: What follows INDEX and EVENTS in the names of its two objects.
        first_ms: When its oldest event was received, Unix milliseconds; all of one day (UTC).
        last_ms: When its newest was.
        written_ms: When it was written, from which retention counts.
        count: How many events it has.
        size_bytes: Of these, sealed.
    """

    stem: str
    first_ms: int
    last_ms: int
    written_ms: int
    count: int
    size_bytes: int

    @classmethod
    def named(cls, stem: str) -> Segment | None:
        """The segment of a name; None where it is none of ours."""
        match = _STEM.fullmatch(stem)
        if match is None:
            return None
        numbers = (int(match[name]) for name in ("first", "last", "written", "count", "size"))
        return cls(stem, *numbers)

    @property
    def day(self) -> str:
        """Of its events: "2026-11-23"."""
        return self.stem.partition("/")[0]


class Row(NamedTuple):
    """What the index has of an event.

    Attributes:
        offset: Of the sealed event in the segment; its length and CRC-32 follow.
    """

    event_id: str
    tenant: str
    tool: str
    type: str
    received_ms: int
    schema: str
    traceparent: str
    offset: int
    length: int
    checksum: int


def day_of(ms: int) -> str:
    """The day (UTC) of a time: "2026-11-23"."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


class Segments:
    """All segments. Every method raises ObjectTrouble where the store can't be reached.

    Args:
        store: Where they lie.
        master_key: Seals them; one, or all that there are.
    """

    def __init__(self, store: ObjectStore, master_key: MasterKeys | SecretStr) -> None:
        self._store = store
        self._master_keys = MasterKeys.of(master_key)
        self._opened: OrderedDict[str, bytes] = OrderedDict()

    async def prepare(self) -> None:
        """Show that the store takes objects, and make its directory where it is one."""
        await self._store.put(f"{ROOT}format", str(FORMAT).encode())

    async def write(self, events: Sequence[Archived], *, written_ms: int | None = None) -> list[Segment]:
        """Make events durable, verified by reading them back; one segment for each day of theirs.

        Args:
            events: Each once.
            written_ms: What retention counts from; None: now.
        """
        when_ms = int(time.time() * 1000) if written_ms is None else written_ms
        return [await self._write_day(group, when_ms) for group in await asyncio.to_thread(_by_day, events)]

    async def _write_day(self, events: Sequence[Archived], written_ms: int) -> Segment:
        index, content = await asyncio.to_thread(_laid_out, events)
        first, last = events[0].received_ms, events[-1].received_ms
        times = "-".join(f"{ms:013d}" for ms in (first, last, written_ms))
        stem = f"{day_of(first)}/{times}-{len(events)}-{len(content)}-{secrets.token_hex(8)}"
        await self._put(EVENTS + stem, content)
        await self._put(INDEX + stem, index)
        return Segment(stem, first, last, written_ms, len(events), len(content))

    async def _put(self, name: str, content: bytes) -> None:
        sealed = await asyncio.to_thread(self._seal, name, content)
        await self._store.put(name, sealed)
        try:
            intact = await self._store.get(name) == sealed
        except ObjectMissing:
            intact = False
        if not intact:
            raise ObjectTrouble("NotAsWritten")

    async def days(self) -> AsyncIterator[str]:
        """The days of which there are events, the oldest first."""
        after = INDEX
        while found := await self._store.names(INDEX, after=after, most=1):
            day = found[0].removeprefix(INDEX).partition("/")[0]
            yield day
            # Behind every name of that day.
            after = f"{INDEX}{day}0"

    async def of_day(self, day: str) -> list[Segment]:
        """The segments of a day, by the time of their oldest event."""
        return [segment async for segment in self._listed(f"{INDEX}{day}/", INDEX)]

    async def all(self) -> AsyncIterator[Segment]:
        """Every segment, by day."""
        async for segment in self._listed(INDEX, INDEX):
            yield segment

    async def leftovers(self) -> AsyncIterator[Segment]:
        """Events without an index: of a write or a deletion that did not come to its end, or is under way."""
        indexed = self.all()
        index = await anext(indexed, None)
        # Both lists are in the same order: one pass over them, whatever their length.
        async for events in self._listed(EVENTS, EVENTS):
            while index is not None and index.stem < events.stem:
                index = await anext(indexed, None)
            if index is None or index.stem != events.stem:
                yield events

    async def _listed(self, prefix: str, root: str) -> AsyncIterator[Segment]:
        after = ""
        while True:
            names = await self._store.names(prefix, after=after)
            for name in names:
                segment = Segment.named(name.removeprefix(root))
                if segment is not None:
                    yield segment
            if len(names) < MOST_NAMES:
                return
            after = names[-1]

    async def index(self, segment: Segment) -> list[Row]:
        """What a segment has, the oldest first; nothing where it has been deleted meanwhile.

        Raises:
            Unreadable: The index is damaged.
        """
        name = INDEX + segment.stem
        try:
            sealed = await self._store.get(name)
        except ObjectMissing:
            return []
        return await asyncio.to_thread(lambda: _unpacked(self._open(name, sealed)))

    async def sealed(self, segment: Segment, row: Row) -> bytes | None:
        """An event of a segment, sealed for its tenant; None where it has been deleted meanwhile.

        Raises:
            Unreadable: The segment is damaged.
        """
        content = await self._content(segment)
        if content is None:
            return None
        found = content[row.offset : row.offset + row.length]
        if len(found) != row.length or zlib.crc32(found) != row.checksum:
            raise Unreadable(segment.stem)
        return found

    async def _content(self, segment: Segment) -> bytes | None:
        name = EVENTS + segment.stem
        if name in self._opened:
            self._opened.move_to_end(name)
            return self._opened[name]
        try:
            sealed = await self._store.get(name)
        except ObjectMissing:
            return None
        content = await asyncio.to_thread(self._open, name, sealed)
        self._opened[name] = content
        while len(self._opened) > OPENED_SEGMENTS:
            self._opened.popitem(last=False)
        return content

    async def keep_only(self, segment: Segment, rows: Sequence[Row]) -> None:
        """Let nothing but these of its events stay of a segment; retention counts from when it did.

        Raises:
            Unreadable: The segment is damaged.
        """
        events = []
        for row in rows:
            sealed = await self.sealed(segment, row)
            if sealed is None:
                return  # Somebody else has rewritten or expired it meanwhile.
            events.append(Archived(*row[:7], sealed))
        await self.write(events, written_ms=segment.written_ms)
        await self.delete(segment)

    async def delete(self, segment: Segment) -> None:
        """Let there be no such segment."""
        self._opened.pop(EVENTS + segment.stem, None)
        await self._store.delete(INDEX + segment.stem)
        await self._store.delete(EVENTS + segment.stem)

    def _seal(self, name: str, content: bytes) -> bytes:
        try:
            master_key = self._master_keys.sealing
        except MasterKeyMissing as error:
            # Whatever it was to be stays where it waits until the key is here.
            raise ObjectTrouble(str(error)) from None
        head = _MAGIC + bytes.fromhex(master_key.id)
        return head + master_key.seal(Purpose.ARCHIVE, content, name.encode())

    def _open(self, name: str, sealed: bytes) -> bytes:
        if sealed.startswith(_MAGIC_OF_THE_FIRST):
            key_id, body = self._master_keys.origin, sealed[len(_MAGIC_OF_THE_FIRST) :]
        else:
            key_id, body = sealed[len(_MAGIC) : _HEAD_BYTES].hex(), sealed[_HEAD_BYTES:]
        if not sealed.startswith((_MAGIC, _MAGIC_OF_THE_FIRST)):
            raise Unreadable(name)
        try:
            content = opened(self._master_keys.subkey(key_id, Purpose.ARCHIVE), body, name.encode())
        except MasterKeyMissing as error:
            raise Unreadable(f"{name}: {error}") from None
        if content is None:
            raise Unreadable(name)
        return content


def _by_day(events: Sequence[Archived]) -> list[list[Archived]]:
    days: dict[int, list[Archived]] = {}
    for event in sorted(events, key=lambda event: event.received_ms):
        days.setdefault(event.received_ms // DAY_MS, []).append(event)
    return list(days.values())


def _laid_out(events: Sequence[Archived]) -> tuple[bytes, bytes]:
    """The index of a segment, and its events."""
    rows, offset = [], 0
    for event in events:
        length = len(event.sealed)
        # As a Row, but plain: one is made for every event that is ever processed.
        rows.append((*event[:-1], offset, length, zlib.crc32(event.sealed)))
        offset += length
    # Ids and times differ in few places, so the quickest level does most of it.
    index = zlib.compress(orjson.dumps({"format": FORMAT, "events": rows}), 1)
    return index, b"".join([event.sealed for event in events])


def _unpacked(content: bytes) -> list[Row]:
    plain = orjson.loads(zlib.decompress(content))
    if plain.get("format") != FORMAT:
        raise Unreadable(f"index format {plain.get('format')}")
    return [Row(*row) for row in plain["events"]]
