"""taskiq with its stream broker, in one worker process."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from stopwatch import AT_ONCE, BODY, COUNT, REDIS, stopwatch
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(f"redis://{REDIS}", xread_count=AT_ONCE)


@broker.task
async def handle(body: str) -> None:
    """Nothing but counting."""
    stopwatch.tick()


async def fill() -> None:
    """Queue all events."""
    await broker.startup()
    for _ in range(0, COUNT, AT_ONCE):
        await asyncio.gather(*(handle.kiq(BODY) for _ in range(AT_ONCE)))
    await broker.shutdown()


async def work() -> None:
    """Handle events for ever."""
    broker.is_worker_process = True
    await run_receiver_task(broker, run_startup=True, max_async_tasks=AT_ONCE, max_prefetch=AT_ONCE)


if __name__ == "__main__":
    uvloop.run(fill() if sys.argv[1] == "fill" else work())
