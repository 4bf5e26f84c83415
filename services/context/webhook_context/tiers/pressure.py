"""Moves contexts down before Redis is full."""

from __future__ import annotations

import asyncio

import structlog
from webhook.context.v1.context_pb2 import Tier
from webhook_shared.redis import Backoff, Client
from webhook_shared.sweeps import takes

from webhook_context import metrics
from webhook_context.store import keys
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.tiers.forcing import Forcing, Order
from webhook_context.tiers.memory import Memory

log = structlog.get_logger()

LEASE_S = 60


class Pressure:
    """Watches the memory of Redis; above the high-water mark it makes room down to the low one.

    The longest unchanged go first: to warm, and when that is not enough, to cold. What is pinned or
    important stays.
    """

    def __init__(
        self,
        client: Client,
        store: RedisContexts,
        forcing: Forcing,
        memory: Memory,
        *,
        high_ratio: float,
        check_s: float,
    ) -> None:
        self._client = client
        self._store = store
        self._forcing = forcing
        self._memory = memory
        self._high_ratio = high_ratio
        self._check_s = check_s

    async def run(self) -> None:
        """Watch, through every outage of Redis."""
        backoff = Backoff()
        while True:
            try:
                await self.look()
                await asyncio.sleep(self._check_s)
                backoff.reset()
            except Exception as error:  # noqa: BLE001  # whatever it is, the watching goes on
                log.warning("pressure.interrupted", error=type(error).__name__)
                await backoff.wait()

    async def look(self) -> int:
        """Make room if there must be; how many contexts moved.

        Raises:
            REDIS_TROUBLE: Nothing is known.
        """
        fill = await self._memory.fill()
        metrics.MEMORY_RATIO.set(fill.ratio)
        if fill.ratio < self._high_ratio or not await takes(self._client, keys.PRESSURE, LEASE_S):
            return 0
        log.warning("pressure.begins", used_bytes=fill.used, limit_bytes=fill.limit)
        moved = 0
        for target in (Tier.TIER_WARM, Tier.TIER_COLD):
            moved += await self._make_room(target)
        fill = await self._memory.fill()
        log.warning("pressure.ends", moved=moved, used_bytes=fill.used, relieved=await self._memory.is_low())
        await self._client.delete(keys.PRESSURE)
        return moved

    async def _make_room(self, target: Tier.ValueType) -> int:
        order = Order(await self._store.tenants(), target, until_low=True, at_once=True)
        moved = 0
        async for progress in self._forcing.carry_out(order):
            moved = progress.moved
            # As long as it moves, it is ours.
            await self._client.expire(keys.PRESSURE, LEASE_S)
        return moved
