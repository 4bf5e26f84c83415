"""Pages of a tenant's contexts, the newest change first.

A page token names the last context looked at. What changes while somebody pages moves to the front, so no
context comes twice in one walk, and none that stays as it is gets lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from webhook_context import page_tokens
from webhook_context.domain.contexts import Context, Filter
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import Place, RedisContexts

LOOKED_AT_ONCE = 200
MOST_LOOKED_AT = 4000
"""Per page. With a filter that admits little a page may come short, or empty, and still have a next one."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some contexts, and where the next page begins; empty at the end."""

    contexts: list[Context]
    next_token: str


class Listing:
    """Lists contexts."""

    def __init__(self, store: RedisContexts) -> None:
        self._store = store

    async def page(self, tenant: str, wanted: Filter, size: int, token: str) -> Page:
        """One page.

        Raises:
            InvalidArgument: The token is none of ours.
            REDIS_TROUBLE: The store can't be reached.
        """
        contexts: list[Context] = []
        last, looked_at = read_token(token), 0
        while looked_at < MOST_LOOKED_AT:
            places = await self._after(tenant, wanted, last, LOOKED_AT_ONCE if _filters(wanted) else size)
            if not places:
                return Page(contexts, "")
            looked_at += len(places)
            found = await self._admitted(tenant, wanted, places)
            for place in places:
                last = place
                if place.context_id in found:
                    contexts.append(found[place.context_id])
                if len(contexts) == size:
                    return Page(contexts, write_token(last))
        assert last is not None
        return Page(contexts, write_token(last))

    async def _after(self, tenant: str, wanted: Filter, last: Place | None, most: int) -> list[Place]:
        """The next places behind `last`, at least one unless there is none."""
        before_ms, after_ms = wanted.updated_before_ms, wanted.updated_after_ms
        newest = None if before_ms is None else before_ms - 1
        if last is not None:
            newest = last.update_ms if newest is None else min(newest, last.update_ms)
        skip = 0
        while True:
            places = await self._store.newest(
                tenant,
                not_after_ms=newest,
                not_before_ms=None if after_ms is None else after_ms + 1,
                skip=skip,
                most=most,
            )
            behind = [place for place in places if last is None or _behind(place, last)]
            if behind or len(places) < most:
                return behind
            # All of them changed in the very millisecond of the last one, and were shown.
            skip += most

    async def _admitted(self, tenant: str, wanted: Filter, places: list[Place]) -> dict[str, Context]:
        ids = [place.context_id for place in places]
        outside_only = replace(wanted, labels=frozenset(), updated_after_ms=None, updated_before_ms=None)
        if outside_only != Filter():
            outsides = await self._store.outsides(tenant, ids)
            ids = [
                one
                for one, seen in zip(ids, outsides, strict=True)
                if wanted.admits_outside(seen.tool, seen.kind, seen.importance, seen.tier)
            ]
        found = await self._store.read(tenant, ids, View())
        missing = [one for one, context in zip(ids, found, strict=True) if context is None]
        if missing:
            await self._store.unlist(tenant, missing)
        # One that can't be opened does not hide the others; asking for it says what is wrong with it.
        return {
            context.context_id: context
            for context in found
            if isinstance(context, Context) and wanted.admits_labels(context.facts.labels.value)
        }


def _filters(wanted: Filter) -> bool:
    return replace(wanted, updated_after_ms=None, updated_before_ms=None) != Filter()


def _behind(place: Place, last: Place) -> bool:
    # Redis puts equal times in the reverse order of the ids' bytes.
    return (place.update_ms, place.context_id.encode()) < (last.update_ms, last.context_id.encode())


def write_token(last: Place) -> str:
    """An opaque name of a place."""
    return page_tokens.write([last.update_ms, last.context_id])


def read_token(token: str) -> Place | None:
    """The place that a token names; None for an empty one.

    Raises:
        InvalidArgument: It is none of ours.
    """
    if not token:
        return None
    match page_tokens.read(token):
        case [int(update_ms), str(context_id)]:
            return Place(context_id, update_ms)
    raise page_tokens.unknown()
