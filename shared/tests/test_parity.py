"""Two queues, compared by event id and not by counts."""

from __future__ import annotations

import time
import uuid

from webhook_shared.sqs import parity
from webhook_shared.sqs.parity import Gap, Ledger, Place, compare


def ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def ledgers(redis):
    return {place: Ledger(redis, place, retention_s=3600) for place in Place}


async def test_what_is_in_one_queue_alone_is_named_though_the_counts_are_equal(redis):
    books, now_ms = ledgers(redis), round(time.time() * 1000)
    one, other, both = ids(1), ids(1), ids(3)
    await books[Place.REDIS_QUEUED].note((each, now_ms) for each in one + both)
    await books[Place.SQS_QUEUED].note((each, now_ms) for each in both + other)
    found = await compare(redis, window_s=60, settle_s=0)
    assert found.counts[Place.REDIS_QUEUED] == found.counts[Place.SQS_QUEUED] == 4
    assert found.gaps == [
        Gap(Place.REDIS_QUEUED, Place.SQS_QUEUED, 1, one),
        Gap(Place.SQS_QUEUED, Place.REDIS_QUEUED, 1, other),
    ]


async def test_what_has_just_come_is_not_missed_yet(redis):
    books, now_ms = ledgers(redis), round(time.time() * 1000)
    await books[Place.REDIS_QUEUED].note([(each, now_ms) for each in ids(2)])
    assert (await compare(redis, window_s=60, settle_s=30)).gaps == []
    assert (await compare(redis, window_s=60, settle_s=0)).gaps[0].count == 2


async def test_what_came_late_is_compared_under_the_minute_in_which_it_was_received(redis):
    books, now_ms = ledgers(redis), round(time.time() * 1000)
    event, long_ago_ms = ids(1), now_ms - 20 * 60_000
    await books[Place.REDIS_QUEUED].note([(event[0], long_ago_ms)])
    assert (await compare(redis, window_s=300, settle_s=0)).counts[Place.REDIS_QUEUED] == 0
    found = await compare(redis, window_s=1800, settle_s=0)
    assert found.gaps == [Gap(Place.REDIS_QUEUED, Place.SQS_QUEUED, 1, event)]


async def test_a_queue_that_nobody_watches_misses_nothing(redis):
    books, now_ms = ledgers(redis), round(time.time() * 1000)
    events = ids(3)
    for place in (Place.REDIS_QUEUED, Place.SQS_QUEUED):
        await books[place].note([(each, now_ms) for each in events])
    assert (await compare(redis, window_s=60, settle_s=0)).gaps == []
    await books[Place.REDIS_PROCESSED].note([(events[0], now_ms)])
    (gap,) = (await compare(redis, window_s=60, settle_s=0)).gaps
    assert (gap.seen_at, gap.not_at, set(gap.ids)) == (
        Place.REDIS_QUEUED,
        Place.REDIS_PROCESSED,
        set(events[1:]),
    )


async def test_to_note_an_event_again_changes_nothing(redis):
    books, now_ms = ledgers(redis), round(time.time() * 1000)
    events = ids(2)
    for _ in range(3):
        for place in (Place.REDIS_QUEUED, Place.SQS_QUEUED):
            await books[place].note([(each, now_ms) for each in events])
    found = await compare(redis, window_s=60, settle_s=0)
    assert found.counts[Place.REDIS_QUEUED] == 2
    assert found.gaps == []
    (there, back) = (found.lags[0], found.lags[-1])
    assert (there.seen_at, there.then_at) == (Place.REDIS_QUEUED, Place.SQS_QUEUED)
    assert 0 <= there.p50_ms <= there.p99_ms < 5000
    assert back.p99_ms >= 0


async def test_an_event_costs_24_bytes_a_place_and_goes_by_itself(redis):
    now_ms = round(time.time() * 1000)
    await Ledger(redis, Place.SQS_QUEUED, retention_s=60).note([(each, now_ms) for each in ids(100)])
    key = parity.name(Place.SQS_QUEUED, now_ms // parity.MINUTE_MS)
    assert await redis.strlen(key) == 2400
    assert 0 < await redis.ttl(key) <= 60


async def test_an_id_that_is_no_uuid_is_compared_all_the_same(redis):
    books, now_ms = ledgers(redis), round(time.time() * 1000)
    for place in (Place.REDIS_QUEUED, Place.SQS_QUEUED):
        await books[place].note([("not-a-uuid", now_ms)])
    await redis.append(parity.name(Place.SQS_QUEUED, now_ms // parity.MINUTE_MS), b"cut short")
    assert (await compare(redis, window_s=60, settle_s=0)).gaps == []
