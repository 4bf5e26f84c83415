"""Webhooks that come while a part of the system is away: never a 500, never silence, never a loss."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest

from tests import payloads, wire
from tests.patience import eventually
from tests.senders import Delivery
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

#: Twice the gateway's patience with security and Redis, and a margin for a busy machine.
ANSWER_WITHIN_S = 8.0
FULL_OUTAGE_S = 2.5
_numbers = itertools.count(1)


def _issue(house: House) -> tuple[Delivery, str]:
    """A delivery of its own, and the context that it will become."""
    number = next(_numbers)
    issue = payloads.github_issue("octo/outage", number, f"Number {number}", "Sent into an outage.")
    return house.senders.github.deliver("issues", issue), f"github:octo/outage:issue:{number}"


async def _refused_for_now(house: House, delivery: Delivery) -> None:
    answer = await house.post(delivery, within_s=ANSWER_WITHIN_S)
    assert answer.status == 503, answer
    assert int(answer.headers["retry-after"]) >= 1


async def _delivered_at_last(house: House, delivery: Delivery, context_id: str) -> None:
    """Send again, as a sender does that was told to come again, and see the event once."""
    answer = await house.post(delivery)
    assert answer.status in {200, 202}, answer
    context = await house.operator.grown(context_id, 1)
    assert [event.event_id for event in context.events] == [answer.event_id]
    assert context.events[0].payload == delivery.body


async def _says(house: House, status: str) -> None:
    """The gateway's own view of its health; it looks once a second."""
    answer = await wire.get(house.http, "/health/webhook")
    assert json.loads(answer.body)["status"] == status
    assert answer.status == (503 if status == "unavailable" else 200)


async def _promised_in_an_outage(house: House, delivery: Delivery) -> str:
    """Have a delivery taken while Redis is away; its event id, and the same again when it is repeated."""
    event_id = await house.accepted(delivery)
    again = await house.post(delivery)
    assert (again.duplicate, again.event_id) == (True, event_id), again
    return event_id


@asynccontextmanager
async def _frozen(house: House, name: str) -> AsyncIterator[None]:
    """A process that is there and does nothing, as in a long garbage collection or a dying disk."""
    pid = house.system.processes[name].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_what_can_not_be_judged_is_not_acknowledged(own_house: House) -> None:
    delivery, context_id = _issue(own_house)
    async with own_house.without("security"):
        await _refused_for_now(own_house, delivery)
        assert (await wire.get(own_house.http, "/health/live")).status == 200
        await eventually(partial(_says, own_house, "unavailable"))
    await own_house.system.healthy()
    await _delivered_at_last(own_house, delivery, context_id)


async def test_a_security_that_hangs_is_given_up_in_time(own_house: House) -> None:
    delivery, context_id = _issue(own_house)
    async with _frozen(own_house, "security"):
        await _refused_for_now(own_house, delivery)
    await own_house.system.healthy()
    await _delivered_at_last(own_house, delivery, context_id)


async def test_without_redis_security_still_judges_and_the_gateway_keeps(own_house: House) -> None:
    delivery, context_id = _issue(own_house)
    forged = delivery.saying(delivery.body + b" ")
    async with own_house.without("redis"):
        event_id = await _promised_in_an_outage(own_house, delivery)
        assert (await own_house.post(forged)).status == 401
        on_disk = b"".join(file.read_bytes() for file in (own_house.system.var / "spool").iterdir())
        assert event_id.encode() in on_disk
        assert b"Sent into an outage." not in on_disk
        await eventually(partial(_says, own_house, "degraded"))
    context = await own_house.operator.grown(context_id, 1, within_s=30.0)
    assert [(event.event_id, event.payload) for event in context.events] == [(event_id, delivery.body)]
    await eventually(partial(_says, own_house, "ok"))


