"""Erasing contexts as a whole: the truth, what lies in each tier, what tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

import structlog
from webhook_shared.errors import NotFound
from webhook_shared.objects.protocol import ObjectStore, ObjectTrouble
from webhook_shared.redis import Client, Script
from webhook_shared.redis.scanning import keys_like

from webhook_context import metrics
from webhook_context.changes.feeds import DELETED, Feeds, Touched
from webhook_context.domain.contexts import Context
from webhook_context.erasing.tally import Tally
from webhook_context.finding.search import Search
from webhook_context.packs.cold_names import ColdNames
from webhook_context.segments.cold_packs import ColdPacks
from webhook_context.store import keys
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.tiers.inventory import Inventory
from webhook_context.tiers.transitions import Transitions
from webhook_context.writing.updating import Updating

log = structlog.get_logger()

CONTEXTS, EVENTS, COLD, CHANGES = "contexts", "events", "cold_objects", "changes"
"""The places of which this tells."""
COLD_STORE_UNREACHABLE, COPY_UNDER_WAY = "COLD_STORE_UNREACHABLE", "COPY_UNDER_WAY"
ATTEMPTS = 20
DELETED_AT_ONCE = 16
READ_AT_ONCE = 1000
_ALL_EVENTS = View(events=2**31)


class ErasingContexts:
    """Erases contexts of one tenant.

    Args:
        client: Of the Redis that has everything.
        cold: Has the packs of cold contexts.
        names: Of these.
        inventory: Tells which of them a context still names.
        transitions: Drops what contexts leave behind.
        cold_packs: Rewrites what packs share.
        store: Has the contexts.
        updating: Deletes them.
        feeds: Tells the other replicas.
        search: Finds them.
    """

    def __init__(
        self,
        client: Client,
        cold: ObjectStore,
        names: ColdNames,
        *,
        inventory: Inventory,
        transitions: Transitions,
        cold_packs: ColdPacks,
        store: RedisContexts,
        updating: Updating,
        feeds: Feeds,
        search: Search,
    ) -> None:
        self._client = client
        self._cold = cold
        self._names = names
        self._inventory = inventory
        self._transitions = transitions
        self._cold_packs = cold_packs
        self._store = store
        self._updating = updating
        self._feeds = feeds
        self._search = search
        self._erase = Script.load("webhook_context", "erase")

    async def is_known(self, tenant: str, context_id: str) -> bool:
        """Whether there is such a context, or was."""
        return bool(await self._client.exists(keys.context(tenant, context_id)))

    async def event_ids(self, tenant: str, context_id: str) -> list[str]:
        """The ids of all its events; of one whose pack can't be had, those beside the pack."""
        (found,) = await self._store.read(tenant, [context_id], _ALL_EVENTS)
        if isinstance(found, Context):
            return [event.event_id for event in found.events]
        order: Any = await self._client.lrange(keys.order(tenant, context_id), 0, -1)
        return [one.decode() for one in order]

    async def one(self, tenant: str, context_id: str, tally: Tally, *, dry_run: bool) -> None:
        """Leave nothing of a context but a tombstone that refuses late writers, for good.

        Raises:
            REDIS_TROUBLE: It may be erased; to be repeated.
        """
        if dry_run:
            await self._count(tenant, context_id, tally)
            return
        lies = await self._inventory.names_of(tenant, context_id)
        for _ in range(ATTEMPTS):
            with suppress(NotFound):
                (before,) = await self._store.read(tenant, [context_id], View())
                await self._updating.delete(tenant, context_id, "")
                tally.erased(CONTEXTS)
                tally.erased(EVENTS, before.event_count if isinstance(before, Context) else 0)
            # Between the two a replay may have brought it back.
            if await self._erase(self._client, [keys.context(tenant, context_id)]) >= 0:
                break
        await self.drop_objects(tenant, context_id, lies, tally)

    async def _count(self, tenant: str, context_id: str, tally: Tally) -> None:
        (found,) = await self._store.read(tenant, [context_id], View())
        if isinstance(found, Context):
            tally.erased(CONTEXTS, dry_run=True)
            tally.erased(EVENTS, found.event_count, dry_run=True)
        try:
            objects = await self._cold.names(self._names.prefix(tenant, context_id))
            tally.erased(COLD, len(objects), dry_run=True)
        except ObjectTrouble:
            tally.left(COLD, COLD_STORE_UNREACHABLE)

    async def drop_objects(
        self,
        tenant: str,
        context_id: str,
        lies: Collection[str],
        tally: Tally,
        *,
        last_generation: int | None = None,
    ) -> None:
        """Delete what a context has in the cold store, also what Redis has forgotten of.

        Args:
            tenant: Whose.
            context_id: Which.
            lies: Where it lay before, as contexts point to it.
            tally: Is told.
            last_generation: Only copies up to this one; None: all that there are.

        Raises:
            REDIS_TROUBLE: Some may be left; to be repeated.
        """
        beginning = self._names.prefix(tenant, context_id)
        try:
            await self._transitions.drop(tenant, context_id, at_once=True)
            tally.erased(COLD, len([one for one in lies if not one.startswith(beginning)]))
            await self._delete_all(beginning, tally, last_generation=last_generation)
            # Nobody can open their share of an object any more; now it goes.
            await self._cold_packs.rewrite(tenant, lies)
        except ObjectTrouble as error:
            log.warning("erasing.cold_store_unreachable", error=str(error))
            tally.left(COLD, COLD_STORE_UNREACHABLE)
            return
        waiting = await self._inventory.names_of(tenant, context_id)
        if waiting:
            # Whoever writes one at this moment may be done after this; it is dropped when its lease is over.
            tally.left(COLD, COPY_UNDER_WAY, len(waiting))

    async def _delete_all(
        self, beginning: str, tally: Tally, *, dry_run: bool = False, last_generation: int | None = None
    ) -> None:
        after = ""
        while names := await self._cold.names(beginning, after=after):
            after = names[-1]
            if last_generation is not None:
                names = [one for one in names if _generation(one, beginning) <= last_generation]
            if names and not dry_run:
                for start in range(0, len(names), DELETED_AT_ONCE):
                    portion = names[start : start + DELETED_AT_ONCE]
                    await asyncio.gather(*(self._cold.delete(name) for name in portion))
                await self._client.zrem(keys.ORPHANS, *names)
                metrics.COLD_DELETES.inc(len(names))
            tally.erased(COLD, len(names), dry_run=dry_run)

    async def all(self, tenant: str, tally: Tally, *, dry_run: bool) -> AsyncIterator[None]:
        """Leave nothing of a tenant's contexts, not even tombstones; yields after each portion.

        Its keys are destroyed, which refuses writers.

        Raises:
            REDIS_TROUBLE: Some may be left; to be repeated.
        """
        async for versions in self._store.versions(tenant):
            await self._drop_listed(tenant, list(versions), tally, dry_run=dry_run)
            yield
        if not dry_run:
            # Tombstones, lists, and what the list did not know of.
            async for _ in self._scan(keys.all_of(tenant)):
                yield
        try:
            await self._delete_all(self._names.beginning(tenant), tally, dry_run=dry_run)
        except ObjectTrouble as error:
            log.warning("erasing.cold_store_unreachable", error=str(error))
            tally.left(COLD, COLD_STORE_UNREACHABLE)

    async def _drop_listed(self, tenant: str, ids: Sequence[str], tally: Tally, *, dry_run: bool) -> None:
        if not ids:
            return
        async with self._client.pipeline(transaction=False) as pipeline:
            for context_id in ids:
                pipeline.hmget(keys.context(tenant, context_id), "version", "count", "deleted")
            held = await pipeline.execute()
        there = [
            (one, int(version or 0), int(count or 0))
            for one, (version, count, deleted) in zip(ids, held, strict=True)
            if version is not None and deleted is None
        ]
        tally.erased(CONTEXTS, len(there), dry_run=dry_run)
        tally.erased(EVENTS, sum(count for _, _, count in there), dry_run=dry_run)
        if dry_run:
            return
        async with self._client.pipeline(transaction=False) as pipeline:
            for context_id in ids:
                pipeline.unlink(*(make(tenant, context_id) for make in _PARTS))
            await pipeline.execute()
        touched = [Touched(tenant, one, version + 1, DELETED) for one, version, _ in there]
        if touched:
            await self._feeds.publish(touched)
        for change in touched:
            self._search.touch(change)
        # Last: as long as it is listed, whoever goes on sees it.
        await self._client.zrem(keys.index(tenant), *ids)

    async def _scan(self, pattern: str) -> AsyncIterator[None]:
        async for found in keys_like(self._client, pattern):
            async with self._client.pipeline(transaction=False) as pipeline:
                for key in found:
                    pipeline.unlink(key)
                await pipeline.execute()
            yield

    async def traces(self, tenant: str, tally: Tally) -> None:
        """That there was such a tenant: what the stream of changes tells, once all replicas have read it.

        Raises:
            REDIS_TROUBLE: Some may be left; to be repeated.
        """
        after = b"-"
        while True:
            entries: Any = await self._client.xrange(keys.CHANGES, min=after, count=READ_AT_ONCE)
            if not entries:
                break
            mine = [entry for entry, fields in entries if fields.get(b"tenant") == tenant.encode()]
            if mine:
                await self._client.xdel(keys.CHANGES, *mine)
                tally.erased(CHANGES, len(mine))
            after = b"(" + entries[-1][0]
        await self._client.srem(keys.TENANTS, tenant)


def _generation(name: str, beginning: str) -> int:
    number = name.removeprefix(beginning).partition("-")[0]
    return int(number) if number.isdigit() else 0


_PARTS: tuple[Callable[[str, str], str], ...] = (keys.context, keys.order, keys.packs, keys.revisions)
