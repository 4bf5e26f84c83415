"""Finding contexts: the tenants' indexes, built in the background and kept fresh after that.

Writes only mark what they touched, so that a burst costs one reading. A task reads the marked contexts in
the background. A search first has them read, so that it finds what was written before it; where many are
marked though the last reading was a moment ago, it goes by that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import structlog
from webhook.context.v1.context_pb2 import Tier
from webhook_shared.redis import Backoff
from webhook_shared.tasks import ended

from webhook_context import metrics
from webhook_context.changes.feeds import DELETED, VECTORS, Touched
from webhook_context.domain.contexts import Context, Filter, Link
from webhook_context.domain.excerpts import RECENT_EVENTS
from webhook_context.domain.lifecycle import TIERS
from webhook_context.finding.documents import document_of
from webhook_context.finding.index import Hit, Query, TenantIndex
from webhook_context.finding.next_vectors import NextVectors
from webhook_context.finding.vectors import EXACT_BELOW
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import RedisContexts

log = structlog.get_logger()

BUILD_WAIT_S = 3.0
FRESH_WAIT_S = 1.0
MANY_WAIT_S = 0.25
"""How long a search waits for what has changed: a few contexts, or more than FEW of them."""
REST_S = 1.0
"""Whoever searches does not wait for it; what changes twice meanwhile is read once."""
UNASKED_REST_S = 5.0
UNASKED_AFTER_S = 30.0
"""Where nobody has searched for so long, there is time."""
READ_AT_ONCE = 64
FEW = 16
"""Contexts that are always read before a search is answered; of more, searches would read for all writers."""


@dataclass(slots=True)
class _Kept:
    """The index of one tenant and what it has yet to read.

    Attributes:
        waiting: Contexts to be read, and what version of each was told of.
        reading: Those of them that are being read.
        read_at: When the last reading ended, in the time of the loop.
        moved: Contexts whose tier alone has changed, and to which.
        stale: Whether it must be compared with the whole store; so it begins.
        whole: Whether it has been, and nothing was missed since.
        built: Whether it has been, once.
        asked: Who wait for what waits now.
    """

    index: TenantIndex
    waiting: dict[str, int] = field(default_factory=dict)
    reading: dict[str, int] = field(default_factory=dict)
    read_at: float = float("-inf")
    moved: dict[str, Tier.ValueType] = field(default_factory=dict)
    stale: bool = True
    whole: bool = False
    built: bool = False
    asked: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def behind(self) -> int:
        """Contexts that have changed since the index read them."""
        return len(self.waiting) + len(self.reading)

    def lacks(self, change: Touched) -> bool:
        """Whether a change is neither in the index nor in what is being read, which was told of it before."""
        if change.what in {DELETED, VECTORS}:
            return True
        return change.version > max(
            self.index.version(change.context_id), self.reading.get(change.context_id, 0)
        )


class Found(NamedTuple):
    """What a search found.

    Attributes:
        incomplete: Whether the index lacks contexts yet.
        indexed: How many it holds.
    """

    hits: list[Hit]
    incomplete: bool
    indexed: int


class Search:
    """All tenants' indexes of this process.

    Args:
        store: Has the contexts.
        coming: Has their vectors of the next model.
        build_at_start: Index every tenant, not only those that are asked about.
        exact_below: From so many contexts of a tenant on, a graph finds the nearest vectors.
    """

    def __init__(
        self,
        store: RedisContexts,
        coming: NextVectors,
        *,
        build_at_start: bool = True,
        exact_below: int = EXACT_BELOW,
    ) -> None:
        self._store = store
        self._coming = coming
        self._build_at_start = build_at_start
        self._exact_below = exact_below
        self._kept: dict[str, _Kept] = {}
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._discovered = not build_at_start
        self._asked_at = float("-inf")

    async def search(self, tenant: str, query: Query, wanted: Filter, most: int) -> Found:
        """The best hits, best first.

        Raises:
            FailedPrecondition: MODEL_MISMATCH.
            REDIS_TROUBLE: The index can't be built or brought up to date.
        """
        kept = await self._ready(tenant)
        with metrics.SEARCH_SECONDS.time():
            hits = await asyncio.to_thread(kept.index.search, query, wanted, most)
        return Found(hits, not kept.whole, len(kept.index))

    async def pinned(self, tenant: str, wanted: Filter, most: int) -> list[str]:
        """Pinned contexts, the most important first.

        Raises:
            REDIS_TROUBLE: The index can't be built or brought up to date.
        """
        kept = await self._ready(tenant)
        return await asyncio.to_thread(kept.index.pinned, wanted, most)

    async def linking_to(
        self, tenant: str, context_id: str, relations: Sequence[str], after: tuple[str, str], most: int
    ) -> tuple[list[Link], bool]:
        """Who names a context, as (relation, id), in this order; and whether the index lacks contexts yet.

        Raises:
            REDIS_TROUBLE: The index can't be built or brought up to date.
        """
        kept = await self._ready(tenant)
        return await asyncio.to_thread(
            kept.index.linking_to, context_id, relations, after, most
        ), not kept.whole

    def touch(self, change: Touched) -> None:
        """A context changed."""
        kept = self._keep(change.tenant) if self._build_at_start else self._kept.get(change.tenant)
        if kept is None:
            return
        if change.what in TIERS:
            # Its content is the same; where it is not held yet, it is read with its tier.
            kept.moved[change.context_id] = TIERS[change.what]
            self._wake.set()
        elif kept.lacks(change):
            known = kept.waiting.get(change.context_id, 0)
            kept.waiting[change.context_id] = max(known, change.version)
            self._wake.set()

    def mistrust(self) -> None:
        """Changes may have been missed: compare every index with the store."""
        for kept in self._kept.values():
            kept.stale, kept.whole = True, False
            metrics.INDEX_MISSED.inc()
        self._discovered = not self._build_at_start
        self._wake.set()

    async def keep_fresh(self) -> None:
        """Read what was touched, for as long as it runs, through every outage of Redis."""
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._discover()
                for tenant, kept in list(self._kept.items()):
                    if self._build_at_start or kept.built:
                        await asyncio.shield(self._refreshed(tenant, kept))
                backoff.reset()
                await asyncio.sleep(self._rest_s())
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

    def _keep(self, tenant: str) -> _Kept:
        kept = self._kept.get(tenant)
        if kept is None:
            kept = self._kept[tenant] = _Kept(TenantIndex(self._exact_below))
        return kept

    async def _discover(self) -> None:
        if not self._discovered:
            for tenant in await self._store.tenants():
                self._keep(tenant)
            self._discovered = True

    def _rest_s(self) -> float:
        idle_s = asyncio.get_running_loop().time() - self._asked_at
        return REST_S if idle_s < UNASKED_AFTER_S else UNASKED_REST_S

    async def _ready(self, tenant: str) -> _Kept:
        kept = self._keep(tenant)
        self._asked_at = now = asyncio.get_running_loop().time()
        behind = kept.behind
        if kept.built and not kept.stale:
            is_recent = now - kept.read_at < REST_S
            if (behind > FEW and is_recent) or not (behind or tenant in self._refreshing):
                return kept
        task = self._refreshed(tenant, kept)
        read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        kept.asked.append(read)
        # What changes from now on need not be waited for; a first building is waited for as a whole. The
        # reading goes on when a searcher gives up.
        awaited = [task, read] if kept.built else [task]
        fresh_wait_s = MANY_WAIT_S if behind > FEW else FRESH_WAIT_S
        timeout_s = fresh_wait_s if kept.built else BUILD_WAIT_S
        await asyncio.wait(awaited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and not read.done():
            await task
        elif not task.done() and not read.done():
            log.info("search.behind", waiting=kept.behind)
        return kept

    def _refreshed(self, tenant: str, kept: _Kept) -> asyncio.Task[None]:
        # One at a time: it reads once more for whoever comes later, so he can wait for it too.
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
            # Where more was missed meanwhile, it is compared once more.
            kept.whole = not kept.stale
        await self._drain(tenant, kept)
        kept.built = True

    async def _compare(self, tenant: str, kept: _Kept) -> None:
        listed: set[str] = set()
        async for versions in self._store.versions(tenant):
            listed |= versions.keys()
            changed = {one: held for one, held in versions.items() if kept.index.version(one) != held}
            kept.waiting = changed | kept.waiting
            await self._drain(tenant, kept)
        kept.waiting = dict.fromkeys(kept.index.ids() - listed, 0) | kept.waiting
        await self._drain(tenant, kept)

    async def _drain(self, tenant: str, kept: _Kept) -> None:
        """Read what waits now, and again for whoever asked meanwhile.

        No more: a context that is written all the time would else be read all the time.
        """
        while True:
            asked, kept.asked = kept.asked, []
            kept.reading, kept.waiting = kept.waiting, {}
            try:
                await self._read_all(tenant, kept, hurried=bool(asked))
            except BaseException:
                kept.waiting = kept.reading | kept.waiting
                kept.reading = {}
                kept.asked += asked
                raise
            kept.read_at = asyncio.get_running_loop().time()
            _answer(asked)
            if not kept.asked:
                return

    async def _read_all(self, tenant: str, kept: _Kept, *, hurried: bool) -> None:
        """Read what is to be read now; what has been is taken out of the set."""
        loop = asyncio.get_running_loop()
        while kept.reading or kept.moved:
            began = loop.time()
            ids = list(islice(kept.reading, READ_AT_ONCE))
            await self._read_some(tenant, kept, ids)
            for one in ids:
                del kept.reading[one]
            self._measure()
            if not (hurried or kept.asked):
                # Nobody waits, and writers come first: half of the time for a first building, else a third.
                await asyncio.sleep((2 if kept.built else 1) * (loop.time() - began))

    async def _read_some(self, tenant: str, kept: _Kept, ids: Sequence[str]) -> None:
        found = await self._store.read(tenant, ids, View(events=RECENT_EVENTS, vector=True, unpacked=True))
        coming = await self._coming.find(tenant, ids) if ids else {}
        documents = [
            document_of(one, coming.get(one.context_id)) for one in found if isinstance(one, Context)
        ]
        gone = set(ids) - {document.context_id for document in documents}
        moved, kept.moved = kept.moved, {}
        await asyncio.to_thread(kept.index.apply, documents, gone, moved)

    def _measure(self) -> None:
        metrics.INDEXED.set(sum(len(kept.index) for kept in self._kept.values()))
        metrics.INDEX_WAITING.set(sum(kept.behind for kept in self._kept.values()))
        metrics.INDEX_INCOMPLETE.set(sum(not kept.whole for kept in self._kept.values()))


def _answer(asked: Sequence[asyncio.Future[None]]) -> None:
    for one in asked:
        if not one.done():
            one.set_result(None)
