"""SQS as it is: it forgets nothing, repeats much, and fails in parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from webhook_consumer import metrics
from webhook_consumer.admin import answers
from webhook_consumer.admin.backlog import Backlog
from webhook_consumer.entry import DONE, Cause, Retry
from webhook_consumer.sqs.queue import SqsQueue
from webhook_consumer.sqs.stage import SqsStage
from webhook_consumer.workers.worker import Worker
from webhook_shared.claims import Claim, Claims
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectMissing
from webhook_shared.sqs.client import Sqs
from webhook_shared.sqs.message import OBJECT_PREFIX, Message, Stored, encode

from shared.tests.s3_server import Line, failing_line
from shared.tests.sqs_server import CREDENTIALS, THROTTLED, TestQueue, failed, queue_on


@pytest.fixture(autouse=True)
def credentials(monkeypatch: Any) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


class Hall:
    """A queue with a line to it that fails on demand, and a worker at it."""

    def __init__(self, lab: Any, made: TestQueue, line: Line, objects: DirectoryObjectStore) -> None:
        self.lab = lab
        self.made = made
        self.line = line
        self.objects = objects

    async def put(self, *messages: Message) -> None:
        for message in messages:
            await self.made.send(encode(message))

    @asynccontextmanager
    async def queue(self) -> AsyncIterator[SqsQueue]:
        queue = SqsQueue(
            self.made.sqs, self.lab.lane, self.lab.redis, self.objects, block_ms=20, visibility_ms=30_000
        )
        yield queue
        await queue.leave()

    @asynccontextmanager
    async def worker(self, handler: Any) -> AsyncIterator[SqsQueue]:
        stage = SqsStage(handler, Claims(self.lab.redis), self.objects)
        async with (
            self.queue() as queue,
            Worker(queue, stage, self.lab.limits, self.lab.policy, metrics.EVENTS),
        ):
            yield queue

    async def emptied(self) -> None:
        # A message that is just being shown again may be counted nowhere for a moment.
        await self.lab.until(self.is_empty)
        await asyncio.sleep(0.03)
        await self.lab.until(self.is_empty)

    async def is_empty(self) -> bool:
        # Around the line, whose next faults are for the worker.
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = await self.made.client.get_queue_attributes(QueueUrl=self.made.url, AttributeNames=names)
        return not any(map(int, found["Attributes"].values()))


@pytest.fixture
async def hall(sqs_server: str, lab: Any, tmp_path: Any) -> AsyncIterator[Hall]:
    async with failing_line(sqs_server) as line, queue_on(sqs_server, url=line.url) as made:
        yield Hall(lab, made, line, DirectoryObjectStore(tmp_path))


def event(
    number: int,
    *,
    key: str = "",
    sealed: bytes = b"sealed",
    stored: Stored | None = None,
    received_ms: int | None = None,
) -> Message:
    if received_ms is None:
        received_ms = round(time.time() * 1000)
    claim = Claim(f"dedup:{{webhook-events}}:{key or number}", 1, 60_000)
    return Message(f"event-{number}", "default", "github", "push", received_ms, 1, "", claim, sealed, stored)


async def test_what_no_gateway_wrote_ends_in_the_dead_letters_by_name(hall):
    await hall.made.send("hello")
    await hall.made.send('{"some": "json"}')
    await hall.made.send(encode(event(1))[:-20])
    await hall.made.send(encode(event(2)).replace('"webhook":1', '"webhook":9'))
    await hall.made.send(encode(event(3)).replace("dedup:{webhook-events}", "api-keys"))
    handler = hall.lab.handler()
    async with hall.worker(handler):
        await hall.emptied()
    assert handler.seen == []
    letters = await hall.lab.dead()
    assert {letter["cause"] for letter in letters} == {Cause.UNDECODABLE}
    assert {letter["body"] for letter in letters} >= {"hello", '{"some": "json"}'}
    details = sorted(letter["detail"] for letter in letters)
    assert sum("cut short" in detail for detail in details) == 2
    assert sum("version" in detail for detail in details) == 1
    assert sum("names what is not an event's" in detail for detail in details) == 1


async def test_a_large_body_is_fetched_and_goes_with_its_message(hall):
    sealed = b"x" * 300_000
    name = f"{OBJECT_PREFIX}event-1-abc"
    await hall.objects.put(name, sealed)
    await hall.put(event(1, sealed=b"", stored=Stored.of(name, sealed)))
    bodies = []
    async with hall.worker(hall.lab.handler(lambda entry: bodies.append(entry.fields[b"sealed"]) or DONE)):
        await hall.emptied()
    assert bodies == [sealed]
    with pytest.raises(ObjectMissing):
        await hall.objects.get(name)


async def test_a_body_that_is_missing_is_waited_for_and_then_given_up_with_its_cause(hall):
    name = f"{OBJECT_PREFIX}event-1-abc"
    await hall.put(event(1, sealed=b"", stored=Stored.of(name, b"x")), event(2))
    handler = hall.lab.handler()
    async with hall.worker(handler):
        await hall.emptied()
    assert handler.seen == ["event-2"]
    (letter,) = await hall.lab.dead()
    assert (letter["cause"], letter["attempt"]) == (Cause.EXHAUSTED, "4")
    assert f"{name} is missing" in letter["detail"]
    assert name in letter["stored"]


async def test_a_body_that_was_changed_is_not_worked_on(hall):
    name = f"{OBJECT_PREFIX}event-1-abc"
    await hall.objects.put(name, b"another")
    await hall.put(event(1, sealed=b"", stored=Stored.of(name, b"x")))
    async with hall.worker(hall.lab.handler()):
        await hall.emptied()
    (letter,) = await hall.lab.dead()
    assert letter["cause"] == Cause.UNDECODABLE
    assert "not the one that was stored" in letter["detail"]


async def test_a_dead_letter_holds_its_large_body_itself(hall):
    name = f"{OBJECT_PREFIX}event-1-abc"
    await hall.objects.put(name, b"sealed large")
    await hall.put(event(1, sealed=b"", stored=Stored.of(name, b"sealed large")))
    async with hall.worker(hall.lab.handler(lambda _: Retry("never"))):
        await hall.emptied()
    (letter,) = await hall.lab.dead()
    assert letter["sealed"] == "sealed large"
    assert "stored" not in letter


async def test_of_two_deliveries_of_one_event_one_has_an_effect(hall):
    await hall.put(event(1, key="same"), event(2, key="same"), event(3))
    handler = hall.lab.handler()
    async with hall.worker(handler):
        await hall.emptied()
    assert len(handler.seen) == 2
    assert "event-3" in handler.seen
    # What the gateway of a stream would find is what was claimed here.
    claimed = await hall.lab.redis.get("dedup:{webhook-events}:same")
    assert claimed.partition(b":")[0].decode() in handler.seen


async def test_a_delivery_that_the_stream_has_taken_is_dropped(hall):
    await hall.lab.redis.set("dedup:{webhook-events}:same", "event-of-the-stream:")
    await hall.put(event(1, key="same"))
    handler = hall.lab.handler()
    async with hall.worker(handler):
        await hall.emptied()
    assert handler.seen == []
    assert await hall.lab.dead() == []


async def test_what_waited_for_longer_than_its_window_is_not_taken_for_a_repetition(hall):
    """Its own claim is gone by now; another delivery of this key has come since, and both count."""
    await hall.lab.redis.set("dedup:{webhook-events}:same", "event-of-later:")
    await hall.put(event(1, key="same", received_ms=round(time.time() * 1000) - 61_000))
    handler = hall.lab.handler()
    async with hall.worker(handler):
        await hall.emptied()
    assert handler.seen == ["event-1"]


async def test_a_throttled_reader_waits_and_goes_on(hall):
    await hall.put(*(event(number) for number in range(5)))
    hall.line.faults += [THROTTLED, THROTTLED, "500"]
    handler = hall.lab.handler()
    async with hall.worker(handler):
        await hall.emptied()
    assert sorted(handler.seen) == [f"event-{number}" for number in range(5)]
    assert hall.line.faults == []


async def test_what_of_a_batch_was_not_deleted_is_deleted_again(hall):
    await hall.put(*(event(number) for number in range(3)))
    async with hall.queue() as queue:
        ids = [entry.id for entry in await queue.read(10)]
        hall.line.faults.append(failed(1, of=3))
        with pytest.raises(ConnectionError):
            await queue.ack(ids)
        # Done, and nobody hears of it.
        hall.line.faults.append("lost")
        with pytest.raises(ConnectionError):
            await queue.ack(ids)
        assert await queue.ack(ids) == []
        assert await queue.ack(ids) == []


async def _handed_out(hall: Hall, times: int) -> str:
    """The only message, after so many workers died of it; SQS's id of it."""
    for _ in range(times):
        (message,) = await hall.made.sqs.receive(1, wait_s=0, visibility_s=30)
        await hall.made.sqs.hide([(message.handle, 0)])
    return message.id