async def test_a_redis_that_hangs_is_given_up_in_time(own_house: House) -> None:
    delivery, context_id = _issue(own_house)
    async with _frozen(own_house, "redis"):
        event_id = await _promised_in_an_outage(own_house, delivery)
    await own_house.system.healthy()
    context = await own_house.operator.grown(context_id, 1, within_s=30.0)
    assert [event.event_id for event in context.events] == [event_id]


@pytest.mark.parametrize("missing", ["context", "consumer", "intelligence"])
async def test_what_works_behind_the_queue_is_not_missed(own_house: House, missing: str) -> None:
    delivery, context_id = _issue(own_house)
    async with own_house.without(missing):
        started_s = time.monotonic()
        event_id = await own_house.accepted(delivery)
        assert time.monotonic() - started_s < 1.0
    context = await own_house.operator.grown(context_id, 1, within_s=30.0)
    assert [event.event_id for event in context.events] == [event_id]
    await own_house.operator.enriched(context_id, within_s=30.0)


async def test_contexts_are_read_and_grow_while_intelligence_is_away(own_house: House) -> None:
    delivery, context_id = _issue(own_house)
    async with own_house.without("intelligence"):
        await own_house.accepted(delivery)
        context = await own_house.operator.grown(context_id, 1)
        assert not context.enrichment.summary
    await own_house.operator.enriched(context_id, within_s=30.0)


@pytest.mark.parametrize("frozen", ["context", "consumer"])
async def test_who_wakes_up_again_repeats_nothing(own_house: House, frozen: str) -> None:
    deliveries = [_issue(own_house) for _ in range(5)]
    async with _frozen(own_house, frozen):
        for delivery, _ in deliveries:
            await own_house.accepted(delivery)
        await asyncio.sleep(FULL_OUTAGE_S)
    for _, context_id in deliveries:
        context = await own_house.operator.grown(context_id, 1, within_s=30.0)
        assert context.event_count == 1


@pytest.mark.parametrize("missing", ["redis", "security", "context", "consumer"])
async def test_no_acknowledgement_given_in_a_long_outage_is_broken(own_house: House, missing: str) -> None:
    deliveries = [_issue(own_house) for _ in range(25)]
    load = asyncio.create_task(_sent_slowly(own_house, deliveries))
    await asyncio.sleep(0.5)
    async with own_house.without(missing):
        await asyncio.sleep(FULL_OUTAGE_S)
    acknowledged = await load
    assert acknowledged
    for context_id, event_id in acknowledged.items():
        context = await own_house.operator.grown(context_id, 1, within_s=30.0)
        assert event_id in {event.event_id for event in context.events}
        assert context.event_count == 1


async def _sent_slowly(house: House, deliveries: Sequence[tuple[Delivery, str]]) -> dict[str, str]:
    """Send each once, over the time of an outage; the contexts and events that were acknowledged."""
    acknowledged = {}
    for delivery, context_id in deliveries:
        answer = await house.post(delivery, within_s=ANSWER_WITHIN_S)
        assert answer.status in {202, 503}, answer
        if answer.status == 202:
            acknowledged[context_id] = answer.event_id
        await asyncio.sleep(FULL_OUTAGE_S / len(deliveries))
    return acknowledged


async def test_an_emptied_redis_is_an_empty_working_system(own_house: House) -> None:
    from webhook_shared.redis import connect

    before, context_id = _issue(own_house)
    await own_house.accepted(before)
    await own_house.operator.grown(context_id, 1)
    client = connect(own_house.system.plan.redis)
    try:
        await client.flushall()
    finally:
        await client.aclose()
    # The operator's key went with everything else; our own processes' does not depend on Redis.
    insider = await own_house.client(own_house.system.secrets["WEBHOOK_INTERNAL_KEY"])
    delivery, context_id = _issue(own_house)
    answer = await own_house.post(delivery)
    assert answer.status == 202
    context = await insider.grown(context_id, 1, within_s=30.0)
    assert [event.event_id for event in context.events] == [answer.event_id]
