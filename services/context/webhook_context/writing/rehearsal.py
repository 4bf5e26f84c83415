"""What appends would do, told without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from webhook.context.v1.context_pb2 import ContextEvent
from webhook.context.v1.context_service_pb2 import Append
from webhook_shared.errors import ServiceError

from webhook_context.domain.contexts import Appended, Context, Entry
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import RedisContexts

MOST_COMPARED = 1000
"""Of a context's newest events; what is older is taken for unchanged."""

_Where = tuple[str, str]


class Rehearsal:
    """Foresees what would become of events. Writes nothing, and nothing counts as read."""

    def __init__(self, store: RedisContexts) -> None:
        self._store = store

    async def foresee(self, entries: Sequence[Entry]) -> list[Appended | ServiceError]:
        """One result per entry, in order, each as if it came alone.

        Raises:
            REDIS_TROUBLE: The contexts can't be read.
        """
        results = await self._store.foresee(entries)
        there = [
            (entry.tenant, entry.context_id)
            for entry, result in zip(entries, results, strict=True)
            if isinstance(result, Appended) and result.duplicate
        ]
        held = await self._held(dict.fromkeys(there))
        return [
            replace(result, different=_differs(entry, held.get((entry.tenant, entry.context_id), {})))
            if isinstance(result, Appended)
            else result
            for entry, result in zip(entries, results, strict=True)
        ]

    async def _held(self, places: dict[_Where, None]) -> dict[_Where, dict[str, ContextEvent]]:
        by_tenant: dict[str, list[str]] = {}
        for tenant, context_id in places:
            by_tenant.setdefault(tenant, []).append(context_id)
        held: dict[_Where, dict[str, ContextEvent]] = {}
        for tenant, context_ids in by_tenant.items():
            found = await self._store.read(tenant, context_ids, View(events=MOST_COMPARED))
            for context in found:
                # What can't be read can't be compared: it stays a duplicate.
                if isinstance(context, Context):
                    held[tenant, context.context_id] = {event.event_id: event for event in context.events}
        return held


def _differs(entry: Entry, held: dict[str, ContextEvent]) -> bool:
    stored = held.get(entry.event_id)
    return stored is not None and stored != Append.FromString(entry.record).event
