"""Stage two: from a context that has changed to one that is understood again."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import grpc
from webhook_shared import telemetry
from webhook_shared.errors import ServiceError

from webhook_consumer import metrics
from webhook_consumer.context_client import ETAG_MISMATCH, ContextClient
from webhook_consumer.entry import DONE, Cause, Dead, Entry, Failure, Outcome, Retry
from webhook_consumer.failures import blame
from webhook_consumer.insight import Insight, Known
from webhook_consumer.intelligence_client import IntelligenceClient

Where = tuple[str, str]

# Read at first; more only where more is new. The store opens every event that is read.
USUAL_EVENTS = 12
MORE_EVENTS = 50
MOST_EVENTS = 1000
# A summary may leave so many for later.
DEFERRED_EVENTS = 256
# One context alone that can't be had may be that context's own trouble; it would hold up a worker for ever.
FEWEST_AWAY = 2
# Events that have waited for so long are late. Contexts then wait to be understood, a batch so many times as
# long as events are late, and so long at most: with 5 s however late they were, two cores that got 1,000
# events a second spent a third on the same busy contexts again and again.
LATE_S = 0.1
GIVES_WAY_TIMES = 20
GIVES_WAY_S = 30.0
LOOKS_EVERY_S = 0.1
CHANGING = Retry("the context changes faster than it is understood", patient=True, failure=Failure.CONTENDED)


class EnrichmentStage:
    """Has the contexts of a batch understood, and writes that back.

    Enrichment is only ever late: an outage of a model provider, or of intelligence, delays it for as long
    as it takes, and while events are late it gives way to them. A context that changed meanwhile gets what
    was understood of it, stays marked as changed, and comes again a little later for the rest: to a busy one
    understanding it again at once would only be work that is out of date when it is done.

    Args:
        contexts: The context store.
        intelligence: Understands.
        late_s: How late events are just now.
        settle_s: How long after it was queued a context is read. What happens to it meanwhile is understood
            with it; where contexts have waited for longer anyway, nothing is waited for.
    """

    def __init__(
        self,
        contexts: ContextClient,
        intelligence: IntelligenceClient,
        *,
        late_s: Callable[[], Awaitable[float]],
        settle_s: float = 0.0,
    ) -> None:
        self._contexts = contexts
        self._intelligence = intelligence
        self._settle_s = settle_s
        self._late_s = late_s

    async def handle(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """One outcome per entry, in order.

        Raises:
            Outage: Context store or intelligence are away.
        """
        named = [(entry.text(b"tenant"), entry.text(b"context_id")) for entry in entries]
        # A context that stands here twice is understood once.
        wheres = list(dict.fromkeys(where for where in named if all(where)))
        await self._settled(entries)
        await self._give_way()
        with _traced(entries):
            found = await self._understood(wheres)
        nameless = Dead(Cause.UNDECODABLE, "not a context: it lacks tenant or context_id")
        return [found.get(where, nameless) for where in named]

    async def _settled(self, entries: Sequence[Entry]) -> None:
        newest_ms = max((int(entry.id.partition(b"-")[0]) for entry in entries), default=0)
        # By this machine's clock: one that is behind Redis' waits no longer than for the whole time.
        left_s = min(newest_ms / 1000 + self._settle_s - time.time(), self._settle_s)
        if left_s > 0:
            await asyncio.sleep(left_s)

    async def _give_way(self) -> None:
        # What happens meanwhile is understood along with the rest, so what is put off also becomes less.
        began = time.monotonic()
        with metrics.giving_way.track_inprogress():
            while (late_s := await self._late_s()) > LATE_S:
                if time.monotonic() - began >= min(late_s * GIVES_WAY_TIMES, GIVES_WAY_S):
                    break
                await asyncio.sleep(LOOKS_EVERY_S)

    async def _understood(self, wheres: Sequence[Where]) -> dict[Where, Outcome]:
        outcomes: dict[Where, Outcome] = {}
        contexts: list[Known] = []
        for where, known in (await self._read(wheres)).items():
            if isinstance(known, ServiceError):
                outcomes[where] = _failure(known)
            else:
                contexts.append(known)
        insights = await blame.each(self._intelligence.analyze, contexts)
        blame.raise_if_away(insights, least=FEWEST_AWAY)
        understood = []
        for known, insight in zip(contexts, insights, strict=True):
            if isinstance(insight, ServiceError):
                outcomes[known.tenant, known.context_id] = _failure(insight)
            else:
                understood.append((known, insight))
        # At the same time: the store has a round trip for all of them then.
        written = await asyncio.gather(*(self._write(known, insight) for known, insight in understood))
        unwritten: list[ServiceError] = []
        for (known, _), result in zip(understood, written, strict=True):
            where = (known.tenant, known.context_id)
            if isinstance(result, ServiceError):
                unwritten.append(result)
                outcomes[where] = _refused(result)
            else:
                outcomes[where] = result
        if len(unwritten) == len(contexts):
            blame.raise_if_away(unwritten, least=FEWEST_AWAY)
        return outcomes

    async def _read(self, wheres: Sequence[Where]) -> dict[Where, Known | ServiceError]:
        by_tenant: dict[str, list[str]] = defaultdict(list)
        for tenant, context_id in wheres:
            by_tenant[tenant].append(context_id)
        found: dict[Where, Known | ServiceError] = {}
        for tenant, context_ids in by_tenant.items():
            for context_id, known in zip(context_ids, await self._known(tenant, context_ids), strict=True):
                found[tenant, context_id] = known
        return found

    async def _known(self, tenant: str, context_ids: Sequence[str]) -> list[Known | ServiceError]:
        read = partial(self._contexts.known, tenant, most_events=USUAL_EVENTS)
        results = await blame.each(read, context_ids)
        for least in (MORE_EVENTS, DEFERRED_EVENTS):
            for at, known in enumerate(results):
                if isinstance(known, Known) and not known.is_complete:
                    news = min(known.event_count - known.covered_event_count, MOST_EVENTS)
                    read_more = partial(self._contexts.known, tenant, most_events=max(news, least))
                    [results[at]] = await blame.each(read_more, [known.context_id])
        return [replace(known, tenant=tenant) if isinstance(known, Known) else known for known in results]

    async def _write(self, known: Known, insight: Insight) -> Outcome | ServiceError:
        try:
            await self._contexts.enrich(known, insight, even_if_changed=False)
            return DONE
        except ServiceError as error:
            if error.reason != ETAG_MISMATCH:
                return error
        try:
            await self._contexts.enrich(known, insight, even_if_changed=True)
            return CHANGING
        except ServiceError as error:
            return error


@contextmanager
def _traced(entries: Sequence[Entry]) -> Iterator[None]:
    # One span per traced webhook, so that each trace reaches what was understood of its context.
    with ExitStack() as spans:
        for entry in entries:
            parent = entry.text(b"traceparent")
            if telemetry.is_sampled(parent):
                context_id = entry.text(b"context_id")
                spans.enter_context(telemetry.span("webhook.enrich", parent, context_id=context_id))
        yield


def _failure(error: ServiceError) -> Outcome:
    if error.code is grpc.StatusCode.NOT_FOUND:
        # Deleted since it was queued.
        return DONE
    outcome = blame.failure(error)
    return replace(outcome, patient=True) if isinstance(outcome, Retry) else outcome


def _refused(error: ServiceError) -> Outcome:
    if error.code in blame.OUTAGES:
        return Retry(blame.detail_of(error), patient=True, failure=Failure.AWAY)
    return _failure(error)
