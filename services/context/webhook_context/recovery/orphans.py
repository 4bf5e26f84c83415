"""Objects in the cold store that nobody needs: found by listing, dropped when that is certain.

Every object has its name in Redis before it exists and until it is deleted, so there are none, unless
Redis forgot: a second of writes in a failover, or everything. Then what nothing points to may be all that is
left of a context. So an object is dropped only if

- nothing has pointed to it for a whole grace, counted in Redis: one that lost everything counts anew;
- and it opens, and its context is deleted, or lies in Redis with every event and edit that the object has,
  and the object that it points to itself is there;
- or its tenant's keys were destroyed, so that nobody can ever open it.

What belongs to a context that Redis does not know, what does not open and what says more than Redis stays
for ever: that is what a restore is for.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Any

import structlog
from pydantic import SecretStr
from webhook_shared.errors import ServiceError
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore
from webhook_shared.redis import Backoff, Client
from webhook_shared.sealing.master_keys import MasterKeys
from webhook_shared.sweeps import my_turn

from webhook_context import metrics
from webhook_context.packs.archive import Archive
from webhook_context.packs.cold_names import ALL, ColdNames, home_of
from webhook_context.recovery.comparison import Standing, compare
from webhook_context.recovery.unsealing import KEYS_DESTROYED, Found, Unsealing, Unusable
from webhook_context.store import keys
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.tiers_redis import RedisTiers
from webhook_context.tiers.inventory import Inventory, KnownNames

log = structlog.get_logger()

MOST_NOTED = 10_000
MOST_JUDGED = 1000
"""In one sweep; the others wait for the next one."""


class Verdict(Enum):
    """What becomes of an object that nothing points to."""

    DROPPED = "dropped"
    NEEDED = "needed"
    """Redis points to it after all, or is about to drop it by itself."""
    UNRESTORED = "unrestored"
    """It says what Redis does not have."""
    UNUSABLE = "unusable"


class Orphans:
    """Looks through the cold store, one replica at a time.

    Args:
        client: Of the Redis that has everything.
        cold: Has the objects.
        names: Of them.
        master_key: Opens the copies of the keys.
        inventory: Lists both sides.
        store: Has the contexts.
        tiers: Knows where they lie.
        archive: Reads packs.
        check_s: How often to look.
        grace_ms: How long an object stays after it was first seen.
    """

    def __init__(
        self,
        client: Client,
        cold: ObjectStore,
        names: ColdNames,
        master_key: MasterKeys | SecretStr,
        *,
        inventory: Inventory,
        store: RedisContexts,
        tiers: RedisTiers,
        archive: Archive,
        check_s: float,
        grace_ms: int,
    ) -> None:
        self._client = client
        self._cold = cold
        self._names = names
        self._master_key = master_key
        self._inventory = inventory
        self._store = store
        self._tiers = tiers
        self._archive = archive
        self._check_s = check_s
        self._grace_ms = grace_ms

    async def run(self) -> None:
        """Look for orphans, through every outage of Redis and of the cold store."""
        backoff = Backoff()
        while True:
            try:
                if await my_turn(self._client, keys.ORPHANS_TURN, self._check_s):
                    await self.sweep()
                backoff.reset()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                log.warning("orphans.interrupted", error=type(error).__name__)
                await backoff.wait()

    async def sweep(self) -> Counter[Verdict]:
        """Look through all objects once; what became of those whose grace is over.

        Raises:
            ObjectTrouble, REDIS_TROUBLE: The rest waits for the next sweep.
        """
        # First what Redis has: an object that is made while this runs is only noted, and has its grace.
        known = await self._inventory.known(await self._store.tenants())
        unknown = 0
        noted: list[str] = []
        async for group in self._inventory.groups(ALL):
            strangers = _strangers(group, known)
            unknown += len(strangers)
            noted += strangers[: MOST_NOTED - len(noted)]
        metrics.UNKNOWN_OBJECTS.set(unknown)
        verdicts: Counter[Verdict] = Counter()
        for name in await self._ripe(noted):
            verdict = await self._settle(name)
            metrics.ORPHANS.labels(verdict.value).inc()
            verdicts[verdict] += 1
        if unknown:
            counts = {verdict.value: count for verdict, count in verdicts.items()}
            log.warning("orphans.found", unknown=unknown, **counts)
        return verdicts

    async def _ripe(self, noted: list[str]) -> list[str]:
        """Note what was seen, forget what was not; those whose grace is over."""
        seen = set(noted)
        before: Any = await self._client.zrange(keys.ORPHANS, 0, -1)
        gone = [name for name in before if name.decode() not in seen]
        now_ms = await self._tiers.now_ms()
        async with self._client.pipeline(transaction=False) as pipeline:
            if gone:
                pipeline.zrem(keys.ORPHANS, *gone)
            if noted:
                pipeline.zadd(keys.ORPHANS, dict.fromkeys(noted, now_ms), nx=True)
            pipeline.zrangebyscore(keys.ORPHANS, "-inf", now_ms - self._grace_ms, start=0, num=MOST_JUDGED)
            replies = await pipeline.execute()
        return [name.decode() for name in replies[-1]]

    async def _settle(self, name: str) -> Verdict:
        verdict = await (self._segment_verdict(name) if name.endswith("/") else self._verdict(name))
        if verdict is Verdict.DROPPED:
            for one in await self._cold.names(name) if name.endswith("/") else [name]:
                await self._cold.delete(one)
                metrics.COLD_DELETES.inc()
            log.info("orphans.dropped", object=name)
            await self._client.zrem(keys.ORPHANS, name)
        else:
            # The others have their turn; this one is looked at again after another grace.
            await self._client.zadd(keys.ORPHANS, {name: await self._tiers.now_ms()}, xx=True)
        return verdict

    async def _verdict(self, name: str) -> Verdict:
        try:
            return await self._pack_verdict(await self._unsealing().found(name))
        except Unusable as error:
            return Verdict.DROPPED if error.reason == KEYS_DESTROYED else Verdict.UNUSABLE

    async def _segment_verdict(self, home: str) -> Verdict:
        """It goes when none of its members must stay."""
        names = await self._cold.names(home)
        unsealing = self._unsealing()
        try:
            segment = await unsealing.segment(names) if names else None
            if segment is None:
                return Verdict.DROPPED
            if home in await self._inventory.known([segment.tenant]):
                return Verdict.NEEDED
            for member in segment.members:
                verdict = await self._pack_verdict(await unsealing.member(segment, member))
                if verdict is not Verdict.DROPPED:
                    return verdict
        except Unusable as error:
            return Verdict.DROPPED if error.reason == KEYS_DESTROYED else Verdict.UNUSABLE
        return Verdict.DROPPED

    def _unsealing(self) -> Unsealing:
        # Anew for each: what was destroyed or restored meanwhile must show.
        return Unsealing(self._client, self._cold, self._names, self._master_key, restores=False)

    async def _pack_verdict(self, found: Found) -> Verdict:
        pack = found.pack
        if found.pointer in await self._inventory.names_of(pack.tenant, pack.context_id):
            return Verdict.NEEDED
        try:
            held = await compare(self._store, self._tiers, pack)
        except ServiceError:
            return Verdict.UNRESTORED
        if held.standing is Standing.DELETED:
            return Verdict.DROPPED
        if held.standing is not Standing.WHOLE or not await self._lies_there(pack.tenant, pack.context_id):
            return Verdict.UNRESTORED
        return Verdict.DROPPED

    async def _lies_there(self, tenant: str, context_id: str) -> bool:
        """Whether what a context points to is where it should be, intact."""
        (state,) = await self._tiers.states(tenant, [context_id])
        if not state.pointer:
            return state.exists
        at_hand = await self._tiers.get_pack(tenant, context_id, state.pointer)
        try:
            await self._archive.find(at_hand, state.pointer, state.checksum)
        except ObjectMissing:
            return False
        return True


def _strangers(group: list[str], known: KnownNames) -> list[str]:
    """What Redis does not know of a context's objects; of a segment what its objects' names begin with."""
    home = home_of(group[0])
    if home:
        return [] if home in known else [home]
    return [name for name in group if name not in known]
