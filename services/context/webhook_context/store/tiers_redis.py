"""Where contexts lie and when they are due to move, in Redis: every step of a move one script in one slot."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from webhook.context.v1.context_pb2 import Tier
from webhook_shared.redis import Client, Script

from webhook_context.domain.lifecycle import TIERS, State
from webhook_context.packs.cold_names import SUFFIX, ColdNames
from webhook_context.store import keys

_NAMES = {tier: name for name, tier in TIERS.items()}
_STATE = (
    "deleted",
    "tier",
    "version",
    "packed_version",
    "updated",
    "accessed",
    "moved",
    "reads",
    "importance",
    "pinned",
    "bytes",
    "stored",
    "content",
    "pointer",
    "checksum",
    "source_until",
    "copying_until",
    "dropping",
)
_DROP_TIME = re.compile(rb"@(\d+),")


class Claim(NamedTuple):
    """A lease on a context whose time has come; `until_ms` names it."""

    tenant: str
    context_id: str
    until_ms: int


class Due(NamedTuple):
    """How many contexts are due, and how long the first of them has been."""

    contexts: int
    age_ms: int


class Copying(NamedTuple):
    """A copy that has a name and is not there yet."""

    generation: int
    name: str


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a move may take.

    Attributes:
        lease_ms: After which somebody else may begin anew. Well above the cold store's deadline.
        drop_after_ms: When an abandoned copy is dropped; by then nobody writes it any more.
    """

    lease_ms: int = 180_000
    drop_after_ms: int = 360_000


