"""What a worker promises, it promises on either queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from webhook_consumer import metrics
from webhook_consumer.entry import DONE, Cause, Dead, Outage, Retry
from webhook_consumer.queue.redis import Delayed
from webhook_consumer.sqs.queue import SqsQueue
from webhook_consumer.workers.worker import Worker
from webhook_shared.claims import Claim
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.sqs.message import Message, encode

from shared.tests.sqs_server import CREDENTIALS, TestQueue, queue_on

#: SQS knows whole seconds.
SHORTEST_LEASE_MS = 1000
#: Every call to SQS is an HTTP request to a server that is not made for speed.
ASK_AGAIN_S = 0.1
SQS_SOON_S = 120.0
#: What an answer that was lost hides comes back within this.
LEASE_MS = 5000


class OnRedis:
    """The stream's own lab."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab

    @asynccontextmanager
    async def queue(self, lease_ms: int) -> AsyncIterator[Any]:
        async with self.lab.queue(lease_ms=lease_ms, block_ms=20) as queue:
            yield queue

    async def publish(self, count: int) -> list[str]:
        return await self.lab.publish(count)

    async def is_empty(self) -> bool:
        return await self.lab.is_empty()

    async def emptied(self) -> None:
        await self.lab.until(self.is_empty)


class OnSqs:
    """A queue on the server, with Redis beside."""

    def __init__(self, lab: Any, made: TestQueue, objects: DirectoryObjectStore) -> None:
        self.lab = lab
        self.made = made
        self.objects = objects

    @asynccontextmanager
    async def queue(self, lease_ms: int) -> AsyncIterator[Any]:
        queue = SqsQueue(
            self.made.sqs,
            self.lab.lane,
            self.lab.redis,
            self.objects,
            block_ms=round(ASK_AGAIN_S * 1000),
            visibility_ms=lease_ms,
        )
        yield queue
        await queue.leave()

    async def publish(self, count: int) -> list[str]:
        names = [f"event-{number}" for number in range(count)]
        for at in range(0, count, 10):
            bodies = [{"MessageBody": encode(message(name))} for name in names[at : at + 10]]
            assert await self.made.sqs.send(bodies) == [None] * len(bodies)
        return names

    async def is_empty(self) -> bool:
        if await self.made.size():
            return False
        # A message that is just being shown again may be counted nowhere for a moment.
        await asyncio.sleep(0.03)
        return await self.made.size() == 0

    async def emptied(self) -> None:
        async def looked() -> bool:
            # Whoever asks that one process without pause keeps it from its work.
            await asyncio.sleep(ASK_AGAIN_S)
            return await self.is_empty()

        await self.lab.until(looked, within_s=SQS_SOON_S)


def message(event_id: str) -> Message:
    return Message(
        event_id, "default", "github", "push", 0, 1, "", Claim("dedup:{webhook-events}:x", 1, 1), b"sealed"
    )


@pytest.fixture(params=["redis", "sqs"])
async def place(request: Any, lab: Any, tmp_path: Any, monkeypatch: Any) -> AsyncIterator[Any]:
    if request.param == "redis":
        yield OnRedis(lab)
        return
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    async with queue_on(request.getfixturevalue("sqs_server")) as made:
        yield OnSqs(lab, made, DirectoryObjectStore(tmp_path))


@asynccontextmanager
async def worker(
    place: Any, handler: Any, *, crashing: bool = False, idle_ms: int = 60_000, **limits: Any
) -> AsyncIterator[Any]:
    chosen = {"workers": 4, "batch": 10, "prefetch": 100, "idle_ms": idle_ms, "drain_s": 2.0, **limits}
    async with place.queue(idle_ms) as queue:
        at_work = Worker(queue, handler, type(place.lab.limits)(**chosen), place.lab.policy, metrics.EVENTS)
        await at_work.__aenter__()
        try:
            yield queue
        finally:
            await (place.lab.kill(at_work) if crashing else at_work.__aexit__(None, None, None))


async def test_all_is_worked_on_once_by_two_workers_and_nothing_stays(place):
    async def slowly(entry):
        await asyncio.sleep(0.001)
        return DONE

    first, second = place.lab.handler(slowly), place.lab.handler(slowly)
    published = await place.publish(40)
    mine = {"prefetch": 20, "idle_ms": LEASE_MS}
    async with worker(place, first, **mine), worker(place, second, **mine):
        await place.emptied()
    assert set(first.seen + second.seen) == set(published)
    # SQS itself may hand out a message twice; what follows is idempotent by event id.
    assert isinstance(place, OnSqs) or len(first.seen + second.seen) == len(published)


