"""One trace per webhook, from the HTTP edge to the context and what was understood of it."""

from __future__ import annotations

import asyncio

import pytest

from tests import payloads
from tests.collector import Collector, Recorded
from tests.patience import eventually
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUIET_S = 0.5

ANALYZE = "/webhook.intelligence.v1.IntelligenceService/Analyze"
#: What must have been done to a webhook, and by whom, if nothing is lost on the way.
STAGES = {
    ("webhook-gateway", "webhook.receive"),
    ("webhook-security", "security.admit"),
    ("webhook-consumer", "webhook.process"),
    ("webhook-context", "context.append"),
    ("webhook-consumer", "webhook.enrich"),
    ("webhook-intelligence", ANALYZE),
}


async def _trace_of(collector: Collector, trace_id: str) -> list[Recorded]:
    """A trace, as soon as all who must have worked on it have told of it."""

    async def attempt() -> list[Recorded]:
        found = collector.trace(trace_id)
        seen = {(recorded.process, recorded.span.name) for recorded in found}
        assert not STAGES - seen, f"missing: {STAGES - seen}; there are {sorted(seen)}"
        return found

    return await eventually(attempt)


async def _quiet(collector: Collector) -> None:
    """Wait until what earlier tests have sent has arrived."""

    async def attempt() -> None:
        before = len(collector.spans())
        await asyncio.sleep(QUIET_S)
        assert len(collector.spans()) == before

    await eventually(attempt)


def _begun(collector: Collector) -> set[str]:
    """The traces that began with a webhook."""
    return {recorded.trace_id for recorded in collector.spans() if recorded.span.name == "webhook.receive"}


async def _trace_id_of(house: House, collector: Collector, number: int) -> str:
    """Send one webhook to a system that has nothing else to do, and find the trace that began with it."""
    await _quiet(collector)
    before = _begun(collector)
    issue = payloads.github_issue("octo/traced", number, "Follow me", "All the way.")
    await house.accepted(house.senders.github.deliver("issues", issue))
    await house.operator.enriched(f"github:octo/traced:issue:{number}")

    async def attempt() -> str:
        begun = _begun(collector) - before
        assert len(begun) == 1
        return begun.pop()

    return await eventually(attempt)


async def test_one_trace_passes_through_every_service(house: House, collector: Collector) -> None:
    trace_id = await _trace_id_of(house, collector, 1)
    spans = await _trace_of(collector, trace_id)
    assert {recorded.trace_id for recorded in spans} == {trace_id}


async def test_the_spans_of_a_trace_hang_together(house: House, collector: Collector) -> None:
    trace_id = await _trace_id_of(house, collector, 2)
    await _trace_of(collector, trace_id)

    async def attempt() -> None:
        spans = collector.trace(trace_id)
        known = {recorded.span.span_id for recorded in spans}
        roots = [recorded for recorded in spans if not recorded.span.parent_span_id]
        assert [root.span.name for root in roots] == ["webhook.receive"]
        orphans = [
            (recorded.process, recorded.span.name)
            for recorded in spans
            if recorded.span.parent_span_id and recorded.span.parent_span_id not in known
        ]
        assert not orphans

    await eventually(attempt)


async def test_a_sender_can_not_choose_its_trace(house: House, collector: Collector) -> None:
    chosen = "0af7651916cd43dd8448eb211c80319c"
    issue = payloads.github_issue("octo/traced", 3, "Follow mine", "Please.")
    delivery = house.senders.github.deliver("issues", issue)
    await house.accepted(delivery.having("traceparent", f"00-{chosen}-b7ad6b7169203331-01"))
    await house.operator.enriched("github:octo/traced:issue:3")
    assert not collector.trace(chosen)
