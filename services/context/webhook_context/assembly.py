"""A context put together from its stored parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from webhook.context.v1.context_pb2 import Enrichment, Tier

from webhook_context.contexts import Context, Facts
from webhook_context.records import Records


class View(NamedTuple):
    """How much of a context to read: how many of the newest events, and what of it."""

    events: int = 0
    payloads: bool = False
    vector: bool = False


def assemble(records: Records, tenant: str, context_id: str, stored: Any, view: View) -> Context:
    """The context behind a reply of `read.lua`.

    Raises:
        EnvelopeError: A part is not what was sealed there.
    """
    fields, ids, sealed, payloads = stored
    version, count, folded, created, updated, _, _, _, importance, dirty, requests, *parts = fields
    snapshot, enrichment, vector = parts
    said = [
        records.open_event(tenant, context_id, event_id.decode(), event)
        for event_id, event in zip(ids, sealed, strict=True)
    ]
    facts = records.open_snapshot(tenant, context_id, snapshot) if snapshot else Facts()
    event_count, folded_count = int(count or 0), int(folded or 0)
    for one in said[len(said) - (event_count - folded_count) :]:
        facts.learn(one)
    events = [one.event for one in said[-view.events :]] if view.events else []
    for event, payload in zip(events, payloads, strict=bool(payloads)):
        if payload is not None:
            event.payload = records.open_payload(tenant, context_id, event.event_id, payload)
    return Context(
        tenant=tenant,
        context_id=context_id,
        version=int(version),
        create_ms=int(created),
        update_ms=int(updated),
        event_count=event_count,
        importance=float(importance or 0),
        dirty=dirty is not None,
        folded=folded_count,
        requests=(requests or b"").decode(),
        facts=facts,
        events=events,
        enrichment=_enrichment(records, tenant, context_id, [enrichment, vector]),
        tier=Tier.TIER_HOT,
    )


def _enrichment(
    records: Records, tenant: str, context_id: str, parts: Sequence[bytes | None]
) -> Enrichment | None:
    sealed, vector = parts
    if sealed is None:
        return None
    enrichment = records.open_enrichment(tenant, context_id, sealed)
    if vector is not None:
        enrichment.vector.extend(records.open_vector(tenant, context_id, vector))
    return enrichment