async def test_what_was_handed_out_too_often_runs_alone(hall):
    await hall.put(event(1))
    await _handed_out(hall, 6)
    await hall.put(event(2), event(3))
    alone = []
    handler = hall.lab.handler(lambda entry: alone.append((entry.text(b"id"), handler.batches[-1])) or DONE)
    async with hall.worker(handler):
        await hall.emptied()
    assert ("event-1", 1) in alone
    assert len(alone) == 3


async def test_what_never_came_to_an_end_alone_either_is_given_up(hall):
    await hall.put(event(1))
    message_id = await _handed_out(hall, 6)
    await hall.lab.redis.hset(f"sqs:{{webhook-events}}:{message_id}", "accusations", "2")
    handler = hall.lab.handler()
    async with hall.worker(handler):
        await hall.emptied()
    assert handler.seen == []
    (letter,) = await hall.lab.dead()
    assert letter["cause"] == Cause.CRASH_LOOP


async def test_what_is_put_aside_comes_back_and_counts_as_no_failure(hall):
    await hall.put(event(1))
    async with hall.queue() as queue:
        (entry,) = await queue.read(10)
        assert await queue.park([entry]) == []
        again: list[Any] = []

        async def is_back() -> bool:
            again.extend(await queue.read(10))
            return bool(again)

        await hall.lab.until(is_back)
    assert (again[0].failures, again[0].deliveries) == (0, 1)


