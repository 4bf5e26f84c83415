"""The way of events into their contexts: durable, listed, announced, handed to enrichment.

Four steps, each repeatable: the appends themselves, the lists and streams that follow from them, the
marks that enrichment was asked for, and folding what has grown long. A crash between two of them leaves
a context whose next append (or the repetition of this one) does what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice

import structlog
from webhook_shared import telemetry
from webhook_shared.coalesce import Coalescer
from webhook_shared.errors import ServiceError
from webhook_shared.redis import REDIS_TROUBLE
from webhook_shared.redis.connection import Command

from webhook_context import errors, metrics
from webhook_context.changes.feeds import Asked, Feeds, Touched
from webhook_context.domain.contexts import Appended, Entry
from webhook_context.finding.search import Search
from webhook_context.store import keys
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.tiers_redis import RedisTiers
from webhook_context.writing.erased_names import ErasedNames
from webhook_context.writing.quotas import Quotas

log = structlog.get_logger()

FOLD_FROM_EVENTS = 32
"""A reader opens at most about so many events that the snapshot does not cover."""

LARGEST_BATCH_EVENTS = 256
BATCHES_AT_ONCE = 3

_Where = tuple[str, str]
_Newest = dict[_Where, Appended]


class Appending:
    """Appends batches of events.

    Args:
        store: Has the contexts.
        tiers: Moves them.
        feeds: Tells others.
        search: Finds them.
        quotas: How much a tenant may keep; None: as much as there is.
        erased_names: Of whom nothing from before their erasure is taken.
        hot_ms: How long an untouched context stays hot.
    """

    def __init__(
        self,
        store: RedisContexts,
        tiers: RedisTiers,
        feeds: Feeds,
        search: Search,
        *,
        erased_names: ErasedNames,
        hot_ms: int,
        quotas: Quotas | None = None,
    ) -> None:
        self._erased_names = erased_names
        self._tiers = tiers
        self._hot_ms = hot_ms
        self._store = store
        self._write = partial(quotas.append, write=store.append) if quotas else store.append
        self._feeds = feeds
        self._search = search
        self._folding: set[_Where] = set()
        # Small calls at the same time cost what one of them does.
        self._batches = Coalescer[Sequence[Entry], list[Appended | ServiceError]](
            self._append_all,
            max_items=LARGEST_BATCH_EVENTS,
            in_flight=BATCHES_AT_ONCE,
            max_weight=LARGEST_BATCH_EVENTS,
            weigh=len,
            joins_at=1.0,
        )

    async def append(self, entries: Sequence[Entry]) -> list[Appended | ServiceError]:
        """Make events durable; one result per entry, in order. Idempotent.

        Raises:
            REDIS_TROUBLE: Some may be durable; the same batch may come again.
        """
        with metrics.APPEND_SECONDS.time(), _traced(entries):
            erased = await self._erased_names.among(entries)
            others = [entry for at, entry in enumerate(entries) if at not in erased] if erased else entries
            results = await self._batches.submit(others) if others else []
            if erased:
                each = iter(results)
                results = [
                    errors.event_erased(entry.context_id) if at in erased else next(each)
                    for at, entry in enumerate(entries)
                ]
        _count(results)
        return results

    async def _append_all(self, calls: list[Sequence[Entry]]) -> list[list[Appended | ServiceError]]:
        entries = [entry for call in calls for entry in call]
        results = await self._write(entries)
        newest = _newest_per_context(entries, results)
        if newest:
            await self._follow_up(newest, _traceparents(entries))
        each = iter(results)
        return [list(islice(each, len(call))) for call in calls]

    async def _follow_up(self, newest: _Newest, traceparents: dict[_Where, str]) -> None:
        touched = [Touched(*where, result.version) for where, result in newest.items()]
        epochs = [(*where, result.epoch) for where, result in newest.items() if result.epoch]
        asked = [
            Asked(*where, traceparents.get(where, "")) for where, result in newest.items() if result.epoch
        ]
        await self._feeds.publish(touched, asked, beside=self._lists(newest))
        if epochs:
            # Only now: a mark without its entry would silence the context.
            await self._store.mark_queued(epochs)
            metrics.ENRICHMENTS_ASKED.inc(len(epochs))
        for change in touched:
            self._search.touch(change)
        for tenant, context_id in (where for where, result in newest.items() if result.packed):
            # It lies where it lay, the event beside its pack; now it may rise.
            await self._tiers.schedule(tenant, context_id)
        await self._fold({where for where, result in newest.items() if result.unfolded >= FOLD_FROM_EVENTS})

    def _lists(self, newest: _Newest) -> list[Command]:
        commands: list[Command] = [("SADD", keys.TENANTS, *{tenant for tenant, _ in newest})]
        for tenant, times in _by_tenant(newest).items():
            # GT: an older batch that is late must not put a context back in time.
            changed = [part for one, update_ms in times.items() for part in (update_ms, one)]
            commands.append(("ZADD", keys.index(tenant), "GT", *changed))
            # NX: the time to look is far enough; what holds then is seen then.
            due = [part for one, update_ms in times.items() for part in (update_ms + self._hot_ms, one)]
            commands.append(("ZADD", keys.due(tenant), "NX", *due))
        return commands

    async def _fold(self, grown: set[_Where]) -> None:
        # What another batch folds right now is folded far enough.
        grown -= self._folding
        self._folding |= grown
        try:
            for tenant in {tenant for tenant, _ in grown}:
                await self._store.fold(tenant, [one for owner, one in grown if owner == tenant])
        except REDIS_TROUBLE as error:
            # The events are durable; only reading them takes longer until the next append folds.
            metrics.FOLD_FAILURES.inc()
            log.warning("append.not_folded", error=type(error).__name__)
        finally:
            self._folding -= grown


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
