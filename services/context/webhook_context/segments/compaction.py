"""Segments looked after: members that nobody points to are dropped, what is left is moved together.

```
 look     lease ─▶ read the keys ─▶ how does each context stand to its member? ─▶ forget the dead
 rewrite  read the segment, verify ─▶ write the live ones into a new one ─▶ each context points there (compare
          and set) ─▶ (grace) ─▶ nobody points to the old one: it is deleted
```

Readers and writers go on meanwhile: who has read the old pointer finds the old bytes until the grace is over,
and then reads the context once more. A segment that was never finished is doomed first, so that whoever was
writing it can't finish it any more. A member of whose context Redis has nothing is never dropped: a restore
may need it.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog
from webhook.context.v1.pack_pb2 import SegmentKeys, SegmentMember
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore, ObjectTrouble
from webhook_shared.redis import REDIS_TROUBLE, Backoff
from webhook_shared.sealing.errors import EnvelopeError, KeysDestroyed

from webhook_context import metrics
from webhook_context.packs.cold_names import home_of, segment_id_of
from webhook_context.packs.packing import checksum
from webhook_context.packs.segment import Packable, Place, place_of
from webhook_context.segments.gathering import Limits, Writer, portions
from webhook_context.segments.member_keys import MemberKeys
from webhook_context.segments.registry_redis import Origin, RedisSegments, SegmentState, Standing
from webhook_context.store.tiers_redis import Claim

log = structlog.get_logger()

LOOKED_AT_ONCE = 4
"""Segments of a tenant, of which each may be held in memory; what lives in them is moved together."""
REST_MS = 24 * 3600 * 1000
"""When to look again at a segment that needs nothing."""
RETRY_MS = 600_000
SIZE_WITHOUT_LIMIT = 8 * 2**20
"""Of rewritten segments where no new ones are wanted."""

_Source = tuple[str, Sequence[SegmentMember]]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A segment, and how contexts stand to the members whose keys are there."""

    name: str
    state: SegmentState
    members: Sequence[tuple[SegmentMember, Standing]]

    @property
    def live(self) -> list[SegmentMember]:
        """What contexts point to."""
        return [member for member, standing in self.members if standing is Standing.LIVE]

    @property
    def needed(self) -> list[SegmentMember]:
        """What must not be lost."""
        gone = {Standing.LEAVING} if self.state.origin is Origin.FOUND else {Standing.LEAVING, Standing.DEAD}
        return [member for member, standing in self.members if standing not in gone]

    def has(self, standing: Standing) -> bool:
        """Whether any context stands so to its member."""
        return any(one is standing for _, one in self.members)


