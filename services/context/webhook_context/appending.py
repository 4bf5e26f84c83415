"""The way of events into their contexts: durable, listed, announced, handed to enrichment.

Four steps, each repeatable: the appends themselves, the lists and streams that follow from them, the
marks that enrichment was asked for, and folding what has grown long. A crash between two of them leaves
a context whose next append (or the repetition of this one) does what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import structlog
from webhook_shared import telemetry
from webhook_shared.errors import ServiceError
from webhook_shared.redis import REDIS_TROUBLE, Client

from webhook_context import keys, metrics
from webhook_context.contexts import Appended, Entry
from webhook_context.feeds import Asked, Feeds, Touched
from webhook_context.search import Search
from webhook_context.store_redis import RedisContexts
from webhook_context.tiers_redis import RedisTiers

log = structlog.get_logger()

FOLD_FROM_EVENTS = 32
"""A reader opens at most about so many events that the snapshot does not cover."""

_Where = tuple[str, str]
_Newest = dict[_Where, Appended]


class Appending:
    """Appends batches of events.

    Args:
        client: Of the Redis that has everything.
        store: Has the contexts.
        tiers: Moves them.
        feeds: Tells others.
        search: Finds them.
        hot_ms: How long an untouched context stays hot.
    """

    def __init__(
        self,
        client: Client,
        store: RedisContexts,
        tiers: RedisTiers,
        feeds: Feeds,
        search: Search,
        *,
        hot_ms: int,
    ) -> None:
        self._client = client
        self._tiers = tiers
        self._hot_ms = hot_ms
        self._store = store
        self._feeds = feeds
        self._search = search

    async def append(self, entries: Sequence[Entry]) -> list[Appended | ServiceError]:
        """Make events durable; one result per entry, in order. Idempotent.

        Raises:
            REDIS_TROUBLE: Some may be durable; the same batch may come again.
        """
        with metrics.APPEND_SECONDS.time(), _traced(entries):
            results = await self._store.append(entries)
            newest = _newest_per_context(entries, results)
            if newest:
                await self._follow_up(newest, _traceparents(entries))
        _count(results)
        return results

    async def _follow_up(self, newest: _Newest, traceparents: dict[_Where, str]) -> None:
        touched = [Touched(*where, result.version) for where, result in newest.items()]
        epochs = [(*where, result.epoch) for where, result in newest.items() if result.epoch]
        asked = [
            Asked(*where, traceparents.get(where, "")) for where, result in newest.items() if result.epoch
        ]
        await asyncio.gather(self._list(newest), self._feeds.publish(touched, asked))
        if epochs:
            # Only now: a mark without its entry would silence the context.
            await self._store.mark_queued(epochs)
            metrics.ENRICHMENTS_ASKED.inc(len(epochs))
        for change in touched:
            self._search.touch(change)
        for tenant, context_id in (where for where, result in newest.items() if result.packed):
            # It lies where it lay, the event beside its pack; now it may rise.
            await self._tiers.schedule(tenant, context_id)
        await self._fold(where for where, result in newest.items() if result.unfolded >= FOLD_FROM_EVENTS)

    async def _list(self, newest: _Newest) -> None:
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.sadd(keys.TENANTS, *{tenant for tenant, _ in newest})
            for tenant, scores in _by_tenant(newest).items():
                # GT: an older batch that is late must not put a context back in time.
                pipeline.zadd(keys.index(tenant), scores, gt=True)
                # NX: the time to look is far enough; what holds then is seen then.
                due = {one: update_ms + self._hot_ms for one, update_ms in scores.items()}
                pipeline.zadd(keys.due(tenant), due, nx=True)
            await pipeline.execute()

    async def _fold(self, grown: Iterable[_Where]) -> None:
        for tenant, context_id in grown:
            try:
                await self._store.fold(tenant, context_id)
            except REDIS_TROUBLE as error:
                # The events are durable; only reading them takes longer until the next append folds.
                metrics.FOLD_FAILURES.inc()
                log.warning("append.not_folded", error=type(error).__name__)
                return


@contextmanager
def _traced(entries: Sequence[Entry]) -> Iterator[None]:
    # One span per traced webhook, so that each trace reaches the context that came of it.
    with ExitStack() as spans:
        for entry in entries:
            if telemetry.is_sampled(entry.traceparent):
                name = "context.append"
                spans.enter_context(telemetry.span(name, entry.traceparent, context_id=entry.context_id))
        yield


def _newest_per_context(entries: Sequence[Entry], results: Sequence[Appended | ServiceError]) -> _Newest:
    # Duplicates count too: they may be the repetition that heals a crash.
    newest: _Newest = {}
    for entry, result in zip(entries, results, strict=True):
        if isinstance(result, Appended):
            where = (entry.tenant, entry.context_id)
            if where not in newest or newest[where].version <= result.version:
                newest[where] = result
    return newest


def _traceparents(entries: Sequence[Entry]) -> dict[_Where, str]:
    return {(entry.tenant, entry.context_id): entry.traceparent for entry in entries if entry.traceparent}


def _by_tenant(newest: _Newest) -> dict[str, dict[str, int]]:
    scores: dict[str, dict[str, int]] = {}
    for (tenant, context_id), result in newest.items():
        scores.setdefault(tenant, {})[context_id] = result.update_ms
    return scores


def _outcome(result: Appended) -> str:
    if result.duplicate:
        return "duplicate"
    if result.revived:
        return "revived"
    return "created" if result.created else "appended"


def _count(results: Sequence[Appended | ServiceError]) -> None:
    for result in results:
        outcome = _outcome(result) if isinstance(result, Appended) else result.reason.lower()
        metrics.APPENDS.labels(outcome).inc()
