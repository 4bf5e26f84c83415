"""An event that ended as a dead letter may be sent again: the gateway claims, the consumer lets go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from webhook_consumer.dead_letters.letters import ALL_LETTERS, DeadLetters
from webhook_consumer.dead_letters.redrive import Canaries, Manner, Redrive
from webhook_consumer.entry import Cause
from webhook_consumer.queue.redis import Burial, Lane, RedisQueue
from webhook_gateway.outcome import Accepted, Duplicate, Publication
from webhook_gateway.publishing.durability import Assurance
from webhook_gateway.publishing.stream import Publisher
from webhook_shared import redis as store
from webhook_shared.partitions import Partitions
from webhook_shared.settings import RedisSection

DAY_MS = 86_400_000
STREAM = "webhook-events:0"


def sent(event_id: str, name: str = "k" * 24, body: str = "1234567", occurrences: int = 1) -> Publication:
    return Publication(
        event_id=event_id,
        tenant="default",
        tool="github",
        type="push",
        received_ms=1,
        schema=1,
        sealed=b"sealed",
        traceparent="",
        dedup_key=name,
        window_ms=DAY_MS,
        occurrences_allowed=occurrences,
        quarantined=False,
        body_digest=body,
        replay_key=f"signed {body}".replace(" ", "-"),
        replay_window_ms=DAY_MS,
    )


class Pair:
    """Who publishes and who gives up, on one Redis and one of several partitions."""

    def __init__(self, client: store.Client, queue: RedisQueue) -> None:
        one = Partitions("webhook-events", 1)
        one.streams = (STREAM,)
        assurance = Assurance(client, replicas=1, timeout_s=0.2)
        self.publisher = Publisher(client, patience_s=1.0, assurance=assurance, partitions=one)
        self.client, self.queue = client, queue

    async def publish(self, *publications: Publication) -> list[object]:
        return list(await self.publisher.publish(publications))

    async def bury(self, event_id: str) -> None:
        """Work on what waits, and give up this event."""
        for entry in await self.queue.read(100):
            if entry.text(b"id") == event_id:
                burial = Burial(entry.id, Cause.EXHAUSTED, "it never worked", 3, "alike")
                assert await self.queue.bury([burial]) == []
            else:
                await self.queue.ack([entry.id])

    async def records(self) -> list[bytes]:
        return sorted([name async for name in self.client.scan_iter("dedup:*")])


@pytest.fixture
async def pair(valkey: RedisSection, redis: store.Client) -> AsyncIterator[Pair]:
    blocking = store.connect(valkey, block_s=0.1)
    lane = Lane("events", STREAM, "webhook-processors", "webhook-events-dlq")
    queue = RedisQueue(lane, redis, blocking, block_ms=100, lease_ms=60_000)
    await queue.join()
    yield Pair(redis, queue)
    await blocking.aclose()


async def redriven(pair: Pair) -> int:
    """How many dead letters went back."""
    lanes = [pair.queue.lane]
    letters = DeadLetters(pair.client, lanes)
    redrive = Redrive(pair.client, letters, Canaries(pair.client))
    told = [each async for each in redrive.run(letters.matching(ALL_LETTERS), Manner(canary=False))]
    return told[-1].redriven


def accepted(event_id: str) -> Accepted:
    return Accepted(event_id, quarantined=False)


async def test_a_redelivery_makes_a_new_event(pair: Pair) -> None:
    assert await pair.publish(sent("a"), sent("b")) == [accepted("a"), Duplicate("a")]
    await pair.bury("a")
    assert await pair.records() == []
    # By its sender, by hand, and under whatever id.
    assert await pair.publish(sent("c", name="n" * 24)) == [accepted("c")]
    assert await pair.publish(sent("d")) == [Duplicate("c", renamed=True)]
    letters: Any = await pair.client.xrange("webhook-events-dlq")
    [(_, letter)] = letters
    assert (letter[b"id"], letter[b"cause"]) == (b"a", b"exhausted")


async def test_what_was_done_stays_known(pair: Pair) -> None:
    await pair.publish(sent("a"))
    await pair.bury("nobody")
    assert await pair.publish(sent("b")) == [Duplicate("a")]


async def test_others_of_its_id_keep_their_claims(pair: Pair) -> None:
    """Of three that may pass two are left, and one more passes; of two in conflict one is still known."""
    await pair.publish(*(sent(event_id, occurrences=3) for event_id in "abc"))
    await pair.bury("a")
    again = [sent(event_id, occurrences=3) for event_id in "de"]
    assert await pair.publish(*again) == [accepted("d"), Duplicate("b")]
    ttl_ms = await pair.client.pttl(f"dedup:{{{STREAM}}}:{'k' * 24}")
    assert 0 < ttl_ms <= DAY_MS
    await pair.publish(sent("x", name="m" * 24, body="one"), sent("y", name="m" * 24, body="two"))
    await pair.bury("y")
    assert await pair.publish(sent("z", name="m" * 24, body="one")) == [Duplicate("x")]


async def test_a_claim_that_somebody_else_has_by_now_is_left_alone(pair: Pair) -> None:
    """Its window was over, and the event came once more before the first one was given up."""
    await pair.publish(sent("a"))
    await pair.client.delete(*await pair.records())
    assert await pair.publish(sent("b")) == [accepted("b")]
    await pair.bury("a")
    assert await pair.publish(sent("c")) == [Duplicate("b")]


async def test_a_redriven_letter_keeps_its_repetitions_out_again(pair: Pair) -> None:
    """By the id, by what is signed, and for as long as was left; a second death frees it once more."""
    await pair.publish(sent("a"))
    records = await pair.records()
    await pair.bury("a")
    assert await redriven(pair) == 1
    assert await pair.records() == records
    left_ms = [await pair.client.pttl(record) for record in records]
    assert all(0 < ms <= DAY_MS for ms in left_ms)
    assert await pair.publish(sent("b")) == [Duplicate("a")]
    assert await pair.publish(sent("c", name="n" * 24)) == [Duplicate("a", renamed=True)]
    await pair.bury("a")
    assert await pair.publish(sent("d")) == [accepted("d")]


async def test_a_delivery_that_came_before_the_redrive_keeps_its_claim(pair: Pair) -> None:
    await pair.publish(sent("a"))
    await pair.bury("a")
    assert await pair.publish(sent("b")) == [accepted("b")]
    assert await redriven(pair) == 1
    assert await pair.publish(sent("c")) == [Duplicate("b")]
    assert await pair.publish(sent("e", name="n" * 24)) == [Duplicate("b", renamed=True)]
    await pair.bury("b")
    # The redriven one is still there, and still known.
    assert await pair.publish(sent("d")) == [Duplicate("a")]


async def test_a_letter_of_an_earlier_version_is_redriven_as_it_is(pair: Pair) -> None:
    await pair.publish(sent("a"))
    await pair.bury("a")
    letters: Any = await pair.client.xrange("webhook-events-dlq")
    [(letter_id, letter)] = letters
    del letter[b"freed"]
    await pair.client.xdel("webhook-events-dlq", letter_id)
    await pair.client.xadd("webhook-events-dlq", letter)
    assert await redriven(pair) == 1
    assert await pair.publish(sent("b")) == [accepted("b")]