class Compaction:
    """Looks after segments.

    Args:
        cold: Has them.
        segments: Knows them.
        member_keys: Keeps their keys.
        writer: Writes new ones.
        limits: Say when.
        grace_ms: How long the old one stays once everything has moved out of it.
        check_s: How often to look for what is to be done.
        tenants: Those who may have segments.
    """

    def __init__(
        self,
        cold: ObjectStore,
        segments: RedisSegments,
        member_keys: MemberKeys,
        writer: Writer,
        limits: Limits,
        *,
        grace_ms: int,
        check_s: float,
        tenants: Callable[[], Awaitable[Iterable[str]]],
    ) -> None:
        self._cold = cold
        self._segments = segments
        self._member_keys = member_keys
        self._writer = writer
        self._limits = limits
        self._grace_ms = grace_ms
        self._check_s = check_s
        self._tenants = tenants

    async def run(self) -> None:
        """Look after them, through every outage of Redis and of the cold store."""
        backoff = Backoff()
        while True:
            try:
                await asyncio.sleep(self._check_s * random.uniform(0.8, 1.2))  # noqa: S311  # spreads load
                while await self.look():
                    pass
                backoff.reset()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                log.warning("compaction.interrupted", error=type(error).__name__)
                await backoff.wait()

    async def look(self) -> int:
        """Do what is due now, a few segments of each tenant; how many were looked at.

        Raises:
            REDIS_TROUBLE: What was leased comes back when the lease is over.
        """
        looked = dead_bytes = 0
        for tenant in await self._tenants():
            claims = await self._segments.claim(tenant, LOOKED_AT_ONCE)
            await self._look(tenant, claims)
            looked += len(claims)
            dead_bytes += await self._segments.dead_bytes(tenant)
        metrics.SEGMENT_DEAD_BYTES.set(dead_bytes)
        return looked

    async def rewrite(self, tenant: str, segment_ids: Sequence[str]) -> None:
        """Leave nothing of these segments: what they must keep moves, and they are deleted without a grace.

        Raises:
            ObjectTrouble: Some of it may be left; to be repeated.
            REDIS_TROUBLE: The same.
        """
        for segment_id in segment_ids:
            try:
                await self._rewrite(tenant, segment_id)
            except (ObjectMissing, EnvelopeError) as error:
                raise ObjectTrouble(type(error).__name__) from None

    async def _rewrite(self, tenant: str, segment_id: str) -> None:
        kept = await self._kept(tenant, segment_id)
        if kept is None:
            return
        if kept.has(Standing.COMING):
            raise ObjectTrouble("SegmentBusy")
        await self._move(tenant, [(kept.name, kept.needed)], kept.state.origin)
        standings = await self._standings(tenant, kept.name, kept.needed)
        if Standing.LIVE in standings or Standing.COMING in standings:
            raise ObjectTrouble("SegmentBusy")
        await self._member_keys.delete(tenant, segment_id)

    async def _look(self, tenant: str, claims: Sequence[Claim]) -> None:
        """What is to be moved is moved together, so that small remains become large segments."""
        sparse: list[tuple[Claim, _Kept]] = []
        for claim in claims:
            try:
                kept = await self._kept(tenant, claim.context_id)
                if kept is not None and self._is_sparse(kept):
                    sparse.append((claim, kept))
                    continue
                await self._segments.reschedule(claim, REST_MS)
            except REDIS_TROUBLE:
                raise
            except Exception as error:  # noqa: BLE001  # one that can't be looked at holds up no other
                await self._later(claim, error)
        if not sparse:
            return
        try:
            await self._move(tenant, [(kept.name, kept.live) for _, kept in sparse])
        except REDIS_TROUBLE:
            raise
        except Exception as error:  # noqa: BLE001  # the same
            for claim, _ in sparse:
                await self._later(claim, error)
            return
        for claim, _ in sparse:
            await self._segments.reschedule(claim, self._grace_ms)

    async def _later(self, claim: Claim, error: Exception) -> None:
        log.warning("compaction.failed", segment=claim.context_id, error=type(error).__name__)
        await self._segments.reschedule(claim, RETRY_MS)

    def _is_sparse(self, kept: _Kept) -> bool:
        if kept.state.origin is Origin.FOUND or kept.has(Standing.UNKNOWN) or kept.has(Standing.COMING):
            return False
        live_bytes = sum(member.length for member in kept.live)
        return live_bytes < kept.state.size * self._limits.min_live_ratio

    async def _kept(self, tenant: str, segment_id: str) -> _Kept | None:
        """What of a segment lives, once the dead are forgotten; None where there is nothing to look at."""
        state = await self._segments.state(tenant, segment_id)
        if state is None:
            await self._segments.remove(tenant, segment_id)
            return None
        if state.outcome == "deleting":
            await self._member_keys.delete(tenant, segment_id)
            return None
        if state.outcome != "complete" and not await self._is_complete(tenant, segment_id, state):
            return None
        try:
            held = await self._member_keys.read(tenant, state.keys)
        except KeysDestroyed:
            await self._member_keys.delete(tenant, segment_id)
            return None
        await self._member_keys.sweep(tenant, segment_id)
        return await self._living(tenant, segment_id, state, held)

    async def _is_complete(self, tenant: str, segment_id: str, state: SegmentState) -> bool:
        doomed_before = state.outcome == "doomed"
        if not doomed_before and not await self._segments.settle(tenant, segment_id, "doomed"):
            return True
        for name in await self._segments.objects(tenant, segment_id):
            await self._cold.delete(name)
        if doomed_before:
            # Whoever wrote it has long ended.
            await self._segments.remove(tenant, segment_id)
        return False

    async def _standings(self, tenant: str, name: str, members: Sequence[SegmentMember]) -> list[Standing]:
        asked = [(member.context_id, place_of(name, member).pointer) for member in members]
        return await self._segments.standings(tenant, asked)

    async def _living(
        self, tenant: str, segment_id: str, state: SegmentState, held: SegmentKeys
    ) -> _Kept | None:
        name = self._segments.segment_name(tenant, segment_id)
        standings = await self._standings(tenant, name, held.members)
        members = list(zip(held.members, standings, strict=True))
        if state.origin is not Origin.FOUND:
            dead = {member.offset for member, standing in members if standing is Standing.DEAD}
            if dead:
                await self._member_keys.forget(tenant, segment_id, dead)
            members = [one for one in members if one[1] is not Standing.DEAD]
        return _Kept(name, state, members) if members else None

    async def _move(self, tenant: str, sources: Sequence[_Source], origin: Origin = Origin.WRITTEN) -> None:
        """Copy members of segments, and let the contexts point to the copies."""
        copies: list[tuple[Packable, Place]] = []
        for name, members in sources:
            content = await self._cold.get(name)
            copies += [self._copy(tenant, place_of(name, member), content, member) for member in members]
        places = iter([place for _, place in copies])
        for portion in portions([pack for pack, _ in copies], self._limits.size or SIZE_WITHOUT_LIMIT):
            written = await self._writer.write(tenant, portion, origin)
            await self._repoint(tenant, [(*one, next(places)) for one in zip(portion, written, strict=True)])
        metrics.SEGMENTS.labels("rewritten").inc(len(sources))

    def _copy(
        self, tenant: str, lies: Place, content: bytes, member: SegmentMember
    ) -> tuple[Packable, Place]:
        sealed = lies.content(content[lies.offset : lies.offset + lies.length])
        if checksum(sealed) != member.checksum:
            raise ObjectTrouble("Damaged")
        return self._writer.packable(tenant, member.context_id, sealed), lies

    async def _repoint(self, tenant: str, moves: Sequence[tuple[Packable, Place, Place]]) -> None:
        done = await self._segments.repoint(
            tenant, [(pack.context_id, before.pointer, after.pointer) for pack, after, before in moves]
        )
        # Who was deleted or has moved meanwhile must not have a readable copy left.
        missed = [(pack, after) for (pack, after, _), moved in zip(moves, done, strict=True) if not moved]
        asked = [(pack.context_id, after.pointer) for pack, after in missed]
        dead = defaultdict(set)
        for (_, after), standing in zip(missed, await self._segments.standings(tenant, asked), strict=True):
            if standing is Standing.DEAD:
                dead[segment_id_of(home_of(after.segment))].add(after.offset)
        for segment_id, offsets in dead.items():
            await self._member_keys.forget(tenant, segment_id, offsets)
