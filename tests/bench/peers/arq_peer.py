"""arq, 100 jobs at once, no results kept."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from arq import Worker, create_pool
from arq.connections import RedisSettings
from stopwatch import AT_ONCE, BODY, COUNT, REDIS, stopwatch

settings = RedisSettings.from_dsn(f"redis://{REDIS}")


async def handle(context: dict[Any, Any], body: str) -> None:
    """Nothing but counting."""
    stopwatch.tick()


async def fill() -> None:
    """Queue all events."""
    pool = await create_pool(settings)
    for _ in range(0, COUNT, AT_ONCE):
        await asyncio.gather(*(pool.enqueue_job("handle", BODY) for _ in range(AT_ONCE)))
    await pool.aclose()


async def work() -> None:
    """Handle events for ever."""
    worker = Worker(
        [handle],
        redis_settings=settings,
        max_jobs=AT_ONCE,
        poll_delay=0.01,
        keep_result=0,
        handle_signals=False,
    )
    await worker.async_run()


if __name__ == "__main__":
    uvloop.run(fill() if sys.argv[1] == "fill" else work())