class RedisTiers:
    """Where contexts lie. Every method raises REDIS_TROUBLE where Redis can't be reached."""

    def __init__(self, client: Client, names: ColdNames, timing: Timing) -> None:
        self._client = client
        self._names = names
        self._timing = timing
        self._begin, self._abandon, self._put, self._commit, self._rise, self._drop = (
            Script.load("webhook_context", name)
            for name in ("move_begin", "move_abandon", "pack_put", "move_commit", "rise", "drop")
        )
        self._claim, self._reschedule = (
            Script.load("webhook_context", name) for name in ("claim", "reschedule")
        )

    async def states(self, tenant: str, context_ids: Sequence[str]) -> list[State]:
        """Where contexts lie, in order."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for context_id in context_ids:
                pipeline.hmget(keys.context(tenant, context_id), *_STATE)
            return [_state(reply) for reply in await pipeline.execute()]

    async def begin(self, tenant: str, context_id: str, target: Tier.ValueType) -> Copying | None:
        """Take the lease of a context and name its copy; None where it is deleted or somebody has it."""
        cold = target == Tier.TIER_COLD
        starts = self._names.prefix(tenant, context_id) if cold else ""
        ends = secrets.token_hex(16) + (SUFFIX if cold else "")
        where = [keys.context(tenant, context_id)]
        timing = [self._timing.lease_ms, self._timing.drop_after_ms]
        outcome, generation, name = await self._begin(
            self._client, where, ["c" if cold else "w", starts, ends, *timing]
        )
        return Copying(generation, name.decode()) if outcome == 1 else None

    async def abandon(self, tenant: str, context_id: str, copying: Copying) -> None:
        """Give a copy up. Does nothing where it has been committed."""
        args = [copying.generation, self._timing.drop_after_ms]
        await self._abandon(self._client, [keys.context(tenant, context_id)], args)

    async def put_pack(self, tenant: str, context_id: str, name: str, pack: bytes) -> bool:
        """Write a copy into Redis; False where the move is nobody's any more."""
        where = [keys.context(tenant, context_id), keys.packs(tenant, context_id)]
        return bool(await self._put(self._client, where, [name, pack]))

    async def get_pack(self, tenant: str, context_id: str, name: str) -> bytes | None:
        """Read a copy from Redis."""
        pack: Any = await self._client.hget(keys.packs(tenant, context_id), name)
        return pack if pack is None else bytes(pack)

    async def commit(
        self,
        tenant: str,
        context_id: str,
        copying: Copying,
        *,
        target: Tier.ValueType,
        pointer: str,
        version: int | None,
        grace_ms: int,
        fields: Mapping[str, str | bytes | int],
    ) -> bool:
        """Let a verified copy count; False where the context has moved meanwhile.

        Args:
            tenant: Whose context.
            context_id: Which.
            copying: What `begin` gave.
            target: The tier of the copy.
            pointer: Of the pack that was copied; empty for a hot context.
            version: Of the hot context that was packed.
            grace_ms: How long what the copy replaces stays.
            fields: To write into the truth along with it.
        """
        flat = [part for field in fields.items() for part in field]
        args = [copying.generation, copying.name, pointer, "" if version is None else version]
        args += [_NAMES[target], grace_ms, *flat]
        return bool(await self._commit(self._client, [keys.context(tenant, context_id)], args))

    async def rise(
        self,
        tenant: str,
        context_id: str,
        pointer: str,
        grace_ms: int,
        events: Sequence[tuple[str, bytes, bytes]] = (),
    ) -> int:
        """Make a context hot; 1 done, 0 it has moved meanwhile, -1 the events of its pack are needed.

        Args:
            tenant: Whose context.
            context_id: Which.
            pointer: Of the pack that was read.
            grace_ms: How long the pack stays.
            events: Id, sealed event, sealed payload or nothing; oldest first.
        """
        where = [keys.context(tenant, context_id), keys.order(tenant, context_id)]
        flat = [part for event in events for part in event]
        return int(await self._rise(self._client, where, [pointer, grace_ms, *flat]))

    async def drop(
        self, tenant: str, context_id: str, deleted: Sequence[str] = (), *, at_once: bool = False
    ) -> list[str]:
        """Drop what nothing points to any more; the names of what the cold store is to delete now.

        Args:
            tenant: Whose context.
            context_id: Which.
            deleted: Names that the cold store has deleted.
            at_once: Without waiting for the end of the grace, as far as it is in Redis.
        """
        where = [make(tenant, context_id) for make in (keys.context, keys.order, keys.packs)]
        args = [int(at_once), self._timing.drop_after_ms, *deleted]
        return [name.decode() for name in await self._drop(self._client, where, args)]

    async def claim(self, tenants: Sequence[str], most: int) -> list[Claim]:
        """Lease contexts whose time has come: at most so many per tenant."""
        calls = [([keys.due(tenant)], [most, self._timing.lease_ms]) for tenant in tenants]
        claims = []
        for tenant, (until_ms, *ids) in zip(tenants, await self._claim.all(self._client, calls), strict=True):
            claims += [Claim(tenant, one.decode(), until_ms) for one in ids]
        return claims

    async def reschedule(self, claim: Claim, at_ms: int | None) -> None:
        """End a lease: say when the context is due next, None for never, unless somebody has said so."""
        args = [claim.context_id, claim.until_ms, "" if at_ms is None else at_ms]
        await self._reschedule(self._client, [keys.due(claim.tenant)], args)

    async def schedule(self, tenant: str, context_id: str) -> None:
        """Let a context be due at once."""
        await self._client.zadd(keys.due(tenant), {context_id: await self.now_ms()})

    async def schedule_new(self, tenant: str, at_ms: Mapping[str, int]) -> None:
        """Say when contexts are due of which nothing is said yet."""
        if at_ms:
            await self._client.zadd(keys.due(tenant), dict(at_ms), nx=True)

    async def due(self, tenants: Sequence[str]) -> list[Due]:
        """How many contexts of each tenant are due, and for how long."""
        now_ms = await self.now_ms()
        async with self._client.pipeline(transaction=False) as pipeline:
            for tenant in tenants:
                pipeline.zcount(keys.due(tenant), "-inf", now_ms)
                pipeline.zrange(keys.due(tenant), 0, 0, withscores=True)
            replies = await pipeline.execute()
        return [
            Due(count, max(now_ms - int(first[0][1]), 0) if first else 0)
            for count, first in zip(replies[::2], replies[1::2], strict=True)
        ]

    async def now_ms(self) -> int:
        """The server's clock, the one that counts; Unix milliseconds."""
        clock: Any = await self._client.time()
        return int(clock[0]) * 1000 + int(clock[1]) // 1000


def _state(reply: Sequence[bytes | None]) -> State:
    held = dict(zip(_STATE, reply, strict=True))
    drops = [int(at) for at in _DROP_TIME.findall(held["dropping"] or b"")]
    drops += [int(at) for at in (held["source_until"], held["copying_until"]) if at]
    return State(
        exists=held["deleted"] is None and held["version"] is not None,
        tier=TIERS[(held["tier"] or b"hot").decode()],
        version=int(held["version"] or 0),
        packed_version=int(held["packed_version"] or 0),
        updated_ms=int(held["updated"] or 0),
        accessed_ms=int(held["accessed"] or 0),
        moved_ms=int(held["moved"] or 0),
        reads=int(held["reads"] or 0),
        importance=float(held["importance"] or 0),
        pinned=held["pinned"] == b"1",
        hot_bytes=int(held["bytes"] or 0),
        stored_bytes=int(held["stored"] or 0),
        content_bytes=int(held["content"] or 0),
        pointer=(held["pointer"] or b"").decode(),
        checksum=(held["checksum"] or b"").decode(),
        drop_ms=min(drops, default=0),
    )
