"""All that the cold store has back into a Redis that has lost it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field

import structlog
from pydantic import SecretStr
from webhook_shared.errors import ServiceError
from webhook_shared.objects.protocol import ObjectStore
from webhook_shared.redis import Client
from webhook_shared.sealing.master_keys import MasterKeys

from webhook_context import metrics
from webhook_context.packs.cold_names import ColdNames, home_of, segment_id_of
from webhook_context.recovery.revival import Outcome, Revival
from webhook_context.recovery.unsealing import Found, Unsealing, Unusable
from webhook_context.segments.member_keys import MemberKeys
from webhook_context.segments.registry_redis import Origin
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.records import Records
from webhook_context.tiers.inventory import Inventory, KnownNames

log = structlog.get_logger()

RESTORED_AT_ONCE = 16
"""Contexts, with all objects that each has."""
PASSED_AT_ONCE = 2000
"""Of objects that are known to be there already, so many go by between two messages."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be restored.

    Attributes:
        beginnings: Of the names of the objects, in order.
        after: Go on behind this name; empty: from the start.
        dry_run: Only tell.
    """

    beginnings: Sequence[str]
    after: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an object, or of a member of a segment.

    Attributes:
        tenant: Empty where the object is not to be read, as are the others.
        reason: Why it failed.
    """

    name: str
    outcome: Outcome
    tenant: str = ""
    context_id: str = ""
    version: int = 0
    event_count: int = 0
    stored_bytes: int = 0
    reason: str = ""


@dataclass(slots=True)
class Progress:
    """The latest results of what was not there already, and totals so far.

    Attributes:
        after: All names up to this one have been seen to.
    """

    results: list[Result] = field(default_factory=list)
    counts: Counter[Outcome] = field(default_factory=Counter)
    stored_bytes: int = 0
    after: str = ""


