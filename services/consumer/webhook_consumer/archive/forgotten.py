"""What must not be kept any more: notes that the archiver reads before it writes."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from webhook_shared.redis import Client

from webhook_consumer.archive.events import Archived

KEY = "archive:{webhook-archive}:forgotten"
"""HASH: "tenant:<tenant>" or "event:<tenant>:<id>", and when it was said, Unix milliseconds."""


class Forgotten:
    """The notes. Every method raises REDIS_TROUBLE where Redis can't be reached."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def note(self, tenant: str, event_ids: Collection[str] | None) -> int:
        """Note that these events of a tenant, or all that it has had until now, are to be forgotten.

        Returns:
            Now, Unix milliseconds.
        """
        now_ms = int(time.time() * 1000)
        names = [f"tenant:{tenant}"] if event_ids is None else [_event(tenant, one) for one in event_ids]
        if names:
            await self._client.hset(KEY, mapping=dict.fromkeys(names, now_ms))
        return now_ms

    async def without(self, events: Sequence[Archived]) -> list[Archived]:
        """Those of these events that may be kept."""
        notes: Any = await self._client.hgetall(KEY)
        if not notes:
            return list(events)
        noted = {name.decode(): int(when) for name, when in notes.items()}
        return [event for event in events if not _is_noted(event, noted)]

    async def expire(self, before_ms: int) -> None:
        """Drop notes older than this: whatever they speak of is gone by then."""
        notes: Any = await self._client.hgetall(KEY)
        old = [name for name, when in notes.items() if int(when) < before_ms]
        if old:
            await self._client.hdel(KEY, *old)


def _event(tenant: str, event_id: str) -> str:
    return f"event:{tenant}:{event_id}"


def _is_noted(event: Archived, noted: dict[str, int]) -> bool:
    # What the tenant sends after it was forgotten is another matter.
    return (
        event.received_ms <= noted.get(f"tenant:{event.tenant}", -1)
        or _event(event.tenant, event.event_id) in noted
    )
