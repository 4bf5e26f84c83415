"""Small packs on their way into the cold store: gathered, written together, told where they lie.

```
 coming ─▶ packed ─▶ arrived ──── all who were coming are here, or it is full, or it lingered long enough
                                    ─▶ note ─▶ keys ─▶ members ─▶ read back, verify ─▶ complete ─▶ pointers
```

The segment is known to Redis before anything of it exists. Until it is complete nobody points to it, and
whoever finds it unfinished dooms it: then it can't become complete any more. What a pointer names counts only
once the context's own commit says so; members to which no context ever points are found and dropped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

from webhook.context.v1.pack_pb2 import SegmentKeys
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore, ObjectTrouble

from webhook_context import metrics
from webhook_context.packs.cold_names import ColdNames
from webhook_context.packs.segment import MOST_MEMBERS, Built, Packable, Place, build, place_of
from webhook_context.segments.member_keys import MemberKeys
from webhook_context.segments.registry_redis import Origin, RedisSegments

_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """`webhook.context_segments` in the units of the store.

    Attributes:
        size: Of a segment, bytes; 0 for none at all.
        largest: Of a pack that goes into one, bytes.
        fewest: Packs in one.
        linger_s: How long a pack waits for others at most.
        min_live_ratio: A segment with a smaller share of live bytes is rewritten.
        forget_ms: How often keys of members that nobody needs are dropped.
    """

    size: int
    largest: int
    fewest: int
    linger_s: float
    min_live_ratio: float
    forget_ms: int


class Writer:
    """Writes segments, crash-safe.

    Args:
        cold: Where they go.
        names: Of objects.
        segments: Knows them.
        member_keys: Keeps the keys of their members.
    """

    def __init__(
        self, cold: ObjectStore, names: ColdNames, segments: RedisSegments, member_keys: MemberKeys
    ) -> None:
        self._cold = cold
        self._names = names
        self._segments = segments
        self._member_keys = member_keys

    def packable(self, tenant: str, context_id: str, sealed: bytes) -> Packable:
        """A pack that is to go into a segment."""
        return Packable(context_id, self._names.digest(tenant, context_id), sealed)

    async def write(
        self, tenant: str, packs: Sequence[Packable], origin: Origin = Origin.WRITTEN
    ) -> list[Place]:
        """Write one segment; where each of the packs lies in it, in order.

        Raises:
            ObjectTrouble: It may be there, and nobody is to point to it.
            EnvelopeError: The tenant's keys are gone.
            REDIS_TROUBLE: The same.
        """
        segment_id = os.urandom(_ID_BYTES).hex()
        name = self._segments.segment_name(tenant, segment_id)
        built = await asyncio.to_thread(build, name, packs)
        size = sum(member.length for member in built.members)
        keys_name = self._segments.first_keys_name(tenant, segment_id)
        await self._segments.note(
            tenant, segment_id, size=size, live=size, members=len(packs), keys_name=keys_name, origin=origin
        )
        # The keys first: a segment without any would puzzle those who list the store.
        held = SegmentKeys(tenant=tenant, members=built.members, body_bytes=size)
        await self._member_keys.write(keys_name, held)
        await self._put(name, built)
        if not await self._segments.settle(tenant, segment_id, "complete"):
            raise ObjectTrouble("SegmentDoomed")
        metrics.SEGMENTS.labels("written").inc()
        metrics.SEGMENT_MEMBERS.inc(len(packs))
        return [place_of(name, member) for member in built.members]

    async def _put(self, name: str, built: Built) -> None:
        await self._cold.put(name, built.content)
        try:
            if await self._cold.get(name) == built.content:
                return
        except ObjectMissing:
            pass
        raise ObjectTrouble("NotAsWritten")


@dataclass(slots=True)
class _Gathering:
    """The packs of one tenant that wait, and how many more are on their way."""

    coming: int = 0
    size: int = 0
    packs: list[Packable] = field(default_factory=list)
    waiting: list[asyncio.Future[Place | None]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class Segments:
    """Gathers packs into segments."""

    def __init__(self, writer: Writer, limits: Limits) -> None:
        self._writer = writer
        self._limits = limits
        self._gatherings: dict[str, _Gathering] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def is_small(self, sealed: bytes) -> bool:
        """Whether a pack may share an object with others."""
        return bool(self._limits.size) and len(sealed) <= self._limits.largest

    def coming(self, tenant: str) -> Coming:
        """A context is on its way to the cold store while inside, and others wait for it."""
        return Coming(self, tenant)

    def expect(self, tenant: str) -> None:
        """One more is on its way."""
        self._gatherings.setdefault(tenant, _Gathering()).coming += 1

    def expect_no_more(self, tenant: str) -> None:
        """One of those on their way is here, or does not come."""
        gathering = self._gatherings[tenant]
        gathering.coming -= 1
        if not gathering.coming:
            self._close(tenant)

    def arrive(self, tenant: str, context_id: str, sealed: bytes) -> asyncio.Future[Place | None]:
        """A pack is here: it is told where it lies, once it does. See `Coming.arrive`."""
        pack = self._writer.packable(tenant, context_id, sealed)
        gathering = self._gatherings[tenant]
        if gathering.packs and gathering.size + pack.length > self._limits.size:
            self._close(tenant)
            gathering = self._gatherings[tenant]
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Place | None] = loop.create_future()
        gathering.packs.append(pack)
        gathering.waiting.append(told)
        gathering.size += pack.length
        if gathering.timer is None:
            gathering.timer = loop.call_later(self._limits.linger_s, self._close, tenant)
        if len(gathering.packs) >= MOST_MEMBERS:
            self._close(tenant)
        return told

    def _close(self, tenant: str) -> None:
        """Let what is here go; those who are still on their way come to the next gathering."""
        gathering = self._gatherings.pop(tenant)
        if gathering.timer is not None:
            gathering.timer.cancel()
        if gathering.coming:
            self._gatherings[tenant] = _Gathering(coming=gathering.coming)
        if gathering.packs:
            task = asyncio.create_task(self._write(tenant, gathering))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)

    async def _write(self, tenant: str, gathering: _Gathering) -> None:
        places: Sequence[Place | None] = [None] * len(gathering.packs)
        waiting = [told for told in gathering.waiting if not told.done()]
        try:
            if len(waiting) >= self._limits.fewest:
                places = await self._writer.write(tenant, gathering.packs)
        except Exception as error:  # noqa: BLE001  # it belongs to those who wait
            for told in waiting:
                if not told.done():
                    told.set_exception(error)
            return
        for told, place in zip(gathering.waiting, places, strict=True):
            if not told.done():
                told.set_result(place)


class Coming:
    """A context on its way to the cold store."""

    def __init__(self, segments: Segments, tenant: str) -> None:
        self._segments = segments
        self._tenant = tenant
        self._expected = False

    def __enter__(self) -> Self:
        """It is expected from here on."""
        self._segments.expect(self._tenant)
        self._expected = True
        return self

    def __exit__(self, *_: object) -> None:
        """It is not expected any more."""
        self.leave()

    async def arrive(self, context_id: str, sealed: bytes) -> Place | None:
        """Where its pack lies now; None where it has found no company, and is to be an object of its own.

        Raises:
            ObjectTrouble, EnvelopeError, REDIS_TROUBLE: It is nowhere that counts.
        """
        told = self._segments.arrive(self._tenant, context_id, sealed)
        self.leave()
        return await told

    def leave(self) -> None:
        """Let nobody wait for it any more."""
        if self._expected:
            self._expected = False
            self._segments.expect_no_more(self._tenant)


def portions(packs: Sequence[Packable], size: int) -> Iterator[list[Packable]]:
    """Packs in portions that fit into segments of a size, in order."""
    portion: list[Packable] = []
    total = 0
    for pack in packs:
        if portion and (total + pack.length > size or len(portion) == MOST_MEMBERS):
            yield portion
            portion, total = [], 0
        portion.append(pack)
        total += pack.length
    if portion:
        yield portion
