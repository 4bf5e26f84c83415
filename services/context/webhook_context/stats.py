"""How much is kept, and where: counted at that moment, context by context."""

from __future__ import annotations

from webhook.context.v1 import context_admin_service_pb2 as pb
from webhook.context.v1.context_pb2 import Tier

from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.tiers_redis import RedisTiers
from webhook_context.writing.quotas import Quotas


class Stats:
    """Counts contexts: about two seconds per 100,000."""

    def __init__(self, store: RedisContexts, tiers: RedisTiers, quotas: Quotas) -> None:
        self._store = store
        self._tiers = tiers
        self._quotas = quotas

    async def of(self, tenant: str) -> pb.TenantStats:
        """What there is of a tenant."""
        stats = pb.TenantStats(tenant=tenant)
        tiers = {tier: stats.tiers.add(tier=tier) for tier in (Tier.TIER_HOT, Tier.TIER_WARM, Tier.TIER_COLD)}
        oldest_ms = 0
        async for versions in self._store.versions(tenant):
            for outside in await self._store.outsides(tenant, list(versions)):
                if outside.deleted:
                    continue
                stats.context_count += 1
                stats.indexed_count += outside.has_vector
                stats.dirty_count += outside.dirty
                tiers[outside.tier].context_count += 1
                tiers[outside.tier].stored_bytes += outside.lies_bytes
                tiers[outside.tier].content_bytes += outside.content_bytes
                oldest_ms = min(oldest_ms or outside.update_ms, outside.update_ms)
        (due,) = await self._tiers.due([tenant])
        stats.due_count = due.contexts
        stats.oldest_due_age.FromMilliseconds(due.age_ms)
        if oldest_ms:
            stats.oldest_update_time.FromMilliseconds(oldest_ms)
        limits, use = self._quotas.limits(tenant), await self._quotas.use(tenant)
        stats.quota.max_context_count, stats.quota.max_bytes = limits
        stats.quota.used_bytes = use.bytes
        return stats
