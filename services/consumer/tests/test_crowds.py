"""Very many of what is a nuisance already as one: entries of the dead, dead consumers, killers."""

import asyncio
import sys
from dataclasses import astuple

import pytest
from webhook_consumer.queue.redis import START

# As if a consumer had read so many and were gone.
HOLD = """
local ids = {}
for number = 1, ARGV[3] do
  ids[number] = redis.call('XADD', KEYS[1], '*', 'id', 'event-' .. number, 'tool', 'github')
end
redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], ids[#ids])
for at = 1, #ids, 1000 do
  local claim = { 'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ids, at, math.min(at + 999, #ids)) }
  claim[#claim + 1] = 'FORCE'
  claim[#claim + 1] = 'JUSTID'
  redis.call(unpack(claim))
end
return #ids
"""

# A process that works on what there is, and is begun again whenever it goes down.
PROGRAM = """
import asyncio, ctypes, os, resource, sys
from webhook_consumer import metrics
from webhook_consumer.entry import DONE
from webhook_consumer.failures.retry import RetryPolicy
from webhook_consumer.queue.redis import Lane, RedisQueue
from webhook_consumer.workers.worker import Limits, Worker
from webhook_shared import redis as store
from webhook_shared.settings import RedisSection

LANE = Lane(*sys.argv[2:])


class Handler:
    async def handle(self, entries):
        for entry in entries:
            kind = entry.text(b"id")
            if kind == "segfaults":
                ctypes.string_at(0)
            if kind == "eats":
                bytearray(1 << 40)
        return [DONE] * len(entries)

async def work():
    settings = RedisSection(addresses=(sys.argv[1],))
    client, blocking = store.connect(settings), store.connect(settings, block_s=0.2)
    queue = RedisQueue(LANE, client, blocking, block_ms=200, lease_ms=60_000)
    limits = Limits(workers=2, batch=20, prefetch=100, idle_ms=60_000, drain_s=1.0)
    async with Worker(queue, Handler(), limits, RetryPolicy(1, 0.001, 0.01), metrics.EVENTS):
        while await client.xlen(LANE.stream) or await client.zcard(LANE.delayed):
            await asyncio.sleep(0.01)

deaths = 0
while True:
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        asyncio.run(work())
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
    deaths += 1
print(deaths)
"""


async def test_what_kills_its_process_ends_in_the_dead_letters_and_its_neighbours_do_not(lab):
    for at, name in enumerate(("segfaults", "eats")):
        await lab.publish(5, start=10 * at)
        await lab.redis.xadd(lab.lane.stream, {"id": name, "tool": "github", "tenant": "default"})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        lab.settings.addresses[0],
        *astuple(lab.lane),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    deaths = int(out.splitlines()[-1])
    causes = {letter["id"]: letter["cause"] for letter in await lab.dead()}
    assert causes == {"segfaults": "crash_loop", "eats": "exhausted"}
    assert 4 <= deaths <= 20
    assert await lab.is_empty()


async def test_a_hundred_thousand_entries_of_a_dead_process_keep_nobody_waiting(lab):
    count = 100_000
    async with lab.queue() as queue:
        await queue.create_group()
    for _ in range(10):
        await lab.redis.eval(HOLD, 1, lab.lane.stream, lab.lane.group, "gone", count // 10)
    assert await lab.pending() == count
    handler = lab.handler()
    async with lab.worker(handler, idle_ms=200):
        await lab.until(lambda: len(handler.seen) >= 2000)
        [fresh] = await lab.publish(1, start=count + 1)
        await lab.until(lambda: fresh in handler.seen)
        before = len(handler.seen)
        await lab.until(lambda: len(handler.seen) >= before + 1000)
    # What was not started is handed back; nothing is lost from sight.
    assert await lab.redis.xlen(lab.lane.stream) == await lab.pending() > 0


async def test_a_thousand_dead_consumers_are_forgotten_and_lose_nothing(lab):
    count = 1000
    async with lab.queue() as queue:
        await queue.create_group()
        published = await lab.publish(count)
        async with lab.redis.pipeline(transaction=False) as pipeline:
            for number in range(count):
                pipeline.xreadgroup(lab.lane.group, f"dead-{number}", {lab.lane.stream: ">"}, count=1)
                pipeline.xgroup_createconsumer(lab.lane.stream, lab.lane.group, f"idle-{number}")
            await pipeline.execute()
        await queue.join()
        # Those that hold something stay, however long they have been silent.
        await asyncio.sleep(0.01)
        forgotten = []
        while names := await queue.reap(5, 300):
            assert len(names) <= 300
            forgotten += names
        assert len(forgotten) == count
        assert len(await queue.consumers()) == count + 1
        assert await lab.pending() == count
        await queue.leave()
    handler = lab.handler()
    async with lab.worker(handler, idle_ms=200) as queue:
        await lab.until(lab.is_empty)
        await asyncio.sleep(0.01)
        while await queue.reap(5, 1000):
            pass
        assert [name for name, _, _ in await queue.consumers()] == [queue.name]
    assert sorted(handler.seen) == sorted(published)


async def test_reaping_a_queue_without_a_group_is_no_mistake(lab):
    async with lab.queue() as queue:
        assert await queue.reap(0, 10) == []


@pytest.mark.parametrize("held", [0, 3])
async def test_looking_through_what_is_pending_is_bounded(lab, held):
    async with lab.queue() as queue:
        await queue.join()
        await lab.redis.eval(HOLD, 1, lab.lane.stream, lab.lane.group, "gone", 1200)
        cursor, pages, entries = START, 0, []
        while cursor:
            found = await queue.claim(cursor, held=[], room=10_000, idle_ms=0)
            entries += found.entries
            cursor, pages = found.cursor, pages + 1
            assert len(found.entries) <= 500
        assert (pages, len(entries)) == (3, 1200)
        assert await queue.ack([entry.id for entry in entries[held:]]) == []
        assert await lab.pending() == held
