"""Forgetting on request: a context, a subject or a whole tenant, in every place. A crash only delays it.

```
 tenant   destroy keys ─▶ contexts, cold objects ─▶ queue, archive... ─▶ settle ─▶ once more
 subject  note name    ─▶ contexts, one by one   ─▶ queue, archive... ─▶ settle ─▶ what came since
 context  tombstone    ─▶ cold objects           ─▶ queue, archive...
```

First comes what refuses late writers: destroyed keys, the digest of a name, a tombstone. Whoever had not
noticed that yet may write for a little while longer, so all is looked through once more when everybody must
have. Each step may be repeated; what is to be looked for elsewhere is on record before it is erased here. A
place that can't be reached is told of and does not end it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from webhook_shared import compression
from webhook_shared.errors import ServiceError
from webhook_shared.mentions import Name
from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.redis import Client
from webhook_shared.sealing import key_destruction
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import KeysDestroyed
from webhook_shared.sealing.key_copies import KeyCopies
from webhook_shared.sealing.key_destruction import destroy_keys, has_key_table, keys_destroyed

from webhook_context import errors, metrics
from webhook_context.erasing.certificate import Signer
from webhook_context.erasing.contexts import COLD_STORE_UNREACHABLE, ErasingContexts
from webhook_context.erasing.elsewhere import Elsewhere, Question
from webhook_context.erasing.jobs import Jobs, Scope, Wanted
from webhook_context.erasing.subjects import ErasingSubjects
from webhook_context.erasing.tally import Count, Tally
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.tiers_redis import RedisTiers
from webhook_context.writing import erased_names
from webhook_context.writing.erased_names import ErasedNames

log = structlog.get_logger()

KEYS, KEY_COPIES, DICTIONARIES = "keys", "key_copies", "dictionaries"
SERVICE_UNREACHABLE, DICTIONARY_IN_USE = "SERVICE_UNREACHABLE", "IN_USE"
_UNREACHED = frozenset({SERVICE_UNREACHABLE, COLD_STORE_UNREACHABLE, "COPY_UNDER_WAY", "CONTENDED"})
"""Why something is left that may go in another run."""


class Told(NamedTuple):
    """How far an erasure has come.

    Attributes:
        counts: Of the places that have changed.
        certificate: At the end; empty before, and after a dry run.
        failure: At the end, where something is left that is not to stay.
    """

    erasure_id: str
    step: str
    counts: Sequence[Count]
    certificate: str = ""
    failure: ServiceError | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Settling:
    """When everybody must have noticed what refuses late writers, seconds."""

    keys_s: float = key_destruction.NOTICED_AFTER_S
    names_s: float = erased_names.NOTICED_AFTER_S

    def after(self, scope: Scope) -> float:
        """For a scope; 0 where it holds at once."""
        return {Scope.TENANT: self.keys_s, Scope.SUBJECT: self.names_s, Scope.CONTEXT: 0.0}[scope]


USUAL_SETTLING = Settling()


@dataclass(frozen=True, slots=True)
class Order:
    """An erasure that somebody asks for; `key_id` names their credential."""

    wanted: Wanted
    key_id: str
    dry_run: bool = False


class Erasing:
    """Erases when told to.

    Args:
        client: Of the Redis that has everything.
        keyring: Has the tenants' keys and dictionaries.
        key_copies: Of the keys, in the cold store.
        jobs: Knows which erasures were begun.
        names: Of subjects that were erased.
        store: Has the contexts.
        tiers: Tells the time.
        contexts: Erases whole contexts.
        subjects: Takes subjects out of contexts.
        elsewhere: The other services.
        signer: Of certificates.
        settling: How long to wait before all is looked through once more.
    """

    def __init__(
        self,
        client: Client,
        keyring: Keyring,
        key_copies: KeyCopies,
        *,
        jobs: Jobs,
        names: ErasedNames,
        store: RedisContexts,
        tiers: RedisTiers,
        contexts: ErasingContexts,
        subjects: ErasingSubjects,
        elsewhere: Sequence[Elsewhere],
        signer: Signer,
        settling: Settling,
    ) -> None:
        self._client = client
        self._keyring = keyring
        self._key_copies = key_copies
        self._jobs = jobs
        self._names = names
        self._store = store
        self._tiers = tiers
        self._contexts = contexts
        self._subjects = subjects
        self._elsewhere = elsewhere
        self._signer = signer
        self._settling = settling

    async def carry_out(self, order: Order) -> AsyncIterator[Told]:
        """Erase, and tell how far it has come; the last one told is `done`.

        Raises:
            ServiceError: TENANT_NOT_FOUND, CONTEXT_NOT_FOUND, TENANT_KEYS_DESTROYED, ERASURE_UNDER_WAY:
                nothing is done.
            REDIS_TROUBLE: The rest is not erased; to be repeated.
        """
        await self._check(order.wanted)
        erasure_id = self._jobs.name(order.wanted)
        if order.dry_run:
            tally = Tally()
            async for step in self._passed(order, erasure_id, tally, since_ms=0):
                yield Told(erasure_id, step, tally.changes())
            yield Told(erasure_id, "", tally.changes(), done=True)
            return
        async with self._jobs.held(erasure_id) as lost:
            async for told in self._erased(order, erasure_id):
                if lost.is_set():
                    raise errors.erasure_under_way(0)
                yield told

    async def _check(self, wanted: Wanted) -> None:
        tenant = wanted.tenant
        if not await has_key_table(self._client, tenant) and tenant not in await self._store.tenants():
            raise errors.tenant_not_found()
        if wanted.scope is Scope.TENANT:
            return
        if await keys_destroyed(self._client, tenant):
            raise errors.keys_destroyed()
        if wanted.scope is Scope.CONTEXT and not await self._contexts.is_known(tenant, wanted.what):
            raise errors.not_found(wanted.what)

    async def _erased(self, order: Order, erasure_id: str) -> AsyncIterator[Told]:
        wanted, loop = order.wanted, asyncio.get_running_loop()
        now_ms = await self._tiers.now_ms()
        begin_ms, tally = await self._jobs.begin(wanted, now_ms)
        log.info("erasing.began", erasure=erasure_id, scope=wanted.scope.value, key_id=order.key_id)
        tally.begin_pass()
        settled_s = loop.time() + self._settling.after(wanted.scope)
        async for step in self._passed(order, erasure_id, tally, since_ms=0):
            await self._jobs.progress(erasure_id, tally)
            yield Told(erasure_id, step, tally.changes())
        if self._settling.after(wanted.scope):
            while (left_s := settled_s - loop.time()) > 0:
                yield Told(erasure_id, "settling", ())
                await asyncio.sleep(min(left_s, 1.0))
            first = [count for count in tally.counts() if not count.is_settled]
            tally.begin_pass()
            # What could not be reached at first is looked through as a whole.
            since_ms = 0 if first else now_ms
            async for step in self._passed(order, erasure_id, tally, since_ms=since_ms):
                await self._jobs.progress(erasure_id, tally)
                yield Told(erasure_id, step, tally.changes())
        if wanted.scope is Scope.TENANT:
            await self._contexts.traces(wanted.tenant, tally)
        yield await self._ended(order, erasure_id, begin_ms, tally)

    async def _ended(self, order: Order, erasure_id: str, begin_ms: int, tally: Tally) -> Told:
        end_ms, counts = await self._tiers.now_ms(), tally.counts()
        certificate = self._signer.signed(
            erasure_id=erasure_id,
            scope=order.wanted.scope.value,
            asked=order.wanted.asked,
            begin_ms=begin_ms,
            end_ms=end_ms,
            counts=counts,
            complete=tally.is_complete,
        )
        await self._jobs.progress(erasure_id, tally)
        await self._jobs.end(erasure_id, end_ms, certificate, complete=tally.is_complete)
        outcome = "complete" if tally.is_complete else "incomplete"
        metrics.ERASURES.labels(order.wanted.scope.value, outcome).inc()
        for count in counts:
            metrics.ERASED.labels(count.place).inc(count.erased)
        log.info("erasing.ended", erasure=erasure_id, outcome=outcome)
        failure = None
        if not tally.is_complete:
            open_ = [count for count in counts if not count.is_settled]
            again = any(count.reason in _UNREACHED for count in open_)
            failure = errors.erasure_incomplete([count.place for count in open_], again=again)
        return Told(erasure_id, "", tally.changes(), certificate, failure, done=True)

    async def _passed(
        self, order: Order, erasure_id: str, tally: Tally, *, since_ms: int
    ) -> AsyncIterator[str]:
        """Look through everything once; yields the step that it is at, now and then."""
        wanted, dry_run = order.wanted, order.dry_run
        here = {Scope.TENANT: self._tenant, Scope.SUBJECT: self._subject, Scope.CONTEXT: self._context}
        event_ids: list[str] = []
        async for found in here[wanted.scope](wanted, tally, since_ms, dry_run=dry_run):
            event_ids += found
            if not dry_run:
                # Whoever goes on after a crash does not find them here any more.
                await self._jobs.note_events(erasure_id, found)
            yield "contexts"
        if not dry_run and wanted.scope is not Scope.TENANT:
            event_ids = await self._jobs.events(erasure_id)
        question = Question(wanted, event_ids, since_ms, dry_run, erasure_id, order.key_id)
        for service in self._elsewhere:
            yield service.name
            try:
                async for counts in service.forget(question):
                    for count in counts:
                        tally.told(count)
                    yield service.name
            except ServiceError as error:
                log.warning("erasing.service_unreachable", service=service.name, reason=error.reason)
                tally.left(service.name, SERVICE_UNREACHABLE)

    async def _context(
        self, wanted: Wanted, tally: Tally, since_ms: int, *, dry_run: bool
    ) -> AsyncIterator[list[str]]:
        await self._show_cold_store(wanted.tenant, dry_run=dry_run)
        yield await self._contexts.event_ids(wanted.tenant, wanted.what)
        await self._contexts.one(wanted.tenant, wanted.what, tally, dry_run=dry_run)
        yield []

    async def _tenant(
        self, wanted: Wanted, tally: Tally, since_ms: int, *, dry_run: bool
    ) -> AsyncIterator[list[str]]:
        if not dry_run:
            await self._shred(wanted.tenant, tally)
        async for _ in self._contexts.all(wanted.tenant, tally, dry_run=dry_run):
            yield []

    async def _show_cold_store(self, tenant: str, *, dry_run: bool) -> None:
        """Let the cold store be there where nothing was ever cold: a directory comes with an object."""
        if dry_run:
            return
        try:
            await self._key_copies.ensure(tenant, self._keyring)
        except ObjectTrouble as error:
            # Whoever lists it says so again, and counts it.
            log.warning("erasing.cold_store_unreachable", error=str(error))

    async def _shred(self, tenant: str, tally: Tally) -> None:
        """The keys first: from here on nothing of the tenant opens, wherever it lies."""
        tally.erased(KEYS, max(await destroy_keys(self._client, tenant), 0))
        with suppress(KeysDestroyed):
            # Here, it is noticed at once.
            await self._keyring.look(tenant)
        try:
            await self._key_copies.destroy(tenant)
            tally.erased(KEY_COPIES, 0)
            tally.erased(DICTIONARIES, max(await self._keyring.dictionaries.forget(tenant), 0))
        except ObjectTrouble as error:
            log.warning("erasing.cold_store_unreachable", error=str(error))
            tally.left(KEY_COPIES, COLD_STORE_UNREACHABLE)

    async def _subject(
        self, wanted: Wanted, tally: Tally, since_ms: int, *, dry_run: bool
    ) -> AsyncIterator[list[str]]:
        await self._show_cold_store(wanted.tenant, dry_run=dry_run)
        name = Name.of(wanted.what)
        assert name is not None, "the request was checked"
        if not dry_run and not since_ms:
            await self._names.note(wanted.tenant, name, await self._tiers.now_ms())
        async for gone in self._subjects.all(wanted.tenant, name, tally, since_ms=since_ms, dry_run=dry_run):
            yield gone
        await self._keyring.prepare([wanted.tenant])
        for entry in self._keyring.dictionaries.entries(wanted.tenant):
            held = compression.known(bytes.fromhex(entry.id))
            if held is not None and name.is_in(held.content):
                # Trained on scrubbed samples, so this is a word of many; what it compressed needs it.
                tally.left(DICTIONARIES, DICTIONARY_IN_USE, 1)
