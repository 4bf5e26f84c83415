"""One object of the cold store back into Redis: as the cold context that it was, or beside what is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from webhook.context.v1.context_pb2 import Enrichment
from webhook.context.v1.context_service_pb2 import Append, Revision
from webhook.context.v1.pack_pb2 import Pack
from webhook_shared.errors import ServiceError
from webhook_shared.redis import Client, Script

from webhook_context.changes.feeds import Asked, Feeds, Touched
from webhook_context.domain.contexts import Change, Context, Facts
from webhook_context.domain.excerpts import RECENT_EVENTS, excerpt
from webhook_context.finding.search import Search
from webhook_context.packs.packing import digests
from webhook_context.recovery.comparison import Comparison, Standing, compare
from webhook_context.recovery.unsealing import Found
from webhook_context.store import keys
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.records import Records, facts_of
from webhook_context.store.tiers_redis import RedisTiers
from webhook_context.writing.appending import Appending
from webhook_context.writing.updating import Updating

APPENDED_AT_ONCE = 200
_PLACES = (keys.context, keys.order, keys.packs, keys.revisions)


class Outcome(Enum):
    """What became of an object."""

    RESTORED = "restored"
    JOINED = "joined"
    PRESENT = "present"
    DELETED = "deleted"
    FAILED = "failed"


_OF = {
    Standing.ABSENT: Outcome.RESTORED,
    Standing.LACKING: Outcome.JOINED,
    Standing.WHOLE: Outcome.PRESENT,
    Standing.DELETED: Outcome.DELETED,
}


@dataclass(frozen=True, slots=True)
class Rejoined(Change):
    """What people said by hand before Redis lost it."""

    facts: Facts = field(default_factory=Facts)

    def revise(self, held: Context) -> Context:
        """Let it stand where nothing later does."""
        held.facts.absorb(self.facts)
        held.facts.attributes = held.facts.attributes or self.facts.attributes
        return held


class Revival:
    """Brings contexts back, one object at a time. Never replaces anything."""

    def __init__(
        self,
        client: Client,
        *,
        store: RedisContexts,
        tiers: RedisTiers,
        appending: Appending,
        updating: Updating,
        feeds: Feeds,
        search: Search,
    ) -> None:
        self._client = client
        self._store = store
        self._tiers = tiers
        self._appending = appending
        self._updating = updating
        self._feeds = feeds
        self._search = search
        self._restore = Script.load("webhook_context", "restore")

    async def revive(self, found: Found, records: Records, *, dry_run: bool) -> Outcome:
        """Let Redis have what an object says. Idempotent.

        Args:
            found: The object.
            records: Seals with the tenant's keys, which must be prepared unless nothing is written.
            dry_run: Only tell.

        Raises:
            ServiceError: The context in Redis can't be read, or refuses what is missing.
            REDIS_TROUBLE: To be repeated.
        """
        held = await compare(self._store, self._tiers, found.pack)
        if dry_run:
            return _OF[held.standing]
        if held.standing is Standing.ABSENT:
            if await self._place(found, records):
                return Outcome.RESTORED
            # Somebody was faster: an event, a deletion, another restore.
            held = await compare(self._store, self._tiers, found.pack)
        if held.standing is Standing.LACKING:
            await self._join(found.pack, held)
        elif held.standing is Standing.WHOLE and held.pointer == found.pointer:
            # The one who put it back may not have come further than that.
            await self._tell(found.pack)
        return _OF[held.standing]

    async def _place(self, found: Found, records: Records) -> bool:
        pack = found.pack
        where = [place(pack.tenant, pack.context_id) for place in _PLACES]
        revisions = [
            records.seal_revision(pack.tenant, pack.context_id, Revision.FromString(one))
            for one in pack.revisions
        ]
        flat = [part for one in _fields(found, records).items() for part in one]
        if not await self._restore(self._client, where, [len(revisions), *revisions, *flat]):
            return False
        await self._tell(pack)
        return True

    async def _tell(self, pack: Pack) -> None:
        """List it, and let indexes, watchers and the enrichment know of it."""
        where = (pack.tenant, pack.context_id)
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.sadd(keys.TENANTS, pack.tenant)
            pipeline.zadd(keys.index(pack.tenant), {pack.context_id: pack.update_ms}, gt=True)
            await pipeline.execute()
        touched = Touched(*where, pack.version)
        await self._feeds.publish([touched], [Asked(*where, "")] if pack.dirty else [])
        if pack.dirty:
            await self._store.mark_queued([(*where, pack.version)])
        if pack.pinned:
            await self._tiers.schedule(*where)
        self._search.touch(touched)

    async def _join(self, pack: Pack, held: Comparison) -> None:
        for start in range(0, len(held.missing), APPENDED_AT_ONCE):
            for done in await self._appending.append(held.missing[start : start + APPENDED_AT_ONCE]):
                if isinstance(done, ServiceError):
                    raise done
        if held.facts is None and not held.unenriched:
            return
        await self._updating.update(
            Rejoined(
                tenant=pack.tenant,
                context_id=pack.context_id,
                facts=held.facts or Facts(),
                enrichment=_enrichment(pack) if held.unenriched else None,
            )
        )


def _fields(found: Found, records: Records) -> dict[str, Any]:
    """Of the hash of a cold context."""
    pack, where = found.pack, (found.pack.tenant, found.pack.context_id)
    count = len(pack.events)
    said = [Append.FromString(event.record).event for event in pack.events[-RECENT_EVENTS:]]
    facts = facts_of(pack.facts_json)
    kind = facts.words.get("kind") or facts.words.get("tool")
    fields: dict[str, Any] = {
        "version": pack.version,
        "count": count,
        "folded": count,
        "created": pack.create_ms,
        "updated": pack.update_ms,
        "tool": pack.tool,
        "kind": pack.kind,
        "kind_as_of": kind.as_of.time_us if kind else 0,
        "pinned": int(pack.pinned),
        "bytes": 0,
        "generation": max(pack.generation, _generation(found.name)),
        "pointer": found.pointer,
        "checksum": found.checksum,
        "codec": found.opened.codec,
        "stored": found.stored_bytes,
        "content": found.opened.content_size,
        "packed": count,
        "packed_version": pack.version,
        "ids": digests(event.event_id for event in pack.events),
        "snapshot": records.seal_snapshot(*where, facts),
        "excerpt": records.seal_excerpt(*where, excerpt(said)),
    }
    if pack.dirty:
        fields["dirty"] = pack.version
    if pack.HasField("enrichment"):
        fields["importance"] = repr(pack.enrichment.importance)
        fields["enrichment"], vector = records.seal_enrichment(*where, _enrichment(pack))
        if vector is not None:
            fields["vector"] = vector
    return fields


def _enrichment(pack: Pack) -> Enrichment:
    whole = Enrichment()
    whole.CopyFrom(pack.enrichment)
    whole.vector.extend(np.frombuffer(pack.vector_f16, dtype="<f2").tolist())
    return whole


def _generation(name: str) -> int:
    count = name.rpartition("/")[2].partition("-")[0]
    return int(count) if count.isdecimal() else 0
