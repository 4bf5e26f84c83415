"""One queue, one meaning, on every server that it may live on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from webhook_consumer.entry import Cause
from webhook_consumer.queue.redis import START, Burial, Delayed, StreamLost
from webhook_gateway.outcome import Accepted, Duplicate, Unavailable
from webhook_gateway.publishing.durability import Durability
from webhook_gateway.publishing.stream import MISSING
from webhook_shared import redis as store

from tests.servers.machines import until
from tests.servers.queue import Line, Queue, publication

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def read(queue: Queue, count: int) -> dict[str, bytes]:
    """So many entries: stream id by event id."""
    found: dict[str, bytes] = {}
    async with asyncio.timeout(10):
        while len(found) < count:
            found |= {entry.text(b"id"): entry.id for entry in await queue.read(100)}
    assert len(found) == count
    return found


async def test_an_event_is_in_the_stream_once_however_often_it_is_published(line: Line) -> None:
    for _ in range(2):
        assert await line.publish(1, 2) == [Accepted("event-1", False), Accepted("event-2", False)]
    again = publication(1)._replace(event_id="another")
    assert await line.publisher.publish([again]) == [Duplicate("event-1")]
    assert await line.client.xlen("webhook-events") == 2


async def test_what_is_acknowledged_is_gone(queue: Queue, line: Line) -> None:
    await line.publish(*range(20))
    ids = list((await read(queue, 20)).values())
    counts = await queue.counts()
    assert (counts.waiting, counts.in_flight) == (0, 20)
    assert await queue.ack(ids) == []
    counts = await queue.counts()
    assert (counts.waiting, counts.in_flight, counts.oldest_ms) == (0, 0, None)
    assert await line.client.xlen("webhook-events") == 0


async def test_nobody_settles_what_another_holds(queue: Queue, line: Line) -> None:
    await line.publish(1)
    (entry_id,) = (await read(queue, 1)).values()
    async with line.queue() as other:
        await other.join()
        assert other.name != queue.name
        assert await other.ack([entry_id]) == [entry_id]
        assert await other.renew([entry_id]) == [entry_id]
        claimed = await other.claim(START, held=(), room=10, idle_ms=0)
        assert [entry.text(b"id") for entry in claimed.entries] == ["event-1"]
        assert await queue.ack([entry_id]) == [entry_id]
        assert await other.ack([entry_id]) == []
        await other.leave()


async def test_a_renewed_entry_is_not_taken_for_abandoned(queue: Queue, line: Line) -> None:
    await line.publish(1)
    (entry_id,) = (await read(queue, 1)).values()
    await asyncio.sleep(0.06)
    assert await queue.renew([entry_id]) == []
    assert (await queue.claim(START, held=(), room=1, idle_ms=50)).entries == []


async def test_a_failed_entry_waits_and_comes_back(queue: Queue, line: Line) -> None:
    await line.publish(1)
    (entry_id,) = (await read(queue, 1)).values()
    assert await queue.delay([Delayed(entry_id, 500, 1)]) == []
    counts = await queue.counts()
    assert (counts.waiting, counts.in_flight, counts.delayed) == (0, 0, 1)
    moved, next_ms = await queue.promote(10)
    assert moved == 0
    assert next_ms is not None
    await asyncio.sleep((next_ms + 10) / 1000)
    assert await queue.promote(10) == (1, None)
    (again,) = await queue.read(1)
    assert (again.text(b"id"), again.text(b"attempt")) == ("event-1", "1")


async def test_a_hopeless_entry_becomes_a_dead_letter(queue: Queue, line: Line) -> None:
    await line.publish(1)
    (entry_id,) = (await read(queue, 1)).values()
    assert await queue.bury([Burial(entry_id, Cause.PERMANENT, "no such thing", 1, "f")]) == []
    counts = await queue.counts()
    assert (counts.in_flight, counts.dead) == (0, 1)
    rows: Any = await line.client.xrange(queue.lane.dead_letters)
    ((_, letter),) = rows
    assert (letter[b"id"], letter[b"cause"]) == (b"event-1", b"permanent")


async def test_what_was_not_started_is_handed_back(queue: Queue, line: Line) -> None:
    await line.publish(1)
    (entry_id,) = (await read(queue, 1)).values()
    await queue.release([entry_id], 60_000)
    async with line.queue() as other:
        await other.join()
        (entry,) = (await other.claim(START, held=(), room=1, idle_ms=60_000)).entries
        # The delivery that led to nothing does not count.
        assert entry.deliveries == 1
        await other.leave()


async def test_a_waiting_read_is_woken(line: Line) -> None:
    async with line.queue(block_s=10) as queue:
        await queue.join()
        reading = asyncio.create_task(queue.read(1))
        # It must be blocked by the time.
        await until(lambda: _woken(queue, reading))
        assert await reading == []


async def _woken(queue: Queue, reading: asyncio.Task[object]) -> bool:
    await queue.wake()
    return reading.done()


async def test_an_emptied_server_is_a_new_beginning(queue: Queue, line: Line) -> None:
    await line.publish(1)
    await line.admin.flushall()
    with pytest.raises(StreamLost):
        await queue.read(1)
    await queue.join()
    await line.publish(1)
    assert list(await read(queue, 1)) == ["event-1"]


async def test_a_lost_group_is_made_again_and_misses_nothing(queue: Queue, line: Line) -> None:
    await line.publish(1)
    await line.admin.xgroup_destroy("webhook-events", "webhook-processors")
    await line.publish(2)
    with pytest.raises(StreamLost):
        await queue.read(1)
    await queue.join()
    assert set(await read(queue, 2)) == {"event-1", "event-2"}


async def test_lost_scripts_are_loaded_again(queue: Queue, line: Line) -> None:
    await line.publish(1)
    await line.admin.script_flush()
    await line.publish(2)
    await line.admin.script_flush()
    assert await queue.ack(list((await read(queue, 2)).values())) == []


async def _full(line: Line) -> None:
    await line.admin.config_set("maxmemory", 1)


async def _roomy(line: Line) -> None:
    await line.admin.config_set("maxmemory", 0)


async def _unfollowed(line: Line) -> None:
    await line.admin.config_set("min-replicas-to-write", 5)


async def _followed(line: Line) -> None:
    await line.admin.config_set("min-replicas-to-write", 0)


async def _demoted(line: Line) -> None:
    await line.admin.execute_command("REPLICAOF", "127.0.0.1", 1)


async def _promoted(line: Line) -> None:
    await line.admin.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.parametrize(
    ("hurt", "heal"),
    [(_full, _roomy), (_unfollowed, _followed), (_demoted, _promoted)],
    ids=["OOM", "NOREPLICAS", "READONLY"],
)
async def test_a_server_that_takes_no_writes_loses_nothing(
    line: Line, hurt: Callable[[Line], Awaitable[None]], heal: Callable[[Line], Awaitable[None]]
) -> None:
    if hurt is _demoted and await line.client.form() != "single":
        pytest.skip("a Cluster and Sentinels allow no REPLICAOF by hand")
    await line.publish(1)
    await hurt(line)
    try:
        assert await line.door(patience_s=0.05).publish([publication(2)]) == [MISSING]
        with pytest.raises(store.REDIS_TROUBLE):
            await line.client.xadd("webhook-events", {"id": "x"})
        trying = asyncio.create_task(line.door(patience_s=5).publish([publication(3)]))
        await asyncio.sleep(0.05)
        assert not trying.done()
    finally:
        await heal(line)
    assert await trying == [Accepted("event-3", False)]
    async with line.queue() as queue:
        await queue.join()
        assert set(await read(queue, 2)) == {"event-1", "event-3"}
        await queue.leave()


async def test_a_full_server_can_still_be_worked_off(queue: Queue, line: Line) -> None:
    await line.publish(1, 2)
    await _full(line)
    try:
        assert await queue.ack(list((await read(queue, 2)).values())) == []
    finally:
        await _roomy(line)
    assert await line.client.xlen("webhook-events") == 0


async def test_a_source_is_told_no_more_than_its_server_can_vouch_for(line: Line) -> None:
    server = await store.look(line.client)
    asking = [publication(1, durability=Durability.FSYNCED), publication(2)]
    answers = await line.publisher.publish(asking)
    assert answers[1] == Accepted("event-2", False)
    assert isinstance(answers[0], Accepted) == (server.waits_for_disk or server.always_on_disk)
    (replicated,) = await line.publisher.publish([publication(3, durability=Durability.REPLICATED)])
    assert isinstance(replicated, Unavailable) == (server.form != "sentinel")


async def test_commands_about_many_keys_reach_them_all(line: Line) -> None:
    names = [f"key-{number}" for number in range(12)]
    async with line.client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.set(name, name)
        assert await pipeline.execute() == [True] * 12
    assert await line.client.mget([*names, "none"]) == [*(name.encode() for name in names), None]
    assert await line.client.exists(*names) == 12
    assert await line.client.delete(*names, "none") == 12
    async with line.client.pipeline(transaction=True) as together:
        together.hincrby("{a}1", "n", 1)
        together.hset("{b}2", "n", "2")
        assert await together.execute() == [1, 1]


async def test_it_says_what_it_is(line: Line) -> None:
    server = await store.look(line.client)
    kind = line.place.name
    version = {"redis 6.2": "6.2", "redis 7.0": "7.0", "tls": "7.0", "redis 8": "8."}.get(kind)
    if version:
        assert (server.vendor, server.version[: len(version)]) == ("redis", version)
    forms = {"cluster": ("cluster", 3), "sentinel": ("sentinel", 1)}
    assert (server.form, server.masters) == forms.get(kind, ("single", 1))
    assert not server.missing
    assert ("WAITAOF" in server.commands) == (server.version >= "7.2")
    await store.guard(line.client)
