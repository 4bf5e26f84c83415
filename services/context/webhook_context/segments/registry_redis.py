"""What Redis knows of segments: each from before it is written until it is deleted."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

from webhook_shared.redis import Client, Script

from webhook_context.packs.cold_names import KEYS_SUFFIX, SEGMENT, ColdNames
from webhook_context.store import keys
from webhook_context.store.tiers_redis import Claim, Timing


class Standing(IntEnum):
    """How a context stands to a member of a segment."""

    DEAD = 0
    LIVE = 1
    UNKNOWN = 2
    """Redis has nothing of the context: the member may be all that is left of it."""
    LEAVING = 3
    """It pointed there until a moment ago, and has it forgotten when its grace is over."""
    COMING = 4
    """It is being moved, maybe there."""


class Origin(StrEnum):
    """How a segment came to be known."""

    WRITTEN = "written"
    RESTORED = "restored"
    """From the cold store; Redis has all that it says."""
    FOUND = "found"
    """From the cold store; it may say what Redis does not have."""


class Renewal(NamedTuple):
    """Keys of a segment that are being made anew.

    Attributes:
        current: The name of the object that counts.
        name: The name of the one that is to replace it.
    """

    current: str
    name: str


@dataclass(frozen=True, slots=True)
class SegmentState:
    """What Redis knows of a segment.

    Attributes:
        size: Of all members that it was written with, bytes.
        live: Of those whose keys are still there, bytes; the rest is dead.
        outcome: Of its writing: "complete", "doomed", or nothing yet; "deleting" in the end.
        origin: How it came to be known.
        keys: The name of the object with the keys of its members.
    """

    size: int
    live: int
    outcome: str
    origin: Origin
    keys: str


class RedisSegments:
    """The segments of all tenants. Every method raises REDIS_TROUBLE where Redis can't be reached."""

    def __init__(self, client: Client, names: ColdNames, timing: Timing) -> None:
        self._client = client
        self._names = names
        self._timing = timing
        self._begin, self._settle, self._keys_begin, self._keys_commit = (
            Script.load("webhook_context", f"segment_{name}")
            for name in ("begin", "settle", "keys_begin", "keys_commit")
        )
        self._claim, self._reschedule, self._standing, self._repoint = (
            Script.load("webhook_context", name)
            for name in ("claim", "reschedule", "member_standing", "repoint")
        )

    def segment_name(self, tenant: str, segment_id: str) -> str:
        """Of the object with the members."""
        return self._names.home(tenant, segment_id) + SEGMENT

    def first_keys_name(self, tenant: str, segment_id: str) -> str:
        """Of the object with the keys that a segment is written with."""
        return f"{self._names.home(tenant, segment_id)}{0:020d}-{secrets.token_hex(16)}{KEYS_SUFFIX}"

    async def note(
        self,
        tenant: str,
        segment_id: str,
        *,
        size: int,
        live: int,
        members: int,
        keys_name: str,
        origin: Origin,
        complete: bool = False,
    ) -> bool:
        """Know a segment; False where it was known."""
        where = [keys.segments(tenant), keys.segment(tenant, segment_id)]
        look_ms = self._timing.drop_after_ms
        args = [segment_id, size, live, members, keys_name, look_ms, origin, int(complete)]
        return bool(await self._begin(self._client, where, args))

    async def settle(self, tenant: str, segment_id: str, outcome: str) -> bool:
        """Say what became of its writing; False where it is not known, or the contrary holds."""
        return bool(await self._settle(self._client, [keys.segment(tenant, segment_id)], [outcome]))

    async def state(self, tenant: str, segment_id: str) -> SegmentState | None:
        """What is known of a segment."""
        fields = ("born", "size", "live", "outcome", "origin", "keys")
        held: Any = await self._client.hmget(keys.segment(tenant, segment_id), *fields)
        if held[0] is None:
            return None
        outcome, origin, keys_name = ((one or b"").decode() for one in held[3:])
        return SegmentState(int(held[1]), int(held[2]), outcome, Origin(origin), keys_name)

    async def known(self, tenant: str) -> list[str]:
        """The ids of all segments of a tenant."""
        found: Any = await self._client.zrange(keys.segments(tenant), 0, -1)
        return [one.decode() for one in found]

    async def renew(self, tenant: str, segment_id: str) -> Renewal | None:
        """Take the lease of a segment's keys; None where somebody else has it.

        Raises:
            LookupError: The segment is not known.
        """
        where = [keys.segment(tenant, segment_id), keys.segment_stale(tenant, segment_id)]
        ends = secrets.token_hex(16) + KEYS_SUFFIX
        timing = [self._timing.lease_ms, self._timing.drop_after_ms]
        outcome, current, name = await self._keys_begin(
            self._client, where, [self._names.home(tenant, segment_id), ends, *timing]
        )
        if outcome == -1:
            raise LookupError(segment_id)
        return Renewal(current.decode(), name.decode()) if outcome == 1 else None

    async def renewed(
        self, tenant: str, segment_id: str, renewal: Renewal, *, live: int, members: int, look_below: float
    ) -> bool:
        """Let the new keys count; False where somebody else has begun anew.

        Args:
            tenant: Whose segment.
            segment_id: Which.
            renewal: What `renew` gave.
            live: Bytes of the members that live.
            members: How many.
            look_below: With fewer live bytes the segment is looked at at once.
        """
        args = [renewal.name, renewal.name, live, members, segment_id, int(look_below)]
        return bool(await self._keys_commit(self._client, self._places(tenant, segment_id), args))

    async def unchanged(self, tenant: str, segment_id: str, renewal: Renewal) -> None:
        """End the lease; the keys of before count."""
        args = ["", renewal.name, 0, 0, segment_id, 0]
        await self._keys_commit(self._client, self._places(tenant, segment_id), args)

    async def stale(self, tenant: str, segment_id: str) -> list[str]:
        """The objects beside a segment that are to be deleted now."""
        key = keys.segment_stale(tenant, segment_id)
        found: Any = await self._client.zrangebyscore(key, "-inf", await self.now_ms())
        return [one.decode() for one in found]

    async def swept(self, tenant: str, segment_id: str, names: Sequence[str]) -> None:
        """Objects beside a segment are deleted."""
        await self._client.zrem(keys.segment_stale(tenant, segment_id), *names)

    async def objects(self, tenant: str, segment_id: str) -> list[str]:
        """Every object that a segment has or may have, the one with the members first."""
        held: Any = await self._client.hmget(keys.segment(tenant, segment_id), "keys", "next")
        stale: Any = await self._client.zrange(keys.segment_stale(tenant, segment_id), 0, -1)
        names = [one.decode() for one in (*held, *stale) if one]
        return [self.segment_name(tenant, segment_id), *names]

    async def remove(self, tenant: str, segment_id: str) -> None:
        """Know nothing of a segment any more: it is deleted."""
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.unlink(keys.segment(tenant, segment_id))
            pipeline.unlink(keys.segment_stale(tenant, segment_id))
            pipeline.zrem(keys.segments(tenant), segment_id)
            await pipeline.execute()

    async def dead_bytes(self, tenant: str) -> int:
        """How much of all segments of a tenant nobody needs any more."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for segment_id in await self.known(tenant):
                pipeline.hmget(keys.segment(tenant, segment_id), "size", "live")
            replies = await pipeline.execute()
        return sum(int(size or 0) - int(live or 0) for size, live in replies)

    async def claim(self, tenant: str, most: int) -> list[Claim]:
        """Lease segments whose time has come."""
        where = [keys.segments(tenant)]
        until_ms, *ids = await self._claim(self._client, where, [most, self._timing.lease_ms])
        return [Claim(tenant, one.decode(), until_ms) for one in ids]

    async def reschedule(self, claim: Claim, in_ms: int) -> None:
        """End a lease: say when to look at the segment next, unless somebody has said so."""
        args = [claim.context_id, claim.until_ms, await self.now_ms() + in_ms]
        await self._reschedule(self._client, [keys.segments(claim.tenant)], args)

    async def standings(self, tenant: str, members: Sequence[tuple[str, str]]) -> list[Standing]:
        """How contexts stand to members, in order: context id and pointer each."""
        drop_after_ms = self._timing.drop_after_ms
        calls = [([keys.context(tenant, one)], [pointer, drop_after_ms]) for one, pointer in members]
        return [Standing(reply) for reply in await self._standing.all(self._client, calls)]

    async def repoint(self, tenant: str, moves: Sequence[tuple[str, str, str]]) -> list[bool]:
        """Let contexts point elsewhere, in order: context id, pointer of before, new one each."""
        calls = [([keys.context(tenant, one)], [before, after]) for one, before, after in moves]
        return [bool(reply) for reply in await self._repoint.all(self._client, calls)]

    async def now_ms(self) -> int:
        """The server's clock, the one that counts; Unix milliseconds."""
        clock: Any = await self._client.time()
        return int(clock[0]) * 1000 + int(clock[1]) // 1000

    def _places(self, tenant: str, segment_id: str) -> list[str]:
        return [
            keys.segment(tenant, segment_id),
            keys.segment_stale(tenant, segment_id),
            keys.segments(tenant),
        ]
