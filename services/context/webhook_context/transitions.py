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
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

import structlog
from webhook.context.v1.context_pb2 import Tier
from webhook_shared.envelope import EnvelopeError, Undecodable, UnknownDictionary
from webhook_shared.errors import ServiceError
from webhook_shared.objects import ObjectMissing, ObjectStore, ObjectTrouble

from webhook_context import errors, metrics
from webhook_context.archive import Archive, intact
from webhook_context.bundle import Bundler
from webhook_context.feeds import Feeds, Touched
from webhook_context.lifecycle import TIERS, State
from webhook_context.packing import Packed
from webhook_context.tiers_redis import Copying, RedisTiers

log = structlog.get_logger()


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
        feeds: Tells others where a context lies.
        grace_ms: How long what a move replaced stays.
    """

    def __init__(
        self,
        tiers: RedisTiers,
        bundler: Bundler,
        archive: Archive,
        cold: ObjectStore,
        feeds: Feeds,
        *,
        grace_ms: int,
    ) -> None:
        self._tiers = tiers
        self._bundler = bundler
        self._archive = archive
        self._cold = cold
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
                await self._moved(tenant, context_id, state, target, grace_ms)
        except (ObjectTrouble, ObjectMissing, EnvelopeError, ServiceError) as error:
            metrics.TRANSITIONS.labels(Tier.Name(source), Tier.Name(target), type(error).__name__).inc()
            raise _explained(context_id, error) from None
        metrics.TRANSITIONS.labels(Tier.Name(source), Tier.Name(target), "ok").inc()
        if grace_ms == 0:
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
        if not names:
            return
        for name in names:
            await self._cold.delete(name)
        metrics.COLD_DELETES.inc(len(names))
        await self._tiers.drop(tenant, context_id, names)

    async def _moved(
        self, tenant: str, context_id: str, state: State, target: Tier.ValueType, grace_ms: int
    ) -> None:
        if state.tier != Tier.TIER_HOT:
            if target != Tier.TIER_HOT and state.version == state.packed_version:
                return await self._copy(tenant, context_id, state, target, grace_ms)
            # The pack is not all there is: only as a hot context can it be packed anew.
            await self._rise(tenant, context_id, state, grace_ms)
            if target == Tier.TIER_HOT:
                return None
        return await self._sink(tenant, context_id, target, grace_ms)

    async def _sink(self, tenant: str, context_id: str, target: Tier.ValueType, grace_ms: int) -> None:
        copy = await self._begun(tenant, context_id, target)
        try:
            bundle = await self._bundler.bundle(tenant, context_id, copy.copying.generation)
            await self._write(copy, bundle.packed.sealed, bundle.packed.checksum)
            done = await self._tiers.commit(
                tenant,
                context_id,
                copy.copying,
                target=target,
                pointer="",
                version=bundle.version,
                grace_ms=grace_ms,
                fields={**_described(bundle.packed), **bundle.fields},
            )
        except BaseException:
            await self._give_up(copy)
            raise
        await self._settled(copy, done=done)

    async def _copy(
        self, tenant: str, context_id: str, state: State, target: Tier.ValueType, grace_ms: int
    ) -> None:
        copy = await self._begun(tenant, context_id, target)
        try:
            await self._write(copy, await self._sealed(tenant, context_id, state), state.checksum)
            done = await self._tiers.commit(
                tenant,
                context_id,
                copy.copying,
                target=target,
                pointer=state.pointer,
                version=None,
                grace_ms=grace_ms,
                fields={},
            )
        except BaseException:
            await self._give_up(copy)
            raise
        await self._settled(copy, done=done)

    async def _rise(self, tenant: str, context_id: str, state: State, grace_ms: int) -> None:
        # As long as the events are still here, nothing need be read.
        outcome = await self._tiers.rise(tenant, context_id, state.pointer, grace_ms)
        if outcome < 0:
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

    async def _begun(self, tenant: str, context_id: str, target: Tier.ValueType) -> _Copy:
        copying = await self._tiers.begin(tenant, context_id, target)
        if copying is None:
            raise errors.under_way(context_id)
        return _Copy(tenant, context_id, target, copying)

    async def _write(self, copy: _Copy, sealed: bytes, expected: str) -> None:
        name = copy.copying.name
        if copy.target == Tier.TIER_COLD:
            await self._cold.put(name, sealed)
            try:
                intact(await self._cold.get(name), expected)
            except (ObjectMissing, Undecodable):
                raise ObjectTrouble("NotAsWritten") from None
        else:
            if not await self._tiers.put_pack(copy.tenant, copy.context_id, name, sealed):
                raise errors.under_way(copy.context_id)
            intact(await self._tiers.get_pack(copy.tenant, copy.context_id, name), expected)

    async def _settled(self, copy: _Copy, *, done: bool) -> None:
        if done:
            return
        await self._give_up(copy)
        if copy.target == Tier.TIER_COLD:
            # The script has said that it does not count; where this fails, it is dropped later.
            with suppress(ObjectTrouble):
                await self._cold.delete(copy.copying.name)
        raise errors.under_way(copy.context_id)

    async def _give_up(self, copy: _Copy) -> None:
        # Where it can't be said now, the lease says it later. A committed copy is not touched by this.
        with suppress(Exception):
            await self._tiers.abandon(copy.tenant, copy.context_id, copy.copying)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy on its way into a tier."""

    tenant: str
    context_id: str
    target: Tier.ValueType
    copying: Copying


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
