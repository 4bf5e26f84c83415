"""How much a tenant may keep: room is made before anything is written, and refused where there is none.

What a tenant has and its limits are in other slots than its contexts, so a write is three steps: reserve (one
script, atomic for the tenant), write, give back what was not needed. Whoever dies in between has reserved too
much, never too little; counting anew mends it. Who has no limit costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

import structlog
from webhook_shared.errors import ResourceExhausted, ServiceError
from webhook_shared.redis import Backoff, Client, Script
from webhook_shared.redis.script import Call
from webhook_shared.sweeps import takes

from webhook_context import metrics
from webhook_context.domain.contexts import Appended, Entry
from webhook_context.store import keys
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.writing.quota_settings import ContextQuotasSection

log = structlog.get_logger()

SEALED_OVER_BYTES = 512
"""How much larger an event may be sealed than it was, its payload too."""
_CONTEXTS, _BYTES = 1, 2

_Results = list[Appended | ServiceError]
_Write = Callable[[Sequence[Entry]], Awaitable[_Results]]


class Limits(NamedTuple):
    """What a tenant may keep; 0 is no limit."""

    contexts: int
    bytes: int


class Use(NamedTuple):
    """What a tenant keeps."""

    contexts: int
    bytes: int


class Quotas:
    """The limits, and who is within them.

    Args:
        client: Has what is used.
        store: Has the contexts.
        settings: The limits.
    """

    def __init__(self, client: Client, store: RedisContexts, settings: ContextQuotasSection) -> None:
        self._client = client
        self._store = store
        self._default = Limits(settings.max_contexts, settings.max_bytes)
        self._own = {name: Limits(one.max_contexts, one.max_bytes) for name, one in settings.tenants.items()}
        self._count_s = settings.count_interval.total_seconds()
        self._is_idle = not any(any(one) for one in (self._default, *self._own.values()))
        self._reserve, self._give_back, self._count = (
            Script.load("webhook_context", f"quota_{name}") for name in ("reserve", "settle", "count")
        )

    def limits(self, tenant: str) -> Limits:
        """Of a tenant."""
        return self._own.get(tenant, self._default)

    async def append(self, entries: Sequence[Entry], write: _Write) -> _Results:
        """Write what there is room for; one result per entry, in order.

        Errors: RESOURCE_EXHAUSTED/CONTEXT_QUOTA_EXCEEDED, BYTE_QUOTA_EXCEEDED, and those of `write`. What is
        there already is so whatever the limits are.

        Raises:
            REDIS_TROUBLE: As of `write`.
        """
        if self._is_idle or not any(any(self.limits(entry.tenant)) for entry in entries):
            return await write(entries)
        refused, counts = await self._reserved(entries)
        admitted = [entry for at, entry in enumerate(entries) if at not in refused]
        written = await write(admitted) if admitted else []
        await self._settle(counts, zip(admitted, written, strict=True))
        each = iter(written)
        return [refused[at] if at in refused else next(each) for at in range(len(entries))]

    async def _reserved(
        self, entries: Sequence[Entry]
    ) -> tuple[dict[int, Appended | ServiceError], dict[str, int]]:
        """What there is no room for, by place; and by tenant the number of the count in which the rest is."""
        by_tenant: dict[str, list[int]] = {}
        for at, entry in enumerate(entries):
            if any(self.limits(entry.tenant)):
                by_tenant.setdefault(entry.tenant, []).append(at)
        calls = []
        for tenant, places in by_tenant.items():
            arguments: list[str | int] = [*self.limits(tenant)]
            for at in places:
                arguments += [entries[at].context_id, _most_bytes(entries[at])]
            calls.append((_places(tenant), arguments))
        refused: dict[int, Appended | ServiceError] = {}
        counts: dict[str, int] = {}
        replies = await self._reserve.all(self._client, calls)
        for (tenant, places), reply in zip(by_tenant.items(), replies, strict=True):
            *answers, counts[tenant] = reply
            for at, answer in zip(places, answers, strict=True):
                if answer:
                    refused[at] = _error(answer, self.limits(tenant))
        if refused:
            await self._excuse(entries, refused)
        return refused, counts

    async def _excuse(self, entries: Sequence[Entry], refused: dict[int, Appended | ServiceError]) -> None:
        """What comes again, or to a context that is deleted, has that answer: it takes no room."""
        asked = list(refused)
        foreseen = await self._store.foresee([entries[at] for at in asked])
        for at, result in zip(asked, foreseen, strict=True):
            if isinstance(result, ServiceError) or result.duplicate:
                refused[at] = result
            else:
                error = refused[at]
                assert isinstance(error, ServiceError)
                metrics.QUOTA_REFUSALS.labels(error.reason.lower()).inc()

    async def _settle(
        self, counts: dict[str, int], done: Iterable[tuple[Entry, Appended | ServiceError]]
    ) -> None:
        reserved, kept = Counter[str](), Counter[str]()
        for entry, result in done:
            if entry.tenant in counts:
                reserved[entry.tenant] += _most_bytes(entry)
                kept[entry.tenant] += result.stored_bytes if isinstance(result, Appended) else 0
        calls: list[Call] = [
            ([keys.usage(tenant)], [counts[tenant], count, kept[tenant]])
            for tenant, count in reserved.items()
        ]
        await self._give_back.all(self._client, calls)

    async def use(self, tenant: str) -> Use:
        """What a tenant keeps, as the limits see it. Bytes are known where there is a limit.

        Raises:
            REDIS_TROUBLE: Not now.
        """
        held = await self._client.hget(keys.usage(tenant), "bytes")
        return Use(await self._store.count(tenant), max(int(held or 0), 0))

    async def count(self, tenant: str) -> int:
        """Count a tenant's bytes anew; returns them.

        Raises:
            REDIS_TROUBLE: The count before holds.
        """
        where = [keys.usage(tenant)]
        _, number = await self._count(self._client, where, [""])
        lying = 0
        async for versions in self._store.versions(tenant):
            for outside in await self._store.outsides(tenant, list(versions)):
                lying += 0 if outside.deleted else outside.lies_bytes
        use, _ = await self._count(self._client, where, [lying, number])
        return int(use)

    async def run(self) -> None:
        """Count what has a limit anew, by one replica at a time, for ever."""
        backoff = Backoff()
        while not self._is_idle:
            try:
                for tenant in {*await self._store.tenants(), *self._own}:
                    turn = keys.usage_turn(tenant)
                    if self.limits(tenant).bytes and await takes(self._client, turn, self._count_s):
                        await self.count(tenant)
                backoff.reset()
                await asyncio.sleep(self._count_s)
            except Exception as error:  # noqa: BLE001  # whatever it is, the counting goes on
                log.warning("quotas.not_counted", error=type(error).__name__)
                await backoff.wait()


def _error(answer: int, limits: Limits) -> ServiceError:
    if answer == _CONTEXTS:
        return ResourceExhausted("CONTEXT_QUOTA_EXCEEDED", f"the tenant has its {limits.contexts} contexts")
    return ResourceExhausted("BYTE_QUOTA_EXCEEDED", f"the tenant has its {limits.bytes} bytes of events")


def _most_bytes(entry: Entry) -> int:
    return len(entry.record) + len(entry.payload) + SEALED_OVER_BYTES


def _places(tenant: str) -> list[str]:
    return [keys.index(tenant), keys.about_to_be(tenant), keys.usage(tenant)]
