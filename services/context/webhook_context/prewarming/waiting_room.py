"""Contexts that were brought near because of a prediction, until they are used or have waited too long.

All replicas share it; what is taken out is its taker's alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from webhook.context.v1.context_pb2 import Tier
from webhook_shared.redis import Client, Script

from webhook_context.store import keys


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a context waits.

    Attributes:
        rule: That has named it.
        source: Where it lay; equal to `target` where it was only measured.
        target: Where it was brought.
        since_ms: Unix time by Redis' clock.
        version: Of the context then.
        size_bytes: Of the context, as it was moved.
    """

    rule: str
    source: Tier.ValueType
    target: Tier.ValueType
    since_ms: int
    version: int
    size_bytes: int

    @property
    def is_moved(self) -> bool:
        """Whether it lies elsewhere now, not only on paper."""
        return self.source != self.target


class WaitingRoom:
    """Who waits, in Redis. Every method raises REDIS_TROUBLE where that can't be reached."""

    def __init__(self, client: Client, *, most: int, wait_ms: int) -> None:
        """Open it.

        Args:
            client: Of Redis.
            most: Contexts of a tenant that may wait at once.
            wait_ms: How long each does at most.
        """
        self._client = client
        self._most = most
        self._wait_ms = wait_ms
        self._admit, self._take = (
            Script.load("webhook_context", name) for name in ("prewarm_admit", "prewarm_take")
        )

    async def admit(self, tenant: str, context_id: str, waiting: Waiting) -> bool | None:
        """Let a context wait; False where it does already, None where too many do."""
        until_ms = waiting.since_ms + self._wait_ms
        args = [context_id, json.dumps(astuple(waiting)), until_ms, self._most]
        outcome = await self._admit(self._client, _places(tenant), args)
        return None if outcome < 0 else bool(outcome)

    async def take(self, tenant: str, context_ids: Sequence[str]) -> dict[str, Waiting]:
        """Those of these contexts that wait; they do not any more."""
        if not context_ids:
            return {}
        found = await self._take(self._client, _places(tenant), context_ids)
        return {
            context_id.decode(): Waiting(*json.loads(known))
            for context_id, known in zip(found[::2], found[1::2], strict=True)
        }

    async def overdue(self, tenants: Sequence[str], now_ms: int | None) -> dict[str, list[str]]:
        """Context ids by tenant that have waited long enough; with None all that wait."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for tenant in tenants:
                until = "+inf" if now_ms is None else now_ms
                pipeline.zrangebyscore(keys.foreseen_until(tenant), "-inf", until, 0, self._most)
            found: Any = await pipeline.execute()
        return {
            tenant: [one.decode() for one in ids] for tenant, ids in zip(tenants, found, strict=True) if ids
        }

    async def count(self, tenants: Sequence[str]) -> int:
        """How many wait."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for tenant in tenants:
                pipeline.hlen(keys.foreseen(tenant))
            return sum(await pipeline.execute())


def _places(tenant: str) -> list[str]:
    return [keys.foreseen(tenant), keys.foreseen_until(tenant)]
