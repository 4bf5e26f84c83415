"""Finding contexts: the tenants' indexes, built when first asked for and kept fresh after that.

Writes only mark what they touched, so that a burst costs one reading. A task reads the marked contexts in
the background; a search first waits a moment for what was marked before it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import structlog
from webhook_shared.errors import Unavailable
from webhook_shared.redis import Backoff
from webhook_shared.tasks import ended

from webhook_context import metrics
from webhook_context.assembly import View
from webhook_context.contexts import Context, Filter
from webhook_context.excerpts import RECENT_EVENTS, excerpt
from webhook_context.feeds import Touched
from webhook_context.index import Document, Hit, Model, Query, TenantIndex
from webhook_context.store_redis import RedisContexts

log = structlog.get_logger()

BUILD_WAIT_S = 8.0
FRESH_WAIT_S = 1.0
REST_S = 0.1
READ_AT_ONCE = 128
LONGEST_BODY_CHARS = 12_000


@dataclass(slots=True)
class _Kept:
    """The index of one tenant and what it has yet to read.

    Attributes:
        stale: Whether it must be compared with the whole store; so it begins.
        built: Whether it has been, once.
    """

    index: TenantIndex = field(default_factory=TenantIndex)
    waiting: set[str] = field(default_factory=set)
    stale: bool = True
    built: bool = False


class Search:
    """All tenants' indexes of this process."""

    def __init__(self, store: RedisContexts) -> None:
        self._store = store
        self._kept: dict[str, _Kept] = {}
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    async def search(self, tenant: str, query: Query, wanted: Filter, most: int) -> list[Hit]:
        """The best hits, best first.

        Raises:
            FailedPrecondition: MODEL_MISMATCH.
            Unavailable: INDEX_BUILDING; a large tenant was asked about for the first time.
            REDIS_TROUBLE: The index can't be built or brought up to date.
        """
        kept = await self._ready(tenant)
        with metrics.SEARCH_SECONDS.time():
            return await asyncio.to_thread(kept.index.search, query, wanted, most)

    def touch(self, change: Touched) -> None:
        """A context changed."""
        kept = self._kept.get(change.tenant)
        if kept is not None and kept.index.version(change.context_id) < change.version:
            kept.waiting.add(change.context_id)
            self._wake.set()

    def mistrust(self) -> None:
        """Changes may have been missed: compare every index with the store."""
        for kept in self._kept.values():
            kept.stale = True
            metrics.INDEX_MISSED.inc()
        self._wake.set()

    async def keep_fresh(self) -> None:
        """Read what was touched, for as long as it runs, through every outage of Redis."""
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            began = loop.time()
            try:
                for tenant, kept in list(self._kept.items()):
                    if kept.built:
                        await asyncio.shield(self._refreshed(tenant, kept))
                backoff.reset()
                # Between searches the index takes a third of the time at most: writers come first.
                await asyncio.sleep(max(REST_S, 2 * (loop.time() - began)))
            except Exception as error:  # noqa: BLE001  # whatever it is, the reading goes on
                log.warning("search.not_fresh", error=type(error).__name__)
                self._wake.set()
                await backoff.wait()
            self._measure()

    async def close(self) -> None:
        """Stop reading, free the memory."""
        await ended(list(self._refreshing.values()))
        for kept in self._kept.values():
            kept.index.close()

    async def _ready(self, tenant: str) -> _Kept:
        kept = self._kept.setdefault(tenant, _Kept())
        if kept.built and not kept.stale and not kept.waiting and tenant not in self._refreshing:
            return kept
        task = self._refreshed(tenant, kept)
        try:
            # The reading goes on when a searcher gives up.
            await asyncio.wait_for(asyncio.shield(task), FRESH_WAIT_S if kept.built else BUILD_WAIT_S)
        except TimeoutError:
            if task.done():
                raise
            if not kept.built:
                raise Unavailable(
                    "INDEX_BUILDING", "the search index is being built; try again", retry_after_s=2.0
                ) from None
            log.info("search.behind", waiting=len(kept.waiting))
        return kept

    def _refreshed(self, tenant: str, kept: _Kept) -> asyncio.Task[None]:
        # One at a time: it goes on until nothing waits, so whoever comes later can wait for it too.
        task = self._refreshing.get(tenant)
        if task is None:
            task = self._refreshing[tenant] = asyncio.create_task(self._refresh(tenant, kept))
            task.add_done_callback(lambda done: self._ended(tenant, done))
        return task

    def _ended(self, tenant: str, task: asyncio.Task[None]) -> None:
        del self._refreshing[tenant]
        if not task.cancelled() and (error := task.exception()):
            log.warning("search.not_read", error=type(error).__name__)

    async def _refresh(self, tenant: str, kept: _Kept) -> None:
        if kept.stale:
            kept.stale = False
            try:
                await self._compare(tenant, kept)
            except BaseException:
                kept.stale = True
                raise
        await self._drain(tenant, kept)
        kept.built = True

    async def _compare(self, tenant: str, kept: _Kept) -> None:
        listed: set[str] = set()
        async for versions in self._store.versions(tenant):
            listed |= versions.keys()
            kept.waiting |= {one for one, version in versions.items() if kept.index.version(one) != version}
            await self._drain(tenant, kept)
        kept.waiting |= kept.index.ids() - listed

    async def _drain(self, tenant: str, kept: _Kept) -> None:
        while kept.waiting:
            ids = [kept.waiting.pop() for _ in range(min(READ_AT_ONCE, len(kept.waiting)))]
            try:
                found = await self._store.read(
                    tenant, ids, View(events=RECENT_EVENTS, vector=True, unpacked=True)
                )
            except BaseException:
                kept.waiting.update(ids)
                raise
            documents = [_document(one) for one in found if isinstance(one, Context)]
            gone = set(ids) - {document.context_id for document in documents}
            await asyncio.to_thread(kept.index.apply, documents, gone)

    def _measure(self) -> None:
        metrics.INDEXED.set(sum(len(kept.index) for kept in self._kept.values()))
        metrics.INDEX_WAITING.set(sum(len(kept.waiting) for kept in self._kept.values()))


def _document(context: Context) -> Document:
    facts, enrichment = context.facts, context.enrichment
    title = facts.word("title")
    body = [enrichment.summary] if enrichment else []
    body += [facts.word("state"), " ".join(facts.labels.value), " ".join(facts.recent_actors())]
    texts = context.excerpt + excerpt(context.events)
    body += reversed(texts[-RECENT_EVENTS:])
    # Last, so that an id is rarely what a highlight shows.
    body = [*body, context.context_id]
    model, vector = None, []
    if enrichment and len(enrichment.vector):
        vector = list(enrichment.vector)
        by = enrichment.embedding_model
        model = Model(by.provider, by.name, len(vector))
    return Document(
        context_id=context.context_id,
        version=context.version,
        tool=facts.word("tool"),
        kind=facts.word("kind"),
        labels=frozenset(facts.labels.value),
        importance=context.importance,
        update_ms=context.update_ms,
        title=title,
        body="\n".join(part for part in body if part)[:LONGEST_BODY_CHARS],
        model=model,
        vector=vector,
    )
