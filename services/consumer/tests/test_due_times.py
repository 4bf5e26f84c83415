"""What is delayed comes back when it was to, whatever the server's clock does meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from webhook_consumer.queue.redis import Delayed, RedisQueue
from webhook_shared import redis as store

from conftest import RedisServer
from services.consumer.tests.conftest import LANE, Lab
from tests.ledger.clock import Clock, compiled

HOUR_S = 3600
DELAY_MS = 3000
# What a clock's jump may add, beside what the machine takes.
LATE_MS = 1000


@pytest.fixture
async def clock(tmp_path: Path) -> Clock:
    """The clock of the server below."""
    library = await compiled(tmp_path)
    if library is None:
        pytest.skip("needs a C compiler")
    return Clock(library, tmp_path / "clock")


@pytest.fixture
async def timed(clock: Clock, tmp_path: Path) -> AsyncIterator[Lab]:
    """A lab on a server whose clock can jump."""
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis", environ=clock.environ)
    server.start()
    await server.answering()
    client = store.connect(server.settings)
    yield Lab(server.settings, client)
    await client.aclose()
    server.kill()


@pytest.fixture
async def queue(timed: Lab) -> AsyncIterator[RedisQueue]:
    """A queue there, joined."""
    async with timed.queue() as queue:
        await queue.join()
        yield queue


async def delay_one(lab: Lab, queue: RedisQueue, delay_ms: int = DELAY_MS) -> None:
    await lab.publish(1)
    [entry] = await queue.read(1)
    assert await queue.delay([Delayed(entry.id, delay_ms, 1)]) == []


async def jump(lab: Lab, clock: Clock, ahead_s: int) -> None:
    clock.set(ahead_s)
    # A server reads its clock now and then.
    await lab.until(lambda: _shows(lab, ahead_s))


async def _shows(lab: Lab, ahead_s: int) -> bool:
    seconds, _ = await lab.redis.time()
    return abs(seconds - time.time() - ahead_s) < HOUR_S / 2


async def next_ms(queue: RedisQueue) -> int:
    moved, upcoming = await queue.promote(10)
    assert moved == 0
    assert upcoming is not None
    return upcoming


async def test_a_clock_set_back_delays_nothing_for_longer_than_it_was_to(
    timed: Lab, queue: RedisQueue, clock: Clock
) -> None:
    await jump(timed, clock, HOUR_S)
    await delay_one(timed, queue)
    await jump(timed, clock, 0)
    assert await next_ms(queue) <= DELAY_MS
    assert (await queue.counts()).due == 0
    await asyncio.sleep((DELAY_MS + LATE_MS) / 1000)
    assert (await queue.counts()).due == 1
    assert await queue.promote(10) == (1, None)


async def test_what_is_delayed_after_the_clock_was_set_back_keeps_its_place(
    timed: Lab, queue: RedisQueue, clock: Clock
) -> None:
    await jump(timed, clock, HOUR_S)
    await delay_one(timed, queue, 20 * DELAY_MS)
    await jump(timed, clock, 0)
    # Nobody has looked since.
    await delay_one(timed, queue, 10 * DELAY_MS)
    assert 9 * DELAY_MS < await next_ms(queue) <= 10 * DELAY_MS


async def test_a_clock_that_goes_back_twice_is_followed_twice(
    timed: Lab, queue: RedisQueue, clock: Clock
) -> None:
    await jump(timed, clock, 2 * HOUR_S)
    await delay_one(timed, queue)
    for ahead_s in HOUR_S, 0:
        await jump(timed, clock, ahead_s)
        assert await next_ms(queue) <= DELAY_MS


async def test_with_nothing_delayed_due_times_are_the_servers_again(
    timed: Lab, queue: RedisQueue, clock: Clock
) -> None:
    await jump(timed, clock, HOUR_S)
    await delay_one(timed, queue, 0)
    await jump(timed, clock, 0)
    assert (await queue.promote(10))[0] == 1
    assert await queue.promote(10) == (0, None)
    assert not await timed.redis.exists(LANE.due_clock)
