"""Gathers what may come into a window: the subject, what is pinned, what is tied to it, what is like it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from webhook.context.v1.context_service_pb2 import LeftOutReason
from webhook_shared.errors import FailedPrecondition, ServiceError

from webhook_context import metrics
from webhook_context.domain.contexts import Context, Filter
from webhook_context.finding.documents import vector_of
from webhook_context.finding.index import Query
from webhook_context.finding.search import Found, Search
from webhook_context.finding.window import (
    PINNED,
    RECENT,
    RETRIEVED,
    SECTIONS,
    SUMMARY,
    Item,
    Limits,
    Missing,
    Section,
    Window,
    filled,
)
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import RedisContexts

MOST_PINNED = 50
MOST_RECENT = 200
MOST_RETRIEVED = 100
MOST_LINKED = 30
"""Each way; so that a context that everybody names still shows what is like it."""
LONGEST_ITEM_CHARS = 4000
"""Of an event, or of a context that is not the subject: so that none takes a section for itself."""
_TEXTS_OF_OTHERS = 2


@dataclass(frozen=True, slots=True)
class Request:
    """What a window is to be about.

    Attributes:
        context_id: Empty: the best match of the query.
        query: None: whatever is like the context.
        budget: Tokens.
    """

    tenant: str
    context_id: str
    query: Query | None
    budget: int
    limits: Mapping[Section, Limits]
    wanted: Filter


@dataclass(slots=True)
class _Gathered:
    items: dict[Section, list[Item]] = field(default_factory=lambda: {section: [] for section in SECTIONS})
    unreadable: list[Missing] = field(default_factory=list)
    incomplete: bool = False

    def miss(self, section: Section, context_id: str) -> None:
        item = Item(section, context_id, 0, "", "")
        self.unreadable.append(Missing(item, 0, LeftOutReason.LEFT_OUT_REASON_UNREADABLE))


class Windows:
    """Assembles windows."""

    def __init__(self, store: RedisContexts, search: Search) -> None:
        self._store = store
        self._search = search

    async def assemble(self, request: Request) -> tuple[Window, bool]:
        """The window, and whether the index lacks contexts yet. The same state gives the same bytes.

        Raises:
            ServiceError: CONTEXT_NOT_FOUND, CONTEXT_UNREADABLE, COLD_STORE_UNREACHABLE, MODEL_MISMATCH.
            REDIS_TROUBLE: The store can't be reached.
        """
        with metrics.WINDOW_SECONDS.time():
            gathered = await self._gathered(request)
            window = filled(gathered.items, request.budget, request.limits)
        return replace(window, missing=[*window.missing, *gathered.unreadable]), gathered.incomplete

    async def _gathered(self, request: Request) -> _Gathered:
        gathered = _Gathered()
        found: Found | None = None
        if request.query is not None:
            found = await self._search.search(request.tenant, request.query, request.wanted, MOST_RETRIEVED)
        context_id = request.context_id or (found.hits[0].context_id if found and found.hits else "")
        subject = await self._subject(request, context_id, gathered) if context_id else None
        if subject is not None and found is None:
            found = await self._alike(request, subject)
        reasons: dict[str, str] = {}
        if subject is not None:
            reasons, gathered.incomplete = await self._tied(request.tenant, subject)
        if found is not None:
            gathered.incomplete = gathered.incomplete or found.incomplete
            reasons = reasons | {
                hit.context_id: "found" for hit in found.hits if hit.context_id not in reasons
            }
        await self._others(request, context_id, reasons, gathered)
        return gathered

    async def _subject(self, request: Request, context_id: str, gathered: _Gathered) -> Context | None:
        view = View(events=MOST_RECENT, vector=True, used=True)
        (subject,) = await self._store.read(request.tenant, [context_id], view)
        if not isinstance(subject, Context):
            if request.context_id:
                # It was named: says what is wrong with it.
                await self._store.read_one(request.tenant, context_id, view)
            if isinstance(subject, ServiceError):
                gathered.miss(SUMMARY, context_id)
            return None
        gathered.items[SUMMARY].append(
            Item(SUMMARY, context_id, subject.version, "subject", _description(subject))
        )
        for event in reversed(subject.events):
            happened = event.occurred_time if event.HasField("occurred_time") else event.received_time
            said = {
                "when": happened.ToJsonString(),
                "what": f"{event.type} {event.action}".strip(),
                "who": event.actor,
            }
            text, cut = _clipped(f"{json.dumps(said, ensure_ascii=False)}\n{event.text}")
            gathered.items[RECENT].append(
                Item(RECENT, context_id, subject.version, "event", text, event.event_id, cut=cut)
            )
        return subject

    async def _alike(self, request: Request, subject: Context) -> Found:
        text = subject.facts.word("title")
        model, vector = vector_of(subject)
        query = Query(text, model, vector, exact=True)
        try:
            return await self._search.search(request.tenant, query, request.wanted, MOST_RETRIEVED)
        except FailedPrecondition:
            # The others' vectors are of another model by now.
            return await self._search.search(request.tenant, Query(text), request.wanted, MOST_RETRIEVED)

    async def _tied(self, tenant: str, subject: Context) -> tuple[dict[str, str], bool]:
        outgoing = subject.facts.recent_links()[:MOST_LINKED]
        incoming, incomplete = await self._search.linking_to(
            tenant, subject.context_id, (), ("", ""), MOST_LINKED
        )
        reasons: dict[str, str] = {}
        for link in outgoing:
            reasons.setdefault(link.context_id, link.relation)
        for link in incoming:
            reasons.setdefault(link.context_id, f"{link.relation} this")
        return reasons, incomplete

    async def _others(
        self, request: Request, subject_id: str, reasons: Mapping[str, str], gathered: _Gathered
    ) -> None:
        pinned = await self._search.pinned(request.tenant, request.wanted, MOST_PINNED)
        asked: list[tuple[Section, str, str]] = [(PINNED, one, "pinned") for one in pinned]
        asked += [(RETRIEVED, one, reason) for one, reason in list(reasons.items())[:MOST_RETRIEVED]]
        ids = list(dict.fromkeys(one for _, one, _ in asked if one != subject_id))
        view = View(events=_TEXTS_OF_OTHERS, unpacked=True)
        found = dict(zip(ids, await self._store.read(request.tenant, ids, view), strict=True))
        for section, context_id, reason in asked:
            other = found.get(context_id)
            if isinstance(other, ServiceError):
                gathered.miss(section, context_id)
            elif other is not None and request.wanted.admits(other):
                text, cut = _clipped(_description(other, newest=_newest(other)))
                gathered.items[section].append(
                    Item(section, context_id, other.version, reason, text, cut=cut)
                )


def _description(context: Context, newest: Sequence[str] = ()) -> str:
    """What is known of a context, line by line; its newest texts where nobody has summed it up yet."""
    facts, enrichment = context.facts, context.enrichment
    summary = enrichment.summary if enrichment else ""
    lines = [
        (name, value)
        for name, value in (
            ("title", facts.word("title")),
            ("kind", f"{facts.word('tool')} {facts.word('kind')}".strip()),
            ("state", facts.word("state")),
            ("labels", ", ".join(facts.labels.value)),
            ("people", ", ".join(facts.recent_actors()[:10])),
            ("events", str(context.event_count)),
            ("attributes", _plain(facts.attributes) if facts.attributes else ""),
            ("summary", summary),
        )
        if value
    ]
    said = [f"{name}: {value}" for name, value in lines]
    return "\n".join(said if summary else [*said, *newest])


def _plain(attributes: Mapping[str, object]) -> str:
    return json.dumps(attributes, ensure_ascii=False, sort_keys=True)


def _newest(context: Context) -> list[str]:
    return [*context.excerpt, *(event.text for event in context.events)][-_TEXTS_OF_OTHERS:]


def _clipped(text: str) -> tuple[str, bool]:
    return text[:LONGEST_ITEM_CHARS], len(text) > LONGEST_ITEM_CHARS
