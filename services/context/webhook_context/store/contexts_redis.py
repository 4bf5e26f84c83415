"""Contexts in Redis: every write one script in one slot, every read one instant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import structlog
from webhook.context.v1.context_service_pb2 import Revision
from webhook_shared.coalesce import Coalescer
from webhook_shared.errors import ServiceError
from webhook_shared.objects.protocol import ObjectMissing, ObjectTrouble
from webhook_shared.redis import Client, Script
from webhook_shared.redis.script import Call
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import EnvelopeError, UnknownDictionary, UnknownKey

from webhook_context import errors
from webhook_context.domain.contexts import Appended, Change, Context, Entry, etag, parse_etag
from webhook_context.domain.lifecycle import TIERS
from webhook_context.domain.revisions import revision_of
from webhook_context.packs.archive import Archive
from webhook_context.store import keys
from webhook_context.store.assembly import Stored, View, assemble
from webhook_context.store.outsides import OUTSIDE_FIELDS, Outside, outside
from webhook_context.store.recollection import Recollection
from webhook_context.store.records import Records

log = structlog.get_logger()

REMEMBERED_REQUESTS = 32
KEPT_REVISIONS = 50
UPDATE_ATTEMPTS = 20
READ_AT_ONCE = 64
ASSEMBLED_BEFORE_YIELD = 8
EXCHANGES_AT_ONCE = 3
JOINS_AT = 4.0
LARGEST_EXCHANGE = 256
"""Reads, or writes, that share a round trip."""
SCAN_AT_ONCE = 1000
SEALED_BEFORE_YIELD = 32
WRITE, ONLY_TELL = 0, 1
LARGE_PAYLOAD_BYTES = 256 * 1024
"""Larger ones are compressed and sealed in a thread, so that other calls go on meanwhile."""


@dataclass(frozen=True, slots=True)
class Place:
    """A context in the list of its tenant."""

    context_id: str
    update_ms: int


class RedisContexts:
    """All contexts of all tenants.

    Args:
        client: Of the Redis that has them.
        keyring: Seals and opens.
        archive: Has the events of those that are warm or cold.
        touch_ms: How often at most it is noted that a hot context was read.

    Every method raises REDIS_TROUBLE where Redis can't be reached.
    """

    def __init__(self, client: Client, keyring: Keyring, archive: Archive, *, touch_ms: int) -> None:
        self._client = client
        self._archive = archive
        self._touch_ms = touch_ms
        self._keyring = keyring
        self._records = Records(keyring)
        self._recollection = Recollection()
        self._append, self._mark, self._read, self._fold, self._update, self._delete = (
            Script.load("webhook_context", name)
            for name in ("append", "mark_queued", "read", "fold", "update", "delete")
        )
        # Whoever reads at the same time shares a round trip, and so do writers: it costs more than the work.
        self._reads, self._updates = (
            Coalescer[Sequence[Call], list[Any]](
                partial(self._exchanged, script),
                max_items=LARGEST_EXCHANGE,
                in_flight=EXCHANGES_AT_ONCE,
                max_weight=LARGEST_EXCHANGE,
                weigh=len,
                joins_at=JOINS_AT,
            )
            for script in (self._read, self._update)
        )

    async def _exchanged(self, script: Script, wanted: Sequence[Sequence[Call]]) -> list[list[Any]]:
        replies = iter(await script.batch(self._client, [call for calls in wanted for call in calls]))
        return [list(islice(replies, len(calls))) for calls in wanted]

    async def append(self, entries: Sequence[Entry]) -> list[Appended | ServiceError]:
        """Add events to their contexts; one result per entry, in order.

        Errors: CONTEXT_DELETED, TENANT_KEYS_DESTROYED, STORE_UNREACHABLE.
        """
        destroyed = await self._prepare({entry.tenant for entry in entries})
        results: list[Appended | ServiceError] = [errors.keys_destroyed()] * len(entries)
        places = [i for i, entry in enumerate(entries) if entry.tenant not in destroyed]
        calls = []
        for done, i in enumerate(places, 1):
            calls.append(await self._append_call(entries[i]))
            if done % SEALED_BEFORE_YIELD == 0:
                await asyncio.sleep(0)
        for i, reply in zip(places, await self._append.batch(self._client, calls), strict=True):
            results[i] = _appended(entries[i], reply)
        return results

    async def _append_call(self, entry: Entry) -> tuple[list[str], list[str | bytes | int]]:
        if len(entry.payload) > LARGE_PAYLOAD_BYTES:
            record, payload = await asyncio.to_thread(self._records.seal_event, entry)
        else:
            record, payload = self._records.seal_event(entry)
        where = [keys.context(entry.tenant, entry.context_id), keys.order(entry.tenant, entry.context_id)]
        as_of_us = entry.as_of.time_us
        return where, [
            *(entry.event_id, record, payload, as_of_us, entry.tool, entry.kind),
            *(entry.replay_id, WRITE),
        ]

    async def foresee(self, entries: Sequence[Entry]) -> list[Appended | ServiceError]:
        """What `append` would make of events; nothing is written."""
        calls = [
            (
                [keys.context(entry.tenant, entry.context_id), keys.order(entry.tenant, entry.context_id)],
                [entry.event_id, "", "", entry.as_of.time_us, "", "", entry.replay_id, ONLY_TELL],
            )
            for entry in entries
        ]
        replies = await self._append.batch(self._client, calls)
        return [_appended(entry, reply) for entry, reply in zip(entries, replies, strict=True)]

    async def mark_queued(self, epochs: Sequence[tuple[str, str, int]]) -> None:
        """Note that enrichment was asked for: (tenant, context id, epoch) each."""
        calls = [([keys.context(tenant, context_id)], [epoch]) for tenant, context_id, epoch in epochs]
        await self._mark.all(self._client, calls)

    async def read(
        self, tenant: str, context_ids: Sequence[str], view: View
    ) -> list[Context | ServiceError | None]:
        """Contexts as they are; None where there is none (any more). CONTEXT_UNREADABLE where damaged."""
        found: list[Context | ServiceError | None] = []
        for start in range(0, len(context_ids), READ_AT_ONCE):
            found += await self._read_some(tenant, context_ids[start : start + READ_AT_ONCE], view)
        return found

    async def read_one(self, tenant: str, context_id: str, view: View) -> Context:
        """One context.

        Raises:
            ServiceError: CONTEXT_NOT_FOUND, CONTEXT_UNREADABLE.
        """
        found = (await self.read(tenant, [context_id], view))[0]
        if found is None:
            raise errors.not_found(context_id)
        if isinstance(found, ServiceError):
            raise found
        return found

    async def _read_some(
        self, tenant: str, context_ids: Sequence[str], view: View
    ) -> list[Context | ServiceError | None]:
        stored = await self.stored(tenant, context_ids, view)
        pairs = zip(context_ids, stored, strict=True)
        if not any(one.exists and one.wants_pack(view) for one in stored):
            found = []
            for done, (context_id, one) in enumerate(pairs):
                if done % ASSEMBLED_BEFORE_YIELD == ASSEMBLED_BEFORE_YIELD - 1:
                    await asyncio.sleep(0)
                found.append(await self._answer(tenant, context_id, one, view))
            return found
        # The cold store is far away: all at once.
        return await asyncio.gather(
            *(self._answer(tenant, context_id, one, view) for context_id, one in pairs)
        )

    async def stored(self, tenant: str, context_ids: Sequence[str], view: View) -> list[Stored]:
        """Contexts as they lie, each at one instant."""
        touch_ms = self._touch_ms if view.used else 0
        args = [max(view.events, 0), int(view.payloads), int(view.vector), int(view.unpacked), touch_ms]
        calls = [(_places(tenant, one), args) for one in context_ids]
        found = []
        for reply in await self._reads.submit(calls) if calls else ():
            if isinstance(reply, Exception):
                raise reply
            found.append(Stored.of(reply))
        return found

    async def _answer(
        self, tenant: str, context_id: str, stored: Stored, view: View
    ) -> Context | ServiceError | None:
        if not stored.exists:
            self._recollection.forget(tenant, context_id)
            return None
        for last in (False, True):
            # No key is made for a tenant of whom nothing is stored; keys at hand cost nothing.
            await self._prepare({tenant})
            try:
                return await self._assembled(tenant, context_id, stored, view)
            except ObjectTrouble as error:
                log.warning("context.cold_store_unreachable", error=str(error))
                return errors.cold_store_unreachable()
            except (UnknownKey, ObjectMissing) as error:
                # Another process has made the key, or moved the context, a moment ago.
                if last:
                    log.error("context.unreadable", context_id=context_id, error=type(error).__name__)
                    if isinstance(error, UnknownDictionary):
                        return errors.dictionary_missing(context_id)
                    break
                stored = (await self.stored(tenant, [context_id], view._replace(used=False)))[0]
                if not stored.exists:
                    return None
            except EnvelopeError as error:
                log.error("context.unreadable", context_id=context_id, error=type(error).__name__)
                break
        return errors.unreadable(context_id)

    async def _assembled(self, tenant: str, context_id: str, stored: Stored, view: View) -> Context:
        pack, served = None, None
        if stored.wants_pack(view):
            where = stored.text("pointer")
            sealed, served = await self._archive.find(stored.pack, where, stored.text("checksum"))
            pack = await self._archive.open(tenant, context_id, sealed)
        return assemble(
            self._records,
            tenant,
            context_id,
            stored,
            view,
            pack=pack,
            served=served,
            recollection=self._recollection,
        )

    async def fold(self, tenant: str, context_ids: Sequence[str]) -> None:
        """Let their snapshots cover all events; where another is faster, it has done so."""
        calls: list[Call] = []
        for found in await self.read(tenant, context_ids, View()):
            if isinstance(found, Context) and found.folded != found.event_count:
                snapshot = self._records.seal_snapshot(tenant, found.context_id, found.facts)
                where = [keys.context(tenant, found.context_id)]
                calls.append((where, [found.folded, found.event_count, snapshot]))
        await self._fold.all(self._client, calls)

    async def update(self, change: Change) -> Context:
        """Apply a change and return the context as it is then.

        A change with an enrichment and an etag also says that the context is clean again. None needs the
        events, so it is the same in every tier.

        Raises:
            ServiceError: CONTEXT_NOT_FOUND, ETAG_MISMATCH, CONTEXT_UNREADABLE, TENANT_KEYS_DESTROYED, and
                what the change itself refuses.
        """
        tenant, context_id = change.tenant, change.context_id
        where = [keys.context(tenant, context_id), keys.revisions(tenant, context_id)]
        for _ in range(UPDATE_ATTEMPTS):
            held = await self.read_one(tenant, context_id, View())
            if change.request_id and change.request_id in held.requests:
                return held
            if change.etag and change.etag != held.etag:
                raise errors.etag_mismatch(context_id, held.etag)
            call = (where, self._update_call(change, held))
            (reply,) = await self._updates.submit([call])
            if isinstance(reply, Exception):
                raise reply
            outcome, version, update_ms, tier = reply
            if outcome == -1:
                raise errors.not_found(context_id)
            if outcome == -2 and change.etag:
                raise errors.etag_mismatch(context_id, etag(version, held.create_ms))
            if outcome == 1:
                # Nobody came between, so that is how it reads now.
                return change.made(held, version, update_ms, TIERS[tier.decode()])
            if outcome == 0:
                return await self.read_one(tenant, context_id, View())
        raise errors.etag_mismatch(context_id, etag(version, held.create_ms))

    def _update_call(self, change: Change, held: Context) -> list[str | bytes | int]:
        tenant, context_id = change.tenant, change.context_id
        revised = change.revise(held)
        revision = self._records.seal_revision(tenant, context_id, revision_of(change, revised))
        fields: list[str | bytes | int] = ["folded", held.event_count, "pinned", int(revised.pinned)]
        fields += ["snapshot", self._records.seal_snapshot(tenant, context_id, revised.facts)]
        dropped = ""
        if change.enrichment is not None:
            sealed, vector = self._records.seal_enrichment(tenant, context_id, change.enrichment)
            fields += ["enrichment", sealed, "importance", repr(change.enrichment.importance)]
            if vector is None:
                dropped = "vector"
            else:
                fields += ["vector", vector]
        clean = int(change.enrichment is not None and bool(change.etag))
        request = (held.version, change.request_id, REMEMBERED_REQUESTS)
        return [*request, clean, dropped, revision, KEPT_REVISIONS, *fields]

    async def revisions(self, tenant: str, context_id: str) -> list[Revision]:
        """What was changed by hand, the newest first.

        Raises:
            ServiceError: CONTEXT_NOT_FOUND, CONTEXT_UNREADABLE.
        """
        await self.read_one(tenant, context_id, View())
        sealed: Any = await self._client.lrange(keys.revisions(tenant, context_id), 0, -1)
        try:
            return [self._records.open_revision(tenant, context_id, one) for one in sealed]
        except EnvelopeError as error:
            log.error("context.unreadable", context_id=context_id, error=type(error).__name__)
            raise errors.unreadable(context_id) from None

    async def delete(self, tenant: str, context_id: str, held_etag: str, *, tombstone_ms: int = 0) -> int:
        """Leave only a tombstone; returns its version.

        Args:
            tenant: Whose context.
            context_id: Which.
            held_etag: What the caller read; empty means whatever is there.
            tombstone_ms: How long the tombstone stays, and gives way to what happens later; 0: for good.

        Raises:
            ServiceError: CONTEXT_NOT_FOUND, ETAG_MISMATCH.
        """
        where = [*_places(tenant, context_id), keys.revisions(tenant, context_id)]
        expected = parse_etag(held_etag) if held_etag else ("", "")
        outcome, version, create_ms = await self._delete(self._client, where, [*expected, tombstone_ms])
        if outcome == -2:
            raise errors.etag_mismatch(context_id, etag(version, create_ms))
        if outcome == -1:
            # The tombstone may be there and the list not know it yet.
            await self.unlist(tenant, [context_id])
            raise errors.not_found(context_id)
        return int(version)

    async def count(self, tenant: str) -> int:
        """How many contexts are listed."""
        return int(await self._client.zcard(keys.index(tenant)))

    async def tombstone(self, tenant: str, context_id: str) -> int:
        """The version of a deleted context; 0 where there is no such one."""
        version, deleted = await self._client.hmget(keys.context(tenant, context_id), "version", "deleted")
        return int(version or 0) if deleted else 0

    async def unlist(self, tenant: str, context_ids: Sequence[str]) -> None:
        """Take those of these contexts that are deleted out of the tenant's list."""
        gone = [
            one
            for one, outside in zip(context_ids, await self.outsides(tenant, context_ids), strict=True)
            if outside.deleted
        ]
        if gone:
            await self._client.zrem(keys.index(tenant), *gone)

    async def newest(
        self, tenant: str, *, not_after_ms: int | None, not_before_ms: int | None, skip: int, most: int
    ) -> list[Place]:
        """Places in the tenant's list, the newest change first; both bounds are inclusive."""
        found: Any = await self._client.zrevrangebyscore(
            keys.index(tenant),
            "+inf" if not_after_ms is None else not_after_ms,
            "-inf" if not_before_ms is None else not_before_ms,
            start=skip,
            num=most,
            withscores=True,
        )
        return [Place(member.decode(), int(score)) for member, score in found]

    async def oldest(self, tenant: str, most: int) -> AsyncIterator[list[Place]]:
        """The tenant's whole list in portions, the longest unchanged first."""
        from_ms: float = 0
        seen: set[str] = set()
        while True:
            found: Any = await self._client.zrangebyscore(
                keys.index(tenant), from_ms, "+inf", start=0, num=most + len(seen), withscores=True
            )
            places = [Place(member.decode(), int(score)) for member, score in found]
            fresh = [place for place in places if place.context_id not in seen]
            if not fresh:
                return
            yield fresh
            from_ms = fresh[-1].update_ms
            # Of the next portion only those of this very millisecond can have been in one before.
            seen = {place.context_id for place in places if place.update_ms == from_ms}

    async def outsides(self, tenant: str, context_ids: Sequence[str]) -> list[Outside]:
        """What can be told of contexts without opening them."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for context_id in context_ids:
                key = keys.context(tenant, context_id)
                pipeline.hmget(key, *OUTSIDE_FIELDS)
                pipeline.hexists(key, "vector")
            replies = await pipeline.execute()
        return [outside(replies[i], bool(replies[i + 1])) for i in range(0, len(replies), 2)]

    async def versions(self, tenant: str) -> AsyncIterator[dict[str, int]]:
        """The version of every listed context, in portions."""
        cursor = 0
        while True:
            reply: Any = await self._client.zscan(keys.index(tenant), cursor, count=SCAN_AT_ONCE)
            cursor, found = reply
            ids = list(dict.fromkeys(member.decode() for member, _ in found))
            async with self._client.pipeline(transaction=False) as pipeline:
                for context_id in ids:
                    pipeline.hget(keys.context(tenant, context_id), "version")
                held = await pipeline.execute()
            yield {one: int(version or 0) for one, version in zip(ids, held, strict=True)}
            if not cursor:
                return

    async def tenants(self) -> list[str]:
        """Every tenant that has or had a context."""
        found: Any = await self._client.smembers(keys.TENANTS)
        return sorted(tenant.decode() for tenant in found)

    async def _prepare(self, tenants: set[str]) -> set[str]:
        destroyed = set()
        for tenant in tenants:
            try:
                await self._keyring.prepare([tenant])
            except UnknownKey:
                destroyed.add(tenant)
        if destroyed:
            self._recollection.forget_tenants(destroyed)
        return destroyed


def _appended(entry: Entry, reply: Any) -> Appended | ServiceError:
    if isinstance(reply, Exception):
        log.warning("append.refused", error=type(reply).__name__)
        return errors.of_item(reply)
    outcome, version, update_ms, unfolded, epoch, packed, stored_bytes = reply
    if outcome < 0:
        return errors.deleted(entry.context_id)
    return Appended(
        duplicate=outcome == 0,
        created=outcome >= 2,
        revived=outcome == 3,
        version=version,
        update_ms=update_ms,
        unfolded=unfolded,
        epoch=epoch,
        packed=bool(packed),
        stored_bytes=stored_bytes,
    )


def _places(tenant: str, context_id: str) -> list[str]:
    return keys.parts(tenant, context_id)
