"""Forgetting what was made of a tenant's texts: vectors, answers of chat models, what prediction learned.

A cache knows a text by its digest, and nobody can tell whom it is about. So all that a tenant has in the
caches goes, whatever of it is to be forgotten; what is needed again is made again.
"""

from __future__ import annotations

from dataclasses import dataclass

from webhook_shared.redis import Client
from webhook_shared.redis.scanning import keys_like

from webhook_intelligence.embeddings import cache
from webhook_intelligence.keyspace import Keyspace
from webhook_intelligence.prediction.prewarming import forget_model
from webhook_intelligence.summaries import cache as summary_cache

VECTORS, SUMMARIES, PREDICTIONS = "vectors", "summaries", "predictions"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of one place.

    Attributes:
        erased: Of what was found; 0 in a dry run.
    """

    place: str
    found: int
    erased: int


class Forgetting:
    """Forgets when told to.

    Args:
        client: Where the caches are.
        shared: Whether tenants share vectors: then nobody knows whose they are, and all go.
    """

    def __init__(self, client: Client, *, shared: bool) -> None:
        self._client = client
        self._shared = shared

    async def carry_out(self, tenant: str, *, dry_run: bool) -> list[Forgotten]:
        """Forget what was made of a tenant's texts.

        Raises:
            REDIS_TROUBLE: Some may be left; to be repeated.
        """
        return [
            await self._drop(VECTORS, cache.KEYS, "" if self._shared else tenant, dry_run=dry_run),
            await self._drop(SUMMARIES, summary_cache.KEYS, tenant, dry_run=dry_run),
            await self._unlearn(tenant, dry_run=dry_run),
        ]

    async def _drop(self, place: str, names: Keyspace, tenant: str, *, dry_run: bool) -> Forgotten:
        found = 0
        # What does not tell whose it is may be the tenant's.
        for pattern in (names.of(tenant), names.of_former_times):
            async for keys in keys_like(self._client, pattern):
                mine = [key for key in keys if names.has(key)]
                found += len(mine)
                if mine and not dry_run:
                    await self._client.unlink(*mine)
        return Forgotten(place, found, 0 if dry_run else found)

    async def _unlearn(self, tenant: str, *, dry_run: bool) -> Forgotten:
        found = await forget_model(self._client, tenant, dry_run=dry_run)
        return Forgotten(PREDICTIONS, found, 0 if dry_run else found)
