"""One context from one tier to another, so that a crash between any two steps loses nothing.

```
 down   begin ─▶ read all, pack, seal ─▶ write ─▶ read back, verify ─▶ commit ─▶ (grace) ─▶ drop the source
 copy   begin ─▶ read the pack, verify ─▶ write ─▶ read back, verify ─▶ commit ─▶ (grace) ─▶ drop the pack
 up     read the pack, verify, open, seal each event ─▶ rise ─▶ (grace) ─▶ drop the pack
```

`begin` takes the lease and writes down the name of the copy before there is one, so every object is known
to the truth before it exists, and what is abandoned can be dropped. `commit` and `rise` are single scripts
that compare and set; until then the source is what counts, and it is there. Whoever lost the lease, or
whose context changed, can't commit.

A small pack on its way to the cold store is written together with others that are (`segments`); then the name
from `begin` is never used, and `commit` sets the pointer to where the pack lies in its segment.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import structlog
from webhook.context.v1.context_pb2 import Tier
from webhook_shared.errors import ServiceError
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore, ObjectTrouble
from webhook_shared.sealing.errors import EnvelopeError, Undecodable, UnknownDictionary

from webhook_context import errors, metrics
from webhook_context.changes.feeds import Feeds, Touched
from webhook_context.domain.lifecycle import TIERS, State
from webhook_context.packs.archive import Archive, intact
from webhook_context.packs.packing import Packed
from webhook_context.packs.segment import Place
from webhook_context.segments.cold_packs import ColdPacks
from webhook_context.segments.gathering import Coming, Segments
from webhook_context.store.tiers_redis import Copying, RedisTiers
from webhook_context.tiers.bundle import Bundler

log = structlog.get_logger()

MOVED_AT_ONCE = 16
"""Contexts, without those that wait for others to share an object: each takes a connection to Redis."""
OPENED_AT_ONCE = 4
"""Contexts that are packed, opened or written by themselves: each may hold 128 MiB."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did.

    Attributes:
        bytes_before: Of events and payloads as they lay.
        bytes_after: As they lie now; what stays for a while beside them not counted.
    """

    source: Tier.ValueType
    target: Tier.ValueType
    bytes_before: int
    bytes_after: int


class Transitions:
    """Moves single contexts.

    Args:
        tiers: The truth.
        bundler: Makes packs of hot contexts, and hot contexts of packs.
        archive: Reads packs.
        cold: Keeps packs.
        segments: Keeps small packs, many in one object.
        cold_packs: Lets nobody have packs any more.
        feeds: Tells others where a context lies.
        grace_ms: How long what a move replaced stays.
    """

    def __init__(
        self,
        tiers: RedisTiers,
        bundler: Bundler,
        archive: Archive,
        cold: ObjectStore,
        *,
        segments: Segments,
        cold_packs: ColdPacks,
        feeds: Feeds,
        grace_ms: int,
    ) -> None:
        self._tiers = tiers
        self._bundler = bundler
        self._archive = archive
        self._cold = cold
        self._segments = segments
        self._cold_packs = cold_packs
        self._moving = asyncio.Semaphore(MOVED_AT_ONCE)
        self._opened = asyncio.Semaphore(OPENED_AT_ONCE)
        self._feeds = feeds
        self._grace_ms = grace_ms

    async def move(
        self, tenant: str, context_id: str, target: Tier.ValueType, *, grace_ms: int | None = None
    ) -> Moved | None:
        """Move a context to a tier; None where it lies there.

        Args:
            tenant: Whose context.
            context_id: Which.
            target: Where to.
            grace_ms: Instead of the usual; 0 drops what is in Redis at once.

        Raises:
            ServiceError: CONTEXT_NOT_FOUND, TRANSITION_UNDER_WAY, CONTEXT_TOO_LARGE, CONTEXT_UNREADABLE,
                COLD_STORE_UNREACHABLE.
            REDIS_TROUBLE: It may have moved.
        """
        grace_ms = self._grace_ms if grace_ms is None else grace_ms
        with self._segments.coming(tenant) if target == Tier.TIER_COLD else nullcontext() as coming:
            # Those who wait for their turn are expected already.
            async with self._moving:
                return await self._move(_Way(tenant, context_id, target, grace_ms, coming))

    async def _move(self, way: _Way) -> Moved | None:
        tenant, context_id, target = way.tenant, way.context_id, way.target
        (state,) = await self._tiers.states(tenant, [context_id])
        if not state.exists:
            raise errors.not_found(context_id)
        if state.tier == target:
            return None
        source = state.tier
        try:
            with metrics.TRANSITION_SECONDS.labels(Tier.Name(target)).time():
                if target == Tier.TIER_COLD:
                    await self._bundler.copy_keys(tenant)
                await self._moved(way, state)
        except (ObjectTrouble, ObjectMissing, EnvelopeError, ServiceError) as error:
            metrics.TRANSITIONS.labels(Tier.Name(source), Tier.Name(target), type(error).__name__).inc()
            raise _explained(context_id, error) from None
        metrics.TRANSITIONS.labels(Tier.Name(source), Tier.Name(target), "ok").inc()
        if way.grace_ms == 0:
            # What is left in the cold store is dropped by whoever looks after what is due.
            with suppress(ObjectTrouble):
                await self.drop(tenant, context_id, at_once=True)
        (name,) = (name for name, tier in TIERS.items() if tier == target)
        await self._feeds.publish([Touched(tenant, context_id, state.version, name)])
        (after,) = await self._tiers.states(tenant, [context_id])
        lies = after.hot_bytes if target == Tier.TIER_HOT else after.stored_bytes
        return Moved(source, target, state.hot_bytes if not state.pointer else state.stored_bytes, lies)

    async def drop(self, tenant: str, context_id: str, *, at_once: bool = False) -> None:
        """Drop what a context has left behind and nothing points to any more.

        Args:
            tenant: Whose context.
            context_id: Which.
            at_once: Without waiting for the end of the grace, as far as it is in Redis.

        Raises:
            ObjectTrouble: What is in the cold store stays for now.
        """
        names = await self._tiers.drop(tenant, context_id, at_once=at_once)
        if names:
            await self._cold_packs.forget(tenant, names)
            await self._tiers.drop(tenant, context_id, names)

    async def _moved(self, way: _Way, state: State) -> None:
        if state.tier != Tier.TIER_HOT:
            if way.target != Tier.TIER_HOT and state.version == state.packed_version:
                return await self._copy(way, state)
            # The pack is not all there is: only as a hot context can it be packed anew.
            await self._rise(way, state)
            if way.target == Tier.TIER_HOT:
                return None
        return await self._sink(way)

    async def _sink(self, way: _Way) -> None:
        copying = await self._begun(way)
        try:
            async with self._opened:
                bundle = await self._bundler.bundle(way.tenant, way.context_id, copying.generation)
                packed = bundle.packed
                if not (shares := self._shares(way, packed.sealed)):
                    await self._write(way, copying, packed.sealed, packed.checksum)
            # Here it waits, and must not hold up others.
            lies = await self._arrived(way, copying, packed.sealed, packed.checksum) if shares else {}
            done = await self._tiers.commit(
                way.tenant,
                way.context_id,
                copying,
                target=way.target,
                pointer="",
                version=bundle.version,
                grace_ms=way.grace_ms,
                fields={**_described(packed), **bundle.fields, **lies},
            )
        except BaseException:
            await self._give_up(way, copying)
            raise
        if not done:
            await self._undo(way, copying, lies)

    async def _copy(self, way: _Way, state: State) -> None:
        copying = await self._begun(way)
        try:
            async with self._opened:
                sealed = await self._sealed(way.tenant, way.context_id, state)
                if not (shares := self._shares(way, sealed)):
                    await self._write(way, copying, sealed, state.checksum)
            lies = await self._arrived(way, copying, sealed, state.checksum) if shares else {}
            done = await self._tiers.commit(
                way.tenant,
                way.context_id,
                copying,
                target=way.target,
                pointer=state.pointer,
                version=None,
                grace_ms=self._cold_packs.grace_ms(state.pointer, way.grace_ms),
                fields=lies,
            )
        except BaseException:
            await self._give_up(way, copying)
            raise
        if not done:
            await self._undo(way, copying, lies)

    async def _rise(self, way: _Way, state: State) -> None:
        tenant, context_id = way.tenant, way.context_id
        grace_ms = self._cold_packs.grace_ms(state.pointer, way.grace_ms)
        # As long as the events are still here, nothing need be read.
        outcome = await self._tiers.rise(tenant, context_id, state.pointer, grace_ms)
        if outcome < 0:
            async with self._opened:
                sealed = await self._sealed(tenant, context_id, state)
                await self._bundler.prepare(tenant)
                pack = await self._archive.open(tenant, context_id, sealed)
                events = await asyncio.to_thread(self._bundler.unbundle, pack)
                outcome = await self._tiers.rise(tenant, context_id, state.pointer, grace_ms, events)
        if outcome == 0:
            raise errors.under_way(context_id)

    async def _sealed(self, tenant: str, context_id: str, state: State) -> bytes:
        try:
            return await self._found(tenant, context_id, state)
        except (ObjectMissing, Undecodable):
            (now,) = await self._tiers.states(tenant, [context_id])
            if now.pointer != state.pointer:
                # It was there when the truth was read; somebody else has moved it since.
                raise errors.under_way(context_id) from None
            raise

    async def _found(self, tenant: str, context_id: str, state: State) -> bytes:
        if state.tier == Tier.TIER_WARM:
            at_hand = await self._tiers.get_pack(tenant, context_id, state.pointer)
            return intact(at_hand, state.checksum)
        sealed, _ = await self._archive.find(None, state.pointer, state.checksum)
        return sealed

    async def _begun(self, way: _Way) -> Copying:
        copying = await self._tiers.begin(way.tenant, way.context_id, way.target)
        if copying is None:
            raise errors.under_way(way.context_id)
        return copying

    def _shares(self, way: _Way, sealed: bytes) -> bool:
        """Whether a pack is to share an object with others; where not, nobody is to wait for it."""
        if way.coming is None:
            return False
        if not self._segments.is_small(sealed):
            way.coming.leave()
            return False
        return True

    async def _arrived(self, way: _Way, copying: Copying, sealed: bytes, expected: str) -> dict[str, str]:
        """What the truth is to have of where a small pack lies, where that is not under its own name."""
        place = await self._joined(way.coming, way.context_id, sealed) if way.coming else None
        if place is None:
            await self._write(way, copying, sealed, expected)
            return {}
        return {"pointer": place.pointer}

    async def _joined(self, coming: Coming, context_id: str, sealed: bytes) -> Place | None:
        # Whoever it waits for must be able to come.
        self._moving.release()
        try:
            return await coming.arrive(context_id, sealed)
        finally:
            await self._moving.acquire()

    async def _write(self, way: _Way, copying: Copying, sealed: bytes, expected: str) -> None:
        name = copying.name
        if way.target == Tier.TIER_COLD:
            await self._cold.put(name, sealed)
            try:
                intact(await self._cold.get(name), expected)
            except (ObjectMissing, Undecodable):
                raise ObjectTrouble("NotAsWritten") from None
        else:
            if not await self._tiers.put_pack(way.tenant, way.context_id, name, sealed):
                raise errors.under_way(way.context_id)
            intact(await self._tiers.get_pack(way.tenant, way.context_id, name), expected)

    async def _undo(self, way: _Way, copying: Copying, lies: dict[str, str]) -> None:
        await self._give_up(way, copying)
        if way.target == Tier.TIER_COLD:
            # The script has said that it does not count; where this fails, it is dropped later.
            with suppress(ObjectTrouble):
                await self._cold_packs.forget(way.tenant, [lies.get("pointer", copying.name)])
        raise errors.under_way(way.context_id)

    async def _give_up(self, way: _Way, copying: Copying) -> None:
        # Where it can't be said now, the lease says it later. A committed copy is not touched by this.
        with suppress(Exception):
            await self._tiers.abandon(way.tenant, way.context_id, copying)


@dataclass(frozen=True, slots=True)
class _Way:
    """A context on its way into a tier.

    Attributes:
        grace_ms: How long what is replaced stays.
        coming: With others to the cold store.
    """

    tenant: str
    context_id: str
    target: Tier.ValueType
    grace_ms: int
    coming: Coming | None


def _described(packed: Packed) -> dict[str, str | bytes | int]:
    return {
        "checksum": packed.checksum,
        "codec": packed.codec,
        "stored": len(packed.sealed),
        "content": packed.content_size,
    }


def _explained(context_id: str, error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, ObjectTrouble):
        log.warning("transition.cold_store", error=str(error))
        return errors.cold_store_unreachable()
    log.error("transition.unreadable", context_id=context_id, error=type(error).__name__)
    if isinstance(error, UnknownDictionary):
        return errors.dictionary_missing(context_id)
    return errors.unreadable(context_id)