async def test_what_came_at_the_end_of_a_long_wait_is_held_from_then_on(hall):
    queue = SqsQueue(
        hall.made.sqs, hall.lab.lane, hall.lab.redis, hall.objects, block_ms=3000, visibility_ms=2000
    )
    waiting = asyncio.create_task(queue.read(10))
    await asyncio.sleep(2.1)
    await hall.put(event(1))
    (entry,) = await waiting
    assert await queue.ack([entry.id]) == []
    assert await hall.is_empty()


async def test_a_handle_that_is_void_settles_nothing(hall):
    await hall.put(event(1))
    async with hall.queue() as queue:
        (entry,) = await queue.read(10)
        hall.line.faults.append(failed(0, of=1, code="ReceiptHandleIsInvalid", ours=True))
        assert await queue.ack([entry.id]) == [entry.id]
    assert not await hall.is_empty()


async def test_a_backlog_is_read_by_more_than_one_call(hall):
    await asyncio.gather(*(hall.put(event(number)) for number in range(45)))
    async with hall.queue() as queue:
        read = [entry.text(b"id") for entry in await queue.read(40)]
        assert len(read) == 40
        # Nearly: it may hand out a message twice, as SQS may.
        assert len(set(read)) > 30
        assert (await queue.counts()).in_flight == len(set(read))


async def test_a_queue_that_is_not_there_is_named_in_one_line(hall):
    sqs = Sqs(hall.made.sqs._client, hall.made.url.replace("/q-", "/nobody-made-"))
    with pytest.raises(RuntimeError) as refused:
        await sqs.check()
    line = str(refused.value)
    assert "there is no queue" in line
    assert "nobody-made-" in line
    assert "\n" not in line


async def test_a_queue_of_a_fifo_name_needs_its_groups(sqs_server, lab, tmp_path):
    async with queue_on(sqs_server, fifo=True) as made:
        entries = [
            {
                "MessageBody": encode(event(n)),
                "MessageGroupId": event(n).group,
                "MessageDeduplicationId": f"{n}",
            }
            for n in (1, 2, 2)
        ]
        assert await made.sqs.send(entries[:1]) == [None]
        await made.sqs.send(entries[1:2])
        await made.sqs.send(entries[2:])
        handler = lab.handler()
        hall = Hall(lab, made, Line(sqs_server), DirectoryObjectStore(tmp_path))
        async with hall.worker(handler):
            await hall.emptied()
        assert handler.seen == ["event-1", "event-2"]


async def test_operators_are_told_what_sqs_tells_and_when_it_tells_nothing(hall):
    made = hall.made
    graveyard = await made.client.create_queue(QueueName=f"{made.sqs.name}-dead")
    asked = await made.client.get_queue_attributes(
        QueueUrl=graveyard["QueueUrl"], AttributeNames=["QueueArn"]
    )
    policy = {"deadLetterTargetArn": asked["Attributes"]["QueueArn"], "maxReceiveCount": "9"}
    await made.client.set_queue_attributes(
        QueueUrl=made.url, Attributes={"RedrivePolicy": orjson.dumps(policy).decode()}
    )
    await made.client.send_message(QueueUrl=graveyard["QueueUrl"], MessageBody="given up by SQS")
    await hall.put(*(event(number) for number in range(5)))
    async with hall.queue() as queue:
        backlog = Backlog(hall.lab.redis, [], "webhook-quarantine")
        backlog.elsewhere.append(queue)
        held = await queue.read(2)
        [(lane, counts)] = await backlog.estimates()
        told = answers.estimate(lane, counts)
        assert (told.stage, told.stream, told.estimated) == ("sqs", made.sqs.name, True)
        places = (told.waiting_count, told.in_flight_count, told.delayed_count, told.dead_count)
        assert places == (5 - len(held), len(held), 0, 1)
        hall.line.faults += [THROTTLED, THROTTLED]
        [(lane, counts)] = await backlog.estimates()
        assert answers.estimate(lane, counts).unreachable
