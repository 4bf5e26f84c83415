"""Erases contexts that have been kept for long enough: by tenant and tool, one replica at a time.

What counts is the last change; pinned and important contexts go as well. The tombstone of such a context
gives way to whatever happens later, and is forgotten itself after a while.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from webhook_shared.errors import Aborted, NotFound
from webhook_shared.redis import Backoff, Client
from webhook_shared.retention import Retention
from webhook_shared.sweeps import my_turn

from webhook_context import metrics
from webhook_context.domain.contexts import etag
from webhook_context.store import keys
from webhook_context.store.contexts_redis import Place, RedisContexts
from webhook_context.store.tiers_redis import RedisTiers
from webhook_context.writing.updating import Updating

log = structlog.get_logger()

LOOKED_AT_ONCE = 256
ERASED_AT_ONCE = 8
TOMBSTONE_MS = int(timedelta(days=30) / timedelta(milliseconds=1))
"""How long what is older than the erasure is refused; nothing is delivered so late."""


class Expiring:
    """Looks for contexts that are due.

    Args:
        client: Of the Redis that has everything.
        store: Has the contexts.
        tiers: Tells the time.
        updating: Deletes contexts.
        retention: How long they are kept.
        every_s: How often to look.
    """

    def __init__(
        self,
        client: Client,
        store: RedisContexts,
        tiers: RedisTiers,
        updating: Updating,
        retention: Retention,
        *,
        every_s: float,
    ) -> None:
        self._client = client
        self._store = store
        self._tiers = tiers
        self._updating = updating
        self._retention = retention
        self._every_s = every_s

    async def run(self) -> None:
        """Look now and then, for as long as it runs, through every outage of Redis."""
        backoff = Backoff()
        while self._retention.shortest_ms():
            try:
                if await my_turn(self._client, keys.RETENTION_TURN, self._every_s):
                    await self.sweep()
                backoff.reset()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is tried again
                log.warning("expiring.interrupted", error=type(error).__name__)
                await backoff.wait()

    async def sweep(self) -> int:
        """Look through all tenants once; how many contexts were erased.

        Raises:
            REDIS_TROUBLE: The rest waits for the next sweep.
        """
        erased = overdue = 0
        for tenant in await self._store.tenants():
            if not (shortest_ms := self._retention.shortest_ms(tenant)):
                continue
            async for places in self._store.oldest(tenant, LOOKED_AT_ONCE):
                now_ms = await self._tiers.now_ms()
                due = await self._due(tenant, places, now_ms)
                for start in range(0, len(due), ERASED_AT_ONCE):
                    portion = due[start : start + ERASED_AT_ONCE]
                    done = await asyncio.gather(*(self._erase(tenant, one) for one in portion))
                    erased, overdue = erased + sum(done), overdue + len(done) - sum(done)
                if places[-1].update_ms + shortest_ms > now_ms:
                    # The others were changed later than that.
                    break
        metrics.RETENTION_OVERDUE.set(overdue)
        if erased:
            log.info("expiring.erased", contexts=erased)
        return erased

    async def _due(self, tenant: str, places: list[Place], now_ms: int) -> list[Place]:
        outsides = await self._store.outsides(tenant, [place.context_id for place in places])
        due = []
        for place, seen in zip(places, outsides, strict=True):
            kept_ms = self._retention.kept_ms(tenant, seen.tool)
            # The list may be behind the context.
            if kept_ms and max(place.update_ms, seen.update_ms) + kept_ms <= now_ms:
                due.append(place)
        return due

    async def _erase(self, tenant: str, place: Place) -> bool:
        """Whether it is gone; where it has been changed meanwhile, it is not due any more."""
        key = keys.context(tenant, place.context_id)
        version, create_ms, updated = await self._client.hmget(key, "version", "created", "updated")
        if version is None or int(updated or 0) > place.update_ms:
            return True
        held = etag(int(version), int(create_ms or 0))
        try:
            await self._updating.delete(tenant, place.context_id, held, tombstone_ms=TOMBSTONE_MS)
        except NotFound:
            return True
        except Aborted:
            return False
        metrics.EXPIRED.inc()
        return True
