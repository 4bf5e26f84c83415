"""The publish script: once per event, as often as the window allows."""

from __future__ import annotations

import asyncio

import pytest
from webhook_gateway.outcome import Accepted, Duplicate, Unavailable
from webhook_gateway.publishing.durability import Assurance
from webhook_gateway.publishing.stream import Publisher

from gateway.tests.publications import publication


@pytest.fixture
def publisher(redis) -> Publisher:
    return Publisher(redis, patience_s=0.5, assurance=Assurance(redis, replicas=1, timeout_s=0.2))


async def test_the_same_event_twice_is_in_the_stream_once(publisher, redis):
    for _ in range(3):
        assert await publisher.publish([publication("a")]) == [Accepted("a", quarantined=False)]
    assert await redis.xlen("webhook-events") == 1


async def test_a_batch_is_judged_item_by_item(publisher, redis):
    batch = [publication("a"), publication("b"), publication("c", dedup_key="other")]
    assert await publisher.publish(batch) == [
        Accepted("a", quarantined=False),
        Duplicate("a"),
        Accepted("c", quarantined=False),
    ]
    assert await redis.xlen("webhook-events") == 2


async def test_as_many_pass_as_are_allowed_and_each_stays_idempotent(publisher, redis):
    results = []
    for event_id in ("a", "b", "b", "c", "a", "d"):
        results += await publisher.publish([publication(event_id, occurrences_allowed=3)])
    assert [type(result) for result in results] == [Accepted] * 5 + [Duplicate]
    assert results[-1] == Duplicate("a")
    assert await redis.xlen("webhook-events") == 3


async def test_the_window_counts_from_the_first_event(publisher, redis):
    await publisher.publish([publication("a", occurrences_allowed=2, window_ms=400)])
    await asyncio.sleep(0.25)
    await publisher.publish([publication("b", occurrences_allowed=2, window_ms=400)])
    assert 0 < await redis.pttl("dedup:{webhook-events}:k") < 200
    await asyncio.sleep(0.25)
    assert await publisher.publish([publication("c", window_ms=400)]) == [Accepted("c", quarantined=False)]


async def test_the_entry_carries_its_trace_and_its_bytes(publisher, redis):
    await publisher.publish([publication("a", traceparent="00-1-2-01")])
    [(_, entry)] = await redis.xrange("webhook-events")
    assert entry == {
        b"id": b"a",
        b"tenant": b"default",
        b"tool": b"github",
        b"type": b"push",
        b"received": b"1700000000000",
        b"schema": b"1",
        b"sealed": b"\x00\xff sealed",
        b"dedup": b"k",
        b"traceparent": b"00-1-2-01",
    }


async def test_quarantine_has_its_own_stream_and_window(publisher, redis):
    await publisher.publish([publication("a")])
    assert await publisher.publish([publication("b", quarantined=True)]) == [Accepted("b", quarantined=True)]
    assert await redis.xlen("webhook-quarantine") == 1


async def test_one_item_that_redis_refuses_does_not_harm_its_neighbours(publisher, redis):
    await redis.lpush("dedup:{webhook-events}:broken", "not a string")
    batch = [publication("a"), publication("b", dedup_key="broken"), publication("c", dedup_key="other")]
    first, second, third = await publisher.publish(batch)
    assert (first, third) == (Accepted("a", quarantined=False), Accepted("c", quarantined=False))
    assert isinstance(second, Unavailable)
    assert await redis.xlen("webhook-events") == 2