class Restoring:
    """Restores when told to. Reads the cold store and never writes to it.

    Args:
        client: Of the Redis that is to have everything.
        cold: Has the objects.
        names: Of them.
        master_key: Opens the copies of the keys.
        inventory: Lists them.
        store: Knows the tenants.
        revival: Brings single packs back.
        member_keys: Of segments.
    """

    def __init__(
        self,
        client: Client,
        cold: ObjectStore,
        names: ColdNames,
        master_key: MasterKeys | SecretStr,
        *,
        inventory: Inventory,
        store: RedisContexts,
        revival: Revival,
        member_keys: MemberKeys,
    ) -> None:
        self._client = client
        self._cold = cold
        self._names = names
        self._master_key = master_key
        self._inventory = inventory
        self._store = store
        self._revival = revival
        self._member_keys = member_keys

    async def carry_out(self, order: Order) -> AsyncIterator[Progress]:
        """Restore, and tell how far it has come after each few contexts. The totals are of one object.

        Raises:
            ObjectTrouble, REDIS_TROUBLE: The rest has not been restored; the latest `after` goes on.
        """
        unsealing = Unsealing(
            self._client, self._cold, self._names, self._master_key, restores=not order.dry_run
        )
        known = await self._inventory.known(await self._store.tenants())
        progress = Progress(after=order.after)
        groups: list[list[str]] = []
        objects = unknown = 0
        async for group in self._groups(order):
            groups.append(group)
            objects += len(group)
            unknown += any(name not in known for name in group)
            if unknown == RESTORED_AT_ONCE or objects >= PASSED_AT_ONCE or home_of(group[0]):
                yield await self._carried_out(groups, known, unsealing, order, progress)
                groups, objects, unknown = [], 0, 0
        if groups:
            yield await self._carried_out(groups, known, unsealing, order, progress)

    async def _groups(self, order: Order) -> AsyncIterator[list[str]]:
        for beginning in order.beginnings:
            if order.after > beginning and not order.after.startswith(beginning):
                continue
            after = order.after if order.after.startswith(beginning) else ""
            async for group in self._inventory.groups(beginning, after):
                yield group

    async def _carried_out(
        self,
        groups: list[list[str]],
        known: KnownNames,
        unsealing: Unsealing,
        order: Order,
        progress: Progress,
    ) -> Progress:
        work = (self._restore(group, known, unsealing, dry_run=order.dry_run) for group in groups)
        # All of them end before any trouble is told: what goes on behind has nothing left running before it.
        done = await asyncio.gather(*work, return_exceptions=True)
        progress.results = []
        for results in done:
            if isinstance(results, BaseException):
                raise results
            for result in results:
                _count(result, progress)
        progress.after = groups[-1][-1]
        return progress

    async def _restore(
        self, group: list[str], known: KnownNames, unsealing: Unsealing, *, dry_run: bool
    ) -> list[Result]:
        """All objects of one context, the newest first: what the older ones say beyond it joins it."""
        if home_of(group[0]):
            return await self._restore_segment(group, known, unsealing, dry_run=dry_run)
        results: list[Result] = []
        foreseen = False
        for name in reversed(group):
            if name in known:
                results.append(Result(name, Outcome.PRESENT))
                continue
            result = await self._restore_one(name, unsealing.found(name), unsealing, dry_run=dry_run)
            if dry_run and result.outcome is Outcome.RESTORED:
                # Nothing was written, so the older ones still find nothing.
                result = Result(name, Outcome.PRESENT) if foreseen else result
                foreseen = True
            results.append(result)
        return results

    async def _restore_segment(
        self, group: list[str], known: KnownNames, unsealing: Unsealing, *, dry_run: bool
    ) -> list[Result]:
        """All members of a segment; once nothing in it is needed any more, Redis looks after it again."""
        home = home_of(group[0])
        try:
            segment = await unsealing.segment(group)
        except Unusable as error:
            log.warning("restore.unusable", object=home, reason=error.reason)
            return [Result(home, Outcome.FAILED, reason=error.reason)]
        if segment is None:
            return []
        lacking = [member for member in segment.members if str(segment.place(member)) not in known]
        results = [Result(home, Outcome.PRESENT)] * (len(segment.members) - len(lacking))
        for start in range(0, len(lacking), RESTORED_AT_ONCE):
            portion = lacking[start : start + RESTORED_AT_ONCE]
            results += await asyncio.gather(
                *(
                    self._restore_one(
                        str(segment.place(one)), unsealing.member(segment, one), unsealing, dry_run=dry_run
                    )
                    for one in portion
                )
            )
        if not dry_run and home not in known and all(one.outcome is not Outcome.FAILED for one in results):
            await self._member_keys.adopt(segment.tenant, segment_id_of(home), Origin.RESTORED)
        return results

    async def _restore_one(
        self, name: str, finding: Awaitable[Found], unsealing: Unsealing, *, dry_run: bool
    ) -> Result:
        try:
            found = await finding
        except Unusable as error:
            log.warning("restore.unusable", object=name, reason=error.reason)
            return Result(name, Outcome.FAILED, reason=error.reason)
        try:
            outcome = await self._revival.revive(found, Records(unsealing.keyring), dry_run=dry_run)
        except ServiceError as error:
            if error.reason == "CONTEXT_DELETED":
                return _result(found, Outcome.DELETED)
            log.warning("restore.refused", object=name, reason=error.reason)
            return _result(found, Outcome.FAILED, error.reason)
        if not dry_run:
            metrics.RESTORED.labels(outcome.value).inc()
        return _result(found, outcome)


def _result(found: Found, outcome: Outcome, reason: str = "") -> Result:
    pack = found.pack
    return Result(
        name=found.name,
        outcome=outcome,
        tenant=pack.tenant,
        context_id=pack.context_id,
        version=pack.version,
        event_count=len(pack.events),
        stored_bytes=found.stored_bytes,
        reason=reason,
    )


def _count(result: Result, progress: Progress) -> None:
    progress.counts[result.outcome] += 1
    if result.outcome is Outcome.PRESENT:
        return
    progress.results.append(result)
    if result.outcome in {Outcome.RESTORED, Outcome.JOINED}:
        progress.stored_bytes += result.stored_bytes
