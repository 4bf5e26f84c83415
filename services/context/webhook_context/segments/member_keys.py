"""The keys of a segment's members: read, made anew without some of them, deleted with the segment.

```
 forget   lease ─▶ read what counts ─▶ write it without the member ─▶ read back ─▶ commit ─▶ delete the old
```

Each object is named in Redis before it exists and until it is deleted; which one counts says one script.
Nothing is forgotten before the old object is gone. Where it is cut short, the same call goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

import structlog
from webhook.context.v1.pack_pb2 import SegmentKeys
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore, ObjectTrouble
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import KeysDestroyed

from webhook_context import metrics
from webhook_context.packs.cold_names import KEYS_SUFFIX, SEGMENT, home_of
from webhook_context.packs.segment import open_keys, seal_keys
from webhook_context.segments.registry_redis import Origin, RedisSegments, Renewal

log = structlog.get_logger()

LEASE_TRIES, LEASE_WAIT_S = 40, 0.05


@dataclass(slots=True)
class _Line:
    """Those who want members of one segment forgotten: the first one does it for all who wait behind."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    wanted: set[int] = field(default_factory=set)


class MemberKeys:
    """Keeps them.

    Args:
        cold: Has them.
        segments: Knows which object counts.
        keyring: Seals them.
        min_live_ratio: A segment with a smaller share of live bytes is to be looked at.
    """

    def __init__(
        self, cold: ObjectStore, segments: RedisSegments, keyring: Keyring, *, min_live_ratio: float
    ) -> None:
        self._cold = cold
        self._segments = segments
        self._keyring = keyring
        self._min_live_ratio = min_live_ratio
        self._lines: dict[tuple[str, str], _Line] = {}

    async def write(self, name: str, held: SegmentKeys) -> None:
        """Write keys, and make sure that they are there.

        Raises:
            ObjectTrouble: They may not be.
            EnvelopeError: The tenant's keys are gone.
        """
        await self._keyring.prepare([held.tenant])
        sealed = seal_keys(self._keyring, home_of(name), held)
        await self._cold.put(name, sealed)
        try:
            if await self._cold.get(name) == sealed:
                return
        except ObjectMissing:
            pass
        raise ObjectTrouble("NotAsWritten")

    async def read(self, tenant: str, name: str) -> SegmentKeys:
        """Read keys.

        Raises:
            ObjectMissing, ObjectTrouble: They can't be had.
            EnvelopeError: They can't be opened.
        """
        await self._keyring.prepare([tenant])
        return open_keys(self._keyring, home_of(name), await self._cold.get(name))

    async def forget(self, tenant: str, segment_id: str, offsets: Collection[int]) -> None:
        """Let nobody be able to open members any more. Idempotent.

        Args:
            tenant: Whose segment.
            segment_id: Which.
            offsets: Of the members.

        Raises:
            ObjectTrouble: They may not be forgotten; to be repeated.
            EnvelopeError: The keys are damaged.
        """
        line = self._lines.setdefault((tenant, segment_id), _Line())
        line.wanted.update(offsets)
        async with line.turn:
            if line.wanted.isdisjoint(offsets):
                return
            wanted, line.wanted = line.wanted, set()
            try:
                await self._forget(tenant, segment_id, wanted)
            except BaseException:
                line.wanted |= wanted
                raise
            finally:
                if not line.wanted:
                    self._lines.pop((tenant, segment_id), None)

    async def delete(self, tenant: str, segment_id: str) -> None:
        """Delete a segment with its keys, whatever is in it.

        Raises:
            ObjectTrouble: Something may be left; to be repeated.
        """
        # Noted first, so that whoever finds half of it goes on.
        await self._segments.settle(tenant, segment_id, "deleting")
        for name in await self._segments.objects(tenant, segment_id):
            await self._cold.delete(name)
            metrics.COLD_DELETES.inc()
        await self._segments.remove(tenant, segment_id)

    async def adopt(self, tenant: str, segment_id: str, origin: Origin) -> bool:
        """Know a segment that lies in the cold store and is not known; False where there is none.

        Args:
            tenant: Whose segment.
            segment_id: Which.
            origin: What is to be known of it.

        Raises:
            ObjectTrouble: It is not known.
            EnvelopeError: Its keys can't be opened.
        """
        whole = self._segments.segment_name(tenant, segment_id)
        home = home_of(whole)
        names = await self._cold.names(home)
        beside = sorted(name for name in names if name.endswith(KEYS_SUFFIX))
        if home + SEGMENT not in names or not beside:
            for name in names:
                await self._cold.delete(name)
            return False
        # Each has the members of the one before it, or fewer.
        held = await self.read(tenant, beside[-1])
        await self._segments.note(
            tenant,
            segment_id,
            size=held.body_bytes,
            live=sum(member.length for member in held.members),
            members=len(held.members),
            keys_name=beside[-1],
            origin=origin,
            complete=True,
        )
        for name in beside[:-1]:
            await self._cold.delete(name)
        return True

    async def _forget(self, tenant: str, segment_id: str, offsets: Collection[int]) -> None:
        renewal = await self._leased(tenant, segment_id)
        if renewal is None:
            return
        try:
            held = await self.read(tenant, renewal.current)
        except KeysDestroyed:
            # None of it can be opened by anybody.
            await self.delete(tenant, segment_id)
            return
        except ObjectMissing:
            state = await self._segments.state(tenant, segment_id)
            if state is not None and state.outcome == "deleting":
                await self.delete(tenant, segment_id)
                return
            log.error("segment.keys_missing", segment=segment_id)
            held = SegmentKeys()
        before = len(held.members)
        left = [member for member in held.members if member.offset not in offsets]
        del held.members[:]
        held.members.extend(left)
        if len(left) == before:
            await self._segments.unchanged(tenant, segment_id, renewal)
        elif not left:
            await self.delete(tenant, segment_id)
            return
        else:
            await self._renew(tenant, segment_id, renewal, held)
            metrics.MEMBERS_FORGOTTEN.inc(before - len(left))
        await self.sweep(tenant, segment_id)

    async def _renew(self, tenant: str, segment_id: str, renewal: Renewal, held: SegmentKeys) -> None:
        await self.write(renewal.name, held)
        done = await self._segments.renewed(
            tenant,
            segment_id,
            renewal,
            live=sum(member.length for member in held.members),
            members=len(held.members),
            look_below=held.body_bytes * self._min_live_ratio,
        )
        if not done:
            raise ObjectTrouble("SegmentBusy")

    async def sweep(self, tenant: str, segment_id: str) -> None:
        """Delete what does not count any more of the keys.

        Raises:
            ObjectTrouble: Something may be left; to be repeated.
        """
        names = await self._segments.stale(tenant, segment_id)
        for name in names:
            await self._cold.delete(name)
        if names:
            await self._segments.swept(tenant, segment_id, names)

    async def _leased(self, tenant: str, segment_id: str) -> Renewal | None:
        """The lease; None where there is no such segment."""
        for _ in range(LEASE_TRIES):
            try:
                if renewal := await self._segments.renew(tenant, segment_id):
                    return renewal
            except LookupError:
                if not await self.adopt(tenant, segment_id, Origin.FOUND):
                    return None
                continue
            await asyncio.sleep(LEASE_WAIT_S)
        raise ObjectTrouble("SegmentBusy")
