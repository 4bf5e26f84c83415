"""Refused deliveries, sealed and bounded, in Redis.

Each source has the same share of the room, so that a flood at one can't push out what another one needs; what
was signed right has a share of its own beside what was not. Per share, all keys in one slot: an index by
time, the facts, the deliveries that can be judged again, their bytes, and what was accepted on a retry.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import structlog
from webhook.security.v1.admission_pb2 import Delivery
from webhook.security.v1.rejection_pb2 import Rejection
from webhook_shared.redis import Client, Script
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import EnvelopeError

from webhook_security import metrics
from webhook_security.refusals import Refusal
from webhook_security.settings import DEFAULT_TENANT, RejectionsSection

log = structlog.get_logger()

FACTS, DELIVERY = "rejection", "refused-delivery"
"""What a sealed part is bound to, beside its id."""

PROVED = frozenset({Refusal.TIMESTAMP_EXPIRED, Refusal.TIMESTAMP_AHEAD, Refusal.RATE, Refusal.EVENT_TYPE})
"""Causes for which only who holds a secret is refused."""


class Room(NamedTuple):
    """What has its own share.

    Attributes:
        tenant: Of the source.
        tool: Of the source; empty for what has none.
        proved: For what was signed right, which a flood of forgeries must not push out.
    """

    tenant: str
    tool: str
    proved: bool


NOWHERE = Room(DEFAULT_TENANT, "", proved=False)
"""Where refused deliveries are kept that no source stands behind."""

_LARGEST_SHARE = 4
"""A delivery larger than the fourth part of its source's room is not kept; the facts of it are."""


_LARGE_BYTES = 64 * 2**10


class Kept(NamedTuple):
    """A refused delivery on its way into the store.

    Attributes:
        room: What it takes room of.
        rejection_id: A UUIDv7.
        cause: Why it was refused.
        received_ms: Unix time.
        facts: A `Rejection`, serialised.
        delivery: A `Delivery`, serialised; empty where it need not be judged again.
    """

    room: Room
    rejection_id: str
    cause: Refusal
    received_ms: int
    facts: bytes
    delivery: bytes


class Found(NamedTuple):
    """A place in an index."""

    received_ms: int
    rejection_id: str
    cause: int
    room: Room


class Refused(NamedTuple):
    """A delivery to be judged again.

    Attributes:
        rejection: The facts.
        delivery: As it came; None where it is not kept.
    """

    rejection: Rejection
    delivery: Delivery | None


