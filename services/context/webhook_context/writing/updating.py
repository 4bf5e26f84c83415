"""Changing and deleting contexts: the write itself, then the list and the stream that follow from it."""

from __future__ import annotations

import structlog
from webhook.context.v1.context_pb2 import Tier
from webhook_shared.coalesce import Coalescer
from webhook_shared.errors import NotFound
from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.redis import Client

from webhook_context.changes.feeds import DELETED, Feeds, Touched
from webhook_context.domain.contexts import Change, Context
from webhook_context.finding.search import Search
from webhook_context.store import keys
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.tiers_redis import RedisTiers
from webhook_context.tiers.transitions import Transitions

log = structlog.get_logger()

TOLD_AT_ONCE = 256
EXCHANGES_AT_ONCE = 3
JOINS_AT = 4.0


class Updating:
    """Compare-and-set writes to single contexts."""

    def __init__(
        self,
        client: Client,
        *,
        store: RedisContexts,
        tiers: RedisTiers,
        transitions: Transitions,
        feeds: Feeds,
        search: Search,
    ) -> None:
        self._client = client
        self._store = store
        self._tiers = tiers
        self._transitions = transitions
        self._feeds = feeds
        self._search = search
        self._told = Coalescer[Context, None](
            self._tell, max_items=TOLD_AT_ONCE, in_flight=EXCHANGES_AT_ONCE, joins_at=JOINS_AT
        )

    async def _tell(self, updated: list[Context]) -> list[None]:
        lists = [("ZADD", keys.index(one.tenant), "GT", one.update_ms, one.context_id) for one in updated]
        await self._feeds.publish([_touched(one) for one in updated], beside=lists)
        return [None] * len(updated)

    async def update(self, change: Change) -> Context:
        """Apply a change; a repeated `request_id` changes nothing more, but heals what a crash left open.

        Raises:
            ServiceError: CONTEXT_NOT_FOUND, ETAG_MISMATCH, CONTEXT_UNREADABLE.
            REDIS_TROUBLE: It may have been applied; repeat it with the same `request_id`.
        """
        updated = await self._store.update(change)
        await self._told.submit(updated)
        self._search.touch(_touched(updated))
        if updated.tier != Tier.TIER_HOT:
            # Its pack is not all there is any more: it rises, and is packed anew in its time.
            await self._tiers.schedule(change.tenant, change.context_id)
        return updated

    async def delete(self, tenant: str, context_id: str, etag: str, *, tombstone_ms: int = 0) -> None:
        """Leave only a tombstone, which refuses late writers; for `tombstone_ms` see the store.

        Raises:
            ServiceError: CONTEXT_NOT_FOUND, ETAG_MISMATCH.
            REDIS_TROUBLE: It may be deleted; where it is, a repetition says CONTEXT_NOT_FOUND.
        """
        try:
            version = await self._store.delete(tenant, context_id, etag, tombstone_ms=tombstone_ms)
            touched = Touched(tenant, context_id, version, DELETED)
        except NotFound:
            # Where the deletion was cut short, it is announced and its objects are dropped now.
            if version := await self._store.tombstone(tenant, context_id):
                await self._feeds.publish([Touched(tenant, context_id, version, DELETED)])
            await self._tiers.schedule(tenant, context_id)
            raise
        await self._tiers.schedule(tenant, context_id)
        await self._client.zrem(keys.index(tenant), context_id)
        await self._feeds.publish([touched])
        self._search.touch(touched)
        try:
            await self._transitions.drop(tenant, context_id)
        except ObjectTrouble as error:
            log.warning("delete.objects_left_for_now", error=str(error))


def _touched(updated: Context) -> Touched:
    return Touched(updated.tenant, updated.context_id, updated.version)
