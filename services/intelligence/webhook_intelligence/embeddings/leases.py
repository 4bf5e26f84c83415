"""Who of several replicas asks the provider for a text: the one with the lease, for all others.

The others find the vector in the cache. A lease runs out soon after its holder has died, and one of those
that wait takes over. What is lost with a lease is a call at most, never a vector.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from webhook_shared.redis import Client, RedisError, Script
from webhook_shared.tasks import ended

LEASE_S = 3.0
RENEW_EVERY_S = 1.0
PATIENCE_S = 0.25

_RELEASE = Script.load("webhook_intelligence", "release")


class Leases:
    """The right to ask for what a cache key stands for."""

    def __init__(self, client: Client, *, lease_s: float = LEASE_S) -> None:
        self._client = client
        self._lease_ms = int(lease_s * 1000)
        self._renew_every_s = min(RENEW_EVERY_S, lease_s / 3)
        self._token = secrets.token_hex(16)

    async def take(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are now ours; all of them while Redis is away."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.set(_lease(key), self._token, nx=True, px=self._lease_ms)
                taken = await pipeline.execute()
        except (RedisError, OSError):
            return set(keys)
        return {key for key, is_ours in zip(keys, taken, strict=True) if is_ours}

    @asynccontextmanager
    async def held(self, keys: Collection[str]) -> AsyncIterator[None]:
        """Keep leases that were taken alive while inside, and give them back on leaving."""
        names = [_lease(key) for key in keys]
        renewal = asyncio.create_task(self._renew(names))
        try:
            yield
        finally:
            await ended([renewal])
            await self._run(names, 0)

    async def _renew(self, names: list[str]) -> None:
        while True:
            await asyncio.sleep(self._renew_every_s)
            await self._run(names, self._lease_ms)

    async def _run(self, names: list[str], last_ms: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await _RELEASE.batch(self._client, [([name], [self._token, last_ms]) for name in names])
        except (RedisError, OSError):
            return  # they run out


def _lease(key: str) -> str:
    return f"{key}:asked"