class RejectionStore:
    """What was refused, in one Redis.

    Args:
        client: Where.
        keyring: Seals each under its tenant's key.
        settings: How much is kept.
        sources: Tenant and tool of those that there are now.
        clock: Unix seconds.
    """

    def __init__(
        self,
        client: Client,
        keyring: Keyring,
        settings: RejectionsSection,
        sources: Callable[[], Iterable[tuple[str, str]]],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client, self._keyring, self._settings, self._clock = client, keyring, settings, clock
        self._sources = sources
        self._keep = Script.load("webhook_security", "rejections_keep")
        self._settle = Script.load("webhook_security", "rejections_settle")
        self._age_ms = int(settings.max_age.total_seconds() * 1000)

    def rooms(self) -> list[Room]:
        """Two of every source, and one of what has none."""
        return [NOWHERE, *(Room(*source, proved) for source in self._sources() for proved in (False, True))]

    @property
    def largest_delivery_bytes(self) -> int:
        """A larger one is not kept."""
        return self._settings.max_bytes // len(self.rooms()) // _LARGEST_SHARE

    async def keep(self, entries: Sequence[Kept]) -> None:
        """Keep these; one round trip.

        Raises:
            REDIS_TROUBLE, RedisError: Nothing is sure to be kept; the same entries may be given again.
        """
        entries_by_room: dict[Room, list[Kept]] = defaultdict(list)
        for entry in entries:
            entries_by_room[entry.room].append(entry)
        shares = len(self.rooms())
        limits = (
            max(1, self._settings.max_count // shares),
            self._settings.max_bytes // shares,
            self._age_ms,
            int(self._clock() * 1000),
        )
        calls = [
            (keys_of(room), [*limits, *sealed])
            for room, waiting in entries_by_room.items()
            if (sealed := await self._sealed(room.tenant, waiting))
        ]
        for reply in await self._keep.batch(self._client, calls) if calls else ():
            if isinstance(reply, BaseException):
                raise reply
        metrics.rejections_kept.inc(len(entries))

    async def _sealed(self, tenant: str, entries: Sequence[Kept]) -> list[str | int | bytes]:
        try:
            await self._keyring.prepare([tenant])
        except EnvelopeError as error:
            # The tenant was erased: nothing of it is to be kept.
            log.warning("rejections.not_kept", tenant=tenant, error=type(error).__name__)
            return []
        sealed: list[str | int | bytes] = []
        for entry in entries:
            facts = self._keyring.seal(tenant, entry.facts, FACTS, entry.rejection_id)
            delivery = b""
            if entry.delivery:
                delivery = self._keyring.seal(tenant, entry.delivery, DELIVERY, entry.rejection_id)
            sealed += [entry.rejection_id, entry.received_ms, int(entry.cause), facts, delivery]
            if len(entry.delivery) > _LARGE_BYTES:
                # Sealing is computing: those who wait for a verdict go first.
                await asyncio.sleep(0)
        return sealed

    async def find(
        self, rooms: Iterable[Room], *, cause: int = 0, since_ms: int = 0, retryable_only: bool = False
    ) -> list[Found]:
        """Those of these sources, newest first; their number is bounded by what is kept.

        Args:
            rooms: Where to look.
            cause: A `Refusal`; 0 means any.
            since_ms: Unix time.
            retryable_only: Only those whose delivery is kept.
        """
        rooms = list(rooms)
        earliest_ms = max(since_ms, int(self._clock() * 1000) - self._age_ms)
        async with self._client.pipeline(transaction=False) as pipeline:
            for room in rooms:
                index, _, deliveries, _, _ = keys_of(room)
                pipeline.zrangebyscore(index, earliest_ms, "+inf", withscores=True)
                if retryable_only:
                    pipeline.hkeys(deliveries)
            replies = iter(await pipeline.execute())
        found = []
        for room in rooms:
            members = next(replies)
            wanted = {name.decode() for name in next(replies)} if retryable_only else None
            for member, score in members:
                rejection_id, _, number = member.decode().partition(" ")
                if cause in (0, int(number)) and (wanted is None or rejection_id in wanted):
                    found.append(Found(int(score), rejection_id, int(number), room))
        return sorted(found, reverse=True)

    async def rejections(self, found: Sequence[Found]) -> list[Rejection]:
        """The facts of these; what has gone meanwhile, or can't be opened, is left out."""
        by_room: dict[Room, list[str]] = defaultdict(list)
        for place in found:
            by_room[place.room].append(place.rejection_id)
        told = {
            refused.rejection.rejection_id: refused.rejection
            for room, ids in by_room.items()
            for refused in await self._read([room], ids, with_deliveries=False)
        }
        return [told[place.rejection_id] for place in found if place.rejection_id in told]

    async def deliveries(self, rooms: Iterable[Room], ids: Sequence[str]) -> dict[str, Refused]:
        """What is kept under these ids in these sources, by id."""
        found = await self._read(list(rooms), ids, with_deliveries=True)
        return {refused.rejection.rejection_id: refused for refused in found}

    async def _read(
        self, rooms: Sequence[Room], ids: Sequence[str], *, with_deliveries: bool
    ) -> list[Refused]:
        if not ids:
            return []
        async with self._client.pipeline(transaction=False) as pipeline:
            for room in rooms:
                _, facts, deliveries, _, settled = keys_of(room)
                pipeline.hmget(facts, ids)
                pipeline.hmget(settled, ids)
                if with_deliveries:
                    pipeline.hmget(deliveries, ids)
                else:
                    for rejection_id in ids:
                        pipeline.hexists(deliveries, rejection_id)
            replies = iter(await pipeline.execute())
        read: list[Refused] = []
        for tenant, _, _ in rooms:
            facts, settled = next(replies), next(replies)
            kept = next(replies) if with_deliveries else [next(replies) for _ in ids]
            there = [parts for parts in zip(ids, facts, settled, kept, strict=True) if parts[1] is not None]
            opened = [await self._opened(tenant, *parts) for parts in there]
            read += [refused for refused in opened if refused]
        return read

    async def _opened(
        self, tenant: str, rejection_id: str, facts: bytes, settled: bytes | None, kept: bytes | bool | None
    ) -> Refused | None:
        delivery = None
        try:
            await self._keyring.prepare([tenant])
            rejection = Rejection.FromString(self._keyring.open(tenant, facts, FACTS, rejection_id))
            if isinstance(kept, bytes):
                delivery = Delivery.FromString(self._keyring.open(tenant, kept, DELIVERY, rejection_id))
        except EnvelopeError as error:
            log.warning("rejections.not_opened", tenant=tenant, error=type(error).__name__)
            return None
        rejection.retryable = bool(kept)
        rejection.event_id = (settled or b"").decode()
        return Refused(rejection, delivery)

    async def settle(self, settled: Iterable[tuple[str, str]]) -> None:
        """Let go of deliveries that were accepted: pairs of rejection id and event id."""
        pairs = list(settled)
        calls = []
        for room, (rejection_id, event_id) in ((room, pair) for room in self.rooms() for pair in pairs):
            _, facts, deliveries, bytes_, accepted = keys_of(room)
            calls.append(((facts, deliveries, bytes_, accepted), (rejection_id, event_id, self._age_ms)))
        for reply in await self._settle.batch(self._client, calls) if calls else ():
            if isinstance(reply, BaseException):
                raise reply


def keys_of(room: Room) -> tuple[str, str, str, str, str]:
    """Where a share lies: its index, the facts, the deliveries, their bytes, what was accepted on a retry."""
    # Names of routes hold neither braces nor slashes.
    index = f"rejections:{{{room.tenant}/{room.tool}}}{':proved' if room.proved else ''}"
    return index, f"{index}:facts", f"{index}:deliveries", f"{index}:bytes", f"{index}:accepted"