async def test_what_a_killed_worker_had_begun_another_takes_over(place):
    published = await place.publish(5)
    forever = asyncio.Event()

    async def never(entry):
        await forever.wait()

    stuck, heir = place.lab.handler(never), place.lab.handler()
    async with worker(place, stuck, crashing=True, idle_ms=SHORTEST_LEASE_MS):
        await place.lab.until(lambda: len(stuck.seen) == 5)
    async with worker(place, heir, idle_ms=SHORTEST_LEASE_MS):
        await place.emptied()
    assert sorted(set(heir.seen)) == published


async def test_a_slow_worker_keeps_what_it_has(place):
    await place.publish(3)

    async def slow(entry):
        await asyncio.sleep(0.55)
        return DONE

    slowly, idle = place.lab.handler(slow), place.lab.handler()
    async with worker(place, slowly, idle_ms=SHORTEST_LEASE_MS):
        await place.lab.until(lambda: bool(slowly.seen))
        async with worker(place, idle, idle_ms=SHORTEST_LEASE_MS):
            await place.emptied()
    assert len(slowly.seen) == 3
    assert idle.seen == []


async def test_a_failure_is_tried_again_with_its_count_and_given_up_with_its_cause(place):
    await place.publish(1)
    counts = []

    def fails(entry):
        counts.append((entry.failures, entry.deliveries))
        return Retry("the other side is tired")

    async with worker(place, place.lab.handler(fails)):
        await place.emptied()
    assert counts == [(0, 1), (1, 1), (2, 1), (3, 1)]
    (letter,) = await place.lab.dead()
    assert (letter["id"], letter["cause"], letter["attempt"]) == ("event-0", Cause.EXHAUSTED, "4")
    assert letter["detail"] == "the other side is tired"


async def test_what_can_not_succeed_is_given_up_at_once(place):
    await place.publish(3)

    def refuses(entry):
        return Dead(Cause.PERMANENT, "no") if entry.text(b"id") == "event-1" else DONE

    async with worker(place, place.lab.handler(refuses)):
        await place.emptied()
    assert [(letter["id"], letter["cause"]) for letter in await place.lab.dead()] == [
        ("event-1", "permanent")
    ]


async def test_what_was_not_started_is_handed_back_at_once(place):
    published = await place.publish(20)
    go = asyncio.Event()

    async def waits(entry):
        await go.wait()
        return DONE

    first, second = place.lab.handler(waits), place.lab.handler()
    async with worker(place, first, workers=1, batch=2, prefetch=20) as queue:
        await place.lab.until(lambda: len(first.seen) == 2)
        await asyncio.sleep(0.1)
        assert queue is not None
        go.set()
    async with worker(place, second):
        await place.emptied()
    assert set(first.seen + second.seen) == set(published)


async def test_an_outage_leaves_everything_where_it_is_and_then_goes_on(place):
    published = await place.publish(4)
    away = [True, True]

    def answers(entry):
        if away and entry.text(b"id") == "event-0":
            away.pop()
            raise Outage("the store is away")
        return DONE

    handler = place.lab.handler(answers)
    async with worker(place, handler):
        await place.emptied()
    assert set(handler.seen) == set(published)
    assert await place.lab.dead() == []


async def test_a_zombie_settles_nothing(place):
    await place.publish(1)
    async with place.queue(SHORTEST_LEASE_MS) as zombie, place.queue(SHORTEST_LEASE_MS) as heir:
        await zombie.join()
        (entry,) = await zombie.read(10)
        await heir.join()
        taken: list[Any] = []

        async def is_taken() -> bool:
            taken.extend(await heir.read(10))
            found = await heir.claim(b"-", held=[], room=10, idle_ms=SHORTEST_LEASE_MS)
            taken.extend(found.entries)
            return bool(taken)

        await place.lab.until(is_taken)
        assert (taken[0].text(b"id"), taken[0].deliveries) == (entry.text(b"id"), 2)
        assert await zombie.delay([Delayed(entry.id, 0, 1)]) == [entry.id]
        assert not await place.is_empty()
        assert await heir.ack([taken[0].id]) == []
        assert await heir.ack([taken[0].id]) in ([], [taken[0].id])
        assert await place.is_empty()
