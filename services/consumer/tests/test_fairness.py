"""A noisy tool takes its share and leaves the others theirs."""

import asyncio
from collections import Counter

import pytest
from webhook_consumer.entry import DONE, Entry, Outage
from webhook_consumer.failures.holds import Holds
from webhook_consumer.workers import reader
from webhook_consumer.workers.buffer import Buffer
from webhook_consumer.workers.shares import ACTIVE_S, Shares, tool_of


def entries(tool, count, start=0):
    return [Entry(f"{number}-0".encode(), {b"tool": tool.encode()}) for number in range(start, start + count)]


def tools_of(batch):
    return Counter(entry.tool for entry in batch)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


async def test_a_tool_alone_may_have_it_all():
    buffer = Buffer(100, 5)
    assert await buffer.add(entries("github", 100), shared=True) == []
    assert len(buffer) == 100


async def test_one_noisy_tool_has_three_quarters_and_two_leave_a_seventh():
    buffer = Buffer(90, 5)
    await buffer.add(entries("jira", 1), shared=True)
    beyond = await buffer.add(entries("github", 500, 100), shared=True) + await buffer.add(
        entries("slack", 1, 50), shared=True
    )
    assert tools_of(beyond) == {"github": 500 - 67}
    buffer = Buffer(90, 5)
    both = [
        entry for pair in zip(entries("github", 90), entries("jira", 90, 90), strict=True) for entry in pair
    ]
    beyond = await buffer.add(both, shared=True)
    assert tools_of(beyond) == {"github": 51, "jira": 51}
    assert await buffer.add(entries("slack", 9, 500), shared=True) == []


async def test_all_have_their_turn_in_each_batch():
    buffer = Buffer(1000, 5)
    await buffer.add(entries("github", 300), shared=True)
    await buffer.add(entries("jira", 7, 300), shared=True)
    await buffer.add(entries("slack", 30, 400), shared=True)
    first, second = await buffer.take(30), await buffer.take(30)
    assert tools_of(first) == {"github": 12, "jira": 7, "slack": 11}
    assert tools_of(second) == {"github": 15, "slack": 15}
    rest = []
    while len(rest) < 277:
        rest += await buffer.take(100)
    assert tools_of(rest) == {"github": 273, "slack": 4}
    # Each in its own order.
    ids = [int(entry.id.partition(b"-")[0]) for entry in (*first, *second, *rest) if entry.tool == "github"]
    assert ids == sorted(ids)


async def test_batches_smaller_than_the_number_of_tools_leave_nobody_out():
    buffer = Buffer(1000, 5)
    for number in range(10):
        await buffer.add(entries(f"tool-{number}", 3, 10 * number), shared=True)
    seen = Counter()
    for _ in range(5):
        seen += tools_of(await buffer.take(2))
    assert set(seen.values()) == {1}
    assert len(seen) == 10


async def test_what_is_taken_over_from_others_is_held_whatever_its_share():
    buffer = Buffer(20, 5)
    await buffer.add(entries("jira", 1))
    assert await buffer.add(entries("github", 100, 10)) == []
    assert len(buffer) == 101
    buffer.drop(buffer.ids())
    assert len(buffer) == 0
    assert await buffer.room() == 15


async def test_the_reader_looks_past_a_noisy_tool_but_not_during_an_outage():
    buffer = Buffer(40, 5, patience_s=0.02)
    await buffer.add(entries("jira", 1), shared=True)
    await buffer.add(entries("github", 60, 10), shared=True)
    assert len(buffer) < 40
    async with asyncio.timeout(1):
        assert await buffer.room(0.0) >= 40
    with buffer.outage():
        waiting = asyncio.create_task(buffer.room(0.0))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await buffer.close()
        await waiting


def test_a_tool_that_was_here_lately_has_room_kept_for_it():
    clock = Clock()
    shares = Shares(100, clock)
    shares.begin({b"jira"}, [])
    shares.begin({b"github"}, [])
    assert shares.several
    assert sum(shares.take(b"github") for _ in range(100)) == 75
    clock.now += ACTIVE_S - 1
    shares.begin({b"github"}, [])
    assert not shares.take(b"github")
    clock.now += 2
    shares.begin({b"github"}, [])
    assert not shares.several
    assert shares.take(b"github")


def test_what_is_about_a_context_belongs_to_the_tool_of_the_context():
    assert tool_of(Entry(b"1-0", {b"context_id": b"jira:x:issue:1"})) == b"jira"
    assert tool_of(Entry(b"1-0", {})) == b""


@pytest.mark.parametrize("noise", [2000])
async def test_a_quiet_tool_does_not_wait_for_a_flood(lab, noise, monkeypatch):
    monkeypatch.setattr(reader, "BEHIND_S", 0.2)

    async def slowly(entry):
        await asyncio.sleep(0.0005)
        return DONE

    await lab.publish(1, start=100_000, tool="jira")
    handler = lab.handler(slowly)
    limits = {"prefetch": 40, "batch": 10, "workers": 4}
    async with lab.worker(handler, parts={"holds": Holds()}, **limits) as queue:
        await lab.until(lambda: len(handler.seen) == 1)
        async with lab.redis.pipeline(transaction=False) as pipeline:
            for number in range(noise):
                pipeline.xadd(lab.lane.stream, {"id": f"event-{number}", "tool": "github"})
            await pipeline.execute()
        await lab.publish(5, start=200_000, tool="jira")
        late = {f"event-{number}" for number in range(200_000, 200_005)}
        await lab.until(lambda: late <= set(handler.seen))
        before = len(handler.seen)
        assert (await queue.counts()).parked > 0
        await lab.until(lab.is_empty)
    assert before < noise // 2
    # And the noisy one has lost nothing.
    assert len(handler.seen) == len(set(handler.seen)) == noise + 6
    assert await lab.dead() == []


async def test_nothing_is_put_aside_while_all_wait_for_the_same_thing(lab):
    def away(entry):
        raise Outage("the context store is away")

    await lab.publish(5, tool="jira")
    await lab.publish(200, start=10)
    async with lab.worker(lab.handler(away), prefetch=40, batch=10) as queue:
        await lab.until(lambda: _in_flight(queue, 20))
        await asyncio.sleep(0.4)
        counts = await queue.counts()
    assert counts.waiting >= 100
    assert counts.in_flight <= 40


async def _in_flight(queue, count):
    return (await queue.counts()).in_flight >= count
