"""Publishing to SQS, copying to it, and moving between the queues."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from webhook_gateway.outcome import Accepted, Duplicate, Publication, Unavailable
from webhook_gateway.publishing.event_publisher import MISSING_SQS
from webhook_gateway.publishing.ramp import Share, ramp
from webhook_gateway.publishing.sqs import SqsPublisher
from webhook_gateway.publishing.sqs_sending import LARGE_BYTES, Sender
from webhook_shared.claims import Claims
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.partitions import Partitions
from webhook_shared.sqs.client import BATCH_BYTES
from webhook_shared.sqs.message import decode

from shared.tests.s3_server import Line, failing_line
from shared.tests.sqs_server import CREDENTIALS, THROTTLED, TestQueue, failed, queue_on, sqs_server

PARTITIONS = Partitions("webhook-events")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with sqs_server() as url:
        yield url


@pytest.fixture(autouse=True)
def credentials(monkeypatch: Any) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def event(number: int, *, key: str = "", sealed: bytes = b"sealed", **more: Any) -> Publication:
    return Publication(
        event_id=f"event-{number}",
        tenant="default",
        tool="github",
        type="push",
        received_ms=round(time.time() * 1000),
        schema=1,
        sealed=sealed,
        traceparent="",
        dedup_key=key or f"key-{number}",
        window_ms=60_000,
        occurrences_allowed=1,
        quarantined=False,
        **more,
    )


class Street:
    """A queue, a line to it that fails on demand, and a publisher."""

    def __init__(self, made: TestQueue, line: Line, redis: Any, objects: DirectoryObjectStore) -> None:
        self.made = made
        self.line = line
        self.objects = objects
        self.conflicts: list[str] = []
        self.sender = Sender(made.sqs, objects, PARTITIONS)
        self._claims = Claims(redis)
        self.publisher = self.publisher_with(patience_s=20.0)

    def publisher_with(self, *, patience_s: float) -> SqsPublisher:
        return SqsPublisher(
            self.sender,
            self.made.sqs,
            self._claims,
            partitions=PARTITIONS,
            patience_s=patience_s,
            conflicted=lambda _, first: self.conflicts.append(first),
        )

    async def messages(self) -> list[Any]:
        found = []
        while some := await self.made.sqs.receive(10, wait_s=0, visibility_s=30):
            found += [decode(each.body) for each in some]
        return found


@pytest.fixture
async def street(server: str, redis: Any, tmp_path: Any) -> AsyncIterator[Street]:
    async with failing_line(server) as line, queue_on(server, url=line.url) as made:
        yield Street(made, line, redis, DirectoryObjectStore(tmp_path))


async def test_events_are_in_the_queue_once_and_a_repetition_is_told_the_first(street):
    first = await street.publisher.publish([event(n) for n in range(25)])
    assert first == [Accepted(f"event-{n}", quarantined=False) for n in range(25)]
    again = await street.publisher.publish([event(100, key="key-3"), event(101), event(3)])
    assert again == [Duplicate("event-3"), Accepted("event-101", False), Accepted("event-3", False)]
    ids = {message.id for message in await street.messages()}
    assert ids == {*(f"event-{n}" for n in range(25)), "event-101"}


async def test_the_stream_and_sqs_know_each_others_duplicates(street, redis):
    await redis.set("dedup:{webhook-events}:seen", "event-of-the-stream:")
    assert await street.publisher.publish([event(1, key="seen")]) == [Duplicate("event-of-the-stream")]
    await street.publisher.publish([event(2)])
    assert await redis.get("dedup:{webhook-events}:key-2") == b"event-2:"
    assert 0 < await redis.pttl("dedup:{webhook-events}:key-2") <= 60_000


async def test_of_two_at_once_one_is_accepted(street):
    results = await street.publisher.publish([event(1, key="same"), event(2, key="same")])
    assert results == [Accepted("event-1", False), Duplicate("event-1")]


async def test_another_body_under_the_same_id_is_an_event_of_its_own(street):
    await street.publisher.publish([event(1, key="same", body_digest="aaa")])
    results = await street.publisher.publish([event(2, key="same", body_digest="bbb")])
    assert results == [Accepted("event-2", False, "event-1")]
    assert street.conflicts == ["event-1"]


async def test_a_process_that_died_after_sending_leaves_no_claim_behind(street, redis):
    """The sender heard nothing, and comes again under another id: one of the two counts, whichever."""
    assert [sent.fault for sent in await street.sender.send([event(1, key="same")])] == [""]
    assert await street.publisher.publish([event(2, key="same")]) == [Accepted("event-2", False)]
    messages = {message.id: message for message in await street.messages()}
    standings = await Claims(redis).claim([(each, messages[each].claim) for each in ("event-1", "event-2")])
    assert [standing.repeats for standing in standings] == ["event-2", ""]


async def test_what_of_a_batch_failed_is_sent_again_and_the_rest_is_not(street):
    street.line.faults += [failed(1, of=3)]
    results = await street.publisher.publish([event(n) for n in range(3)])
    assert results == [Accepted(f"event-{n}", False) for n in range(3)]
    # The other two were said to be taken by an answer that the test made up.
    assert [message.id for message in await street.messages()] == ["event-1"]


async def test_throttling_is_waited_out(street):
    street.line.faults += [THROTTLED, "500", "lost"]
    assert await street.publisher.publish([event(1)]) == [Accepted("event-1", False)]
    assert {message.id for message in await street.messages()} == {"event-1"}


async def test_what_sqs_refuses_for_good_is_refused_and_not_tried_again(street):
    street.line.faults += [failed(0, of=1, code="InvalidMessageContents", ours=True)]
    (result,) = await street.publisher.publish([event(1)])
    assert isinstance(result, Unavailable)
    assert result is not MISSING_SQS
    assert await street.messages() == []


async def test_a_queue_that_is_silent_is_given_up_in_time(street):
    publisher = street.publisher_with(patience_s=1.0)
    street.line.faults += ["slow"] * 20
    started_s = time.monotonic()
    assert await publisher.publish([event(1)]) == [MISSING_SQS]
    assert time.monotonic() - started_s < 10
    assert publisher.gave_up
    street.line.faults.clear()
    await publisher.probe()
    assert not publisher.gave_up


async def test_a_large_body_lies_beside_and_a_call_carries_no_more_than_it_may(street):
    large = b"x" * (LARGE_BYTES + 1)
    results = await street.publisher.publish(
        [event(1, sealed=large), *(event(n, sealed=b"y" * 60_000) for n in range(2, 8))]
    )
    assert all(isinstance(result, Accepted) for result in results)
    messages = {message.id: message for message in await street.messages()}
    assert len(messages) == 7
    stored = messages["event-1"].stored
    assert await street.objects.get(stored.name) == large
    assert messages["event-2"].sealed == b"y" * 60_000
    assert BATCH_BYTES < 6 * 80_000


async def test_the_body_of_a_message_that_was_refused_is_not_left_behind(street):
    street.line.faults += [failed(0, of=1, code="InvalidMessageContents", ours=True)]
    await street.publisher.publish([event(1, sealed=b"x" * (LARGE_BYTES + 1))])
    names = await street.objects.names("sqs-bodies/")
    assert names == []


async def test_a_fifo_queue_takes_each_event_once(server, redis, tmp_path):
    async with queue_on(server, fifo=True) as made:
        sender = Sender(made.sqs, DirectoryObjectStore(tmp_path), PARTITIONS)
        for _ in range(2):
            assert [sent.fault for sent in await sender.send([event(1), event(2)])] == ["", ""]
        assert await made.size() == 2


async def test_a_share_only_grows_by_what_it_gains_and_follows_the_operator(redis):
    share = Share(redis, 30)
    ids = [f"0190aa{n:06}" for n in range(5000)]
    thirty = {each for each in ids if share.has(each)}
    assert 0.27 < len(thirty) / len(ids) < 0.33
    await ramp(redis, 60)
    await share.look()
    sixty = {each for each in ids if share.has(each)}
    assert thirty < sixty
    assert 0.57 < len(sixty) / len(ids) < 0.63
    await ramp(redis, None)
    await share.look()
    assert share.percent == 30


@asynccontextmanager
async def house(kit: Any, judge: Any, valkey: Any, redis: Any, **migration: Any) -> AsyncIterator[Any]:
    """A gateway with a migration, on real sockets."""
    from webhook_gateway.wiring import running
    from webhook_shared.sqs.migration import MigrationSection

    async with kit.judging(judge, redis) as port:
        settings = kit.settings(valkey, f"127.0.0.1:{port}")
        webhook = settings.webhook.model_copy(update={"migration": MigrationSection(**migration)})
        async with running(settings.model_copy(update={"webhook": webhook})) as ports:
            opened = kit.House(judge, redis, ports)
            yield opened
        for sender in opened.senders:
            sender.close()


async def test_with_dual_write_redis_answers_and_sqs_has_it_too(kit, judge, valkey, redis, server):
    async with queue_on(server) as made:
        async with house(kit, judge, valkey, redis, dual_write=True, sqs_queue_url=made.url) as gateway:
            replies = [await gateway.ask(kit.post(delivery=f"d-{n}")) for n in range(12)]
            again = await gateway.ask(kit.post(delivery="d-3"))
            quarantined = await gateway.ask(kit.post(b"no json", delivery="d-99"))
        assert {reply.status for reply in replies} == {202}
        assert again.json["duplicate"]
        assert quarantined.status == 202
        stream = {entry[b"id"].decode() for entry in await gateway.events()}
        messages = await Street(made, Line(""), redis, None).messages()
        assert {message.id for message in messages} == stream
        assert len(messages) == 12


async def test_sqs_away_changes_no_answer_and_the_copies_come_when_it_is_back(
    kit, judge, valkey, redis, server
):
    async with failing_line(server) as line, queue_on(server) as made:
        migration = {"dual_write": True, "sqs_queue_url": made.url, "sqs_endpoint": line.url}
        async with house(kit, judge, valkey, redis, **migration) as gateway:
            await gateway.ask(kit.post(delivery="warm"))
            # Away, slow, throttling, confused.
            line.faults += ["slow", "500", THROTTLED, "lost", "500"]
            started_s = time.monotonic()
            replies = [await gateway.ask(kit.post(delivery=f"d-{n}")) for n in range(10)]
            elapsed_s = time.monotonic() - started_s
            assert {reply.status for reply in replies} == {202}
            assert elapsed_s < 5
            # At its end the gateway would not wait for a queue that is still away.
            async with asyncio.timeout(60):
                while line.faults:
                    await asyncio.sleep(0.05)
        ids = {entry[b"id"].decode() for entry in await gateway.events()}
        messages = await Street(made, Line(""), redis, None).messages()
        assert {message.id for message in messages} == ids


async def test_with_the_backend_sqs_events_go_there_and_duplicates_are_known(
    kit, judge, valkey, redis, server
):
    async with queue_on(server) as made:
        async with house(kit, judge, valkey, redis, backend="sqs", sqs_queue_url=made.url) as gateway:
            first = await gateway.ask(kit.post(delivery="d-1"))
            again = await gateway.ask(kit.post(delivery="d-1"))
            health = await gateway.ask(b"GET /health/webhook HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (first.status, again.status) == (202, 202)
        assert again.json["event_id"] == first.json["event_id"]
        assert json.loads(health.body)["sqs"] == "ok"
        assert await gateway.events() == []
        assert [message.id for message in await Street(made, Line(""), redis, None).messages()] == [
            first.json["event_id"]
        ]


async def test_a_queue_that_is_not_there_ends_the_start_with_one_line(kit, judge, valkey, redis, server):
    missing = f"{server}/123456789012/nobody-made-this"
    with pytest.raises(RuntimeError, match=r"there is no queue .*nobody-made-this"):
        async with house(kit, judge, valkey, redis, backend="sqs", sqs_queue_url=missing):
            pass
